"""DDRM on Gaussian data: how much of the spread of what is not measured is left, in closed form."""

from itertools import pairwise

import pytest
import torch

from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser
from ornstein.inverse_problems.ddrm import DDRM
from ornstein.inverse_problems.operators import Mask, Matrix
from ornstein.process.vp import VP
from ornstein.samplers.time_grids import LogSNRGrid, TimeGrid, UniformGrid

STD = 0.8
"""d of the data N(0, d^2 I)."""
GRID = LogSNRGrid(end=1e-3, to_zero=True)


def unmeasured_variance(grid: TimeGrid, steps: int, eta: float) -> float:
    """Of u = x/a: x0hat = c u with c = d^2/(d^2 + rho^2), so u' = (c + k (1 - c) rho'/rho) u + eta rho' z with
    k = sqrt(1 - eta^2)."""
    rho = 1 / VP().kappa(grid(VP(), steps))
    variance = float(rho[0]) ** 2
    for before, after in pairwise(rho.tolist()):
        c = STD**2 / (STD**2 + before**2)
        gain = c + (1 - eta**2) ** 0.5 * (1 - c) * after / before
        variance = gain**2 * variance + (eta * after) ** 2
    return variance


@pytest.mark.parametrize("eta", [0.0, 0.5, 0.85, 1.0])
def test_spread_of_what_is_not_measured(eta: float) -> None:
    """The samples have the variance of the recursion."""
    count, steps = 6000, 50
    one = torch.ones(1, dtype=torch.float64)
    data = GaussianMixture(one, torch.zeros(1, 3).double(), STD**2 * torch.eye(3, dtype=torch.float64)[None])
    matrix = torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64)
    sampler = DDRM(steps, GRID, operator=Matrix(matrix), measurement=one.expand(count, 1), sigma=0.05, eta=eta)
    generator = torch.Generator().manual_seed(0)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    process = VP()
    found = sampler(MixtureDenoiser(data, process), sampler.start(process, noise), noise=noise)[:, 1:]
    assert float(found.square().mean()) == pytest.approx(unmeasured_variance(GRID, steps, eta), rel=0.04)


@pytest.mark.parametrize("eta", [0.0, 0.5, 0.85, 1.0])
def test_spread_in_the_limit_of_short_steps(eta: float) -> None:
    """A step draws noise of standard deviation eta rho' however short it is, while x0hat, no draw of x0, gives back too
    little of it: the gain is 1 - (1 - k) rho^2/d^2, whose balance with eta^2 rho^2 is d^2 (1 + k)/2."""
    limit = STD**2 * (1 + (1 - eta**2) ** 0.5) / 2
    assert unmeasured_variance(GRID, 20_000, eta) == pytest.approx(limit, rel=0.005)


def measured_variance(grid: TimeGrid, steps: int, eta: float, std: float, sigma: float) -> float:
    """Of u = x/a where the value itself is measured as r = 0: u' has the variance rho'^2 - sigma^2 while that is
    positive, then u' = (1 - k rho'/sigma) x0hat + eta rho' z."""
    rho = 1 / VP().kappa(grid(VP(), steps))
    variance = float(rho[0]) ** 2 - sigma**2
    for before, after in pairwise(rho.tolist()):
        if after >= sigma:
            variance = after**2 - sigma**2
        else:
            gain = std**2 / (std**2 + before**2) * (1 - (1 - eta**2) ** 0.5 * after / sigma)
            variance = gain**2 * variance + (eta * after) ** 2
    return variance


@pytest.mark.parametrize("eta", [0.0, 0.85, 1.0])
def test_spread_of_what_is_measured(eta: float) -> None:
    """The samples have the variance of the recursion."""
    count, steps, sigma = 6000, 50, 0.3
    one = torch.ones(1, dtype=torch.float64)
    data = GaussianMixture(one, torch.zeros(1, 2).double(), STD**2 * torch.eye(2, dtype=torch.float64)[None])
    mask, r = torch.tensor([1.0, 0.0]).double(), torch.zeros(count, 2, dtype=torch.float64)
    sampler = DDRM(steps, GRID, operator=Mask(mask), measurement=r, sigma=sigma, eta=eta)
    generator = torch.Generator().manual_seed(0)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    found = sampler(MixtureDenoiser(data, VP()), sampler.start(VP(), noise), noise=noise)[:, 0]
    wanted = measured_variance(GRID, steps, eta, STD, sigma)
    assert float(found.square().mean()) == pytest.approx(wanted, rel=0.06, abs=1e-8)


@pytest.mark.parametrize(("eta", "share"), [(0.0, 0.0), (0.85, 0.16), (1.0, 3.4)])
def test_share_of_the_right_variance_along_a_measured_direction(eta: float, share: float) -> None:
    """The numbers of docs/inverse-problems.md: d = 0.75, sigma = 0.3, 400 equal steps of VP."""
    share_of = measured_variance(UniformGrid(), 400, eta, 0.75, 0.3) * (1 / 0.75**2 + 1 / 0.3**2)
    assert share_of == pytest.approx(share, abs=0.05 * share + 1e-6)
