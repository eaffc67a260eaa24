"""Shortest Path Diffusion against the published program, the geometry and exact Gaussian data."""

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor

from ornstein.denoiser import Denoiser
from ornstein.estimate import Estimate, estimate_from_x0
from ornstein.networks.hartley import InHartley
from ornstein.parameterization import Noise
from ornstein.process.affine import as_time
from ornstein.process.shortest_path import ShortestPath, hartley
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.ode_solvers import Euler, Heun
from ornstein.samplers.time_grids import DiscreteGrid

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def process_of(vectors: ReferenceFile) -> ShortestPath:
    size, (c1, c2, m) = int(vectors["size"]), (vectors.number(name) for name in ("c1", "c2", "m"))
    return ShortestPath(size, size, c1, c2, m, int(vectors["T"]))


@reference_files("training", "spd*.npz", needs=["sigma0", "alphas_cumprod", "x_t", "ddim_sample"])
def test_published_program(vectors: ReferenceFile) -> None:
    """Schedule, forward sample, the DDIM step and the ancestral mean, for one time a sample."""
    process = process_of(vectors)
    torch.testing.assert_close(process.log_power.exp(), vectors.tensor("sigma0"), **CLOSE)
    nodes = torch.arange(1, process.steps + 1, dtype=torch.float64)
    torch.testing.assert_close(process.coefficients(nodes).a[:, 0] ** 2, vectors.tensor("alphas_cumprod"), **CLOSE)
    t = vectors.tensor("t").double() + 1
    x0, z = (hartley(vectors.tensor(name)) for name in ("x0", "q_noise"))
    x = process.sample(x0, t, z)
    torch.testing.assert_close(hartley(x), vectors.tensor("x_t"), **CLOSE)
    a, _, s, _ = process.coefficients(t)
    estimated = (x - s * hartley(vectors.tensor("eps"))) / a
    torch.testing.assert_close(hartley(process.step(x, t, t - 1, estimated)), vectors.tensor("ddim_sample"), **CLOSE)
    weights = process.step_weights(t, t - 1)
    noise = (vectors.tensor("p_log_variance") / 2).exp() * hartley(vectors.tensor("p_sample_noise"))
    mean = weights.x * x + weights.x0 * estimated
    torch.testing.assert_close(hartley(mean + noise), vectors.tensor("p_sample"), **CLOSE)


@reference_files("training", "spd*.npz", needs=["fisher_length_spd"])
def test_the_path_is_the_geodesic(vectors: ReferenceFile) -> None:
    """Its variance for data N(0, d) is d^tau, whose length in the Fisher metric is sqrt(sum log^2 d/2)."""
    process = process_of(vectors)
    t = torch.linspace(0, process.T, 7, dtype=torch.float64)
    a, _, s, _ = process.coefficients(t)
    variance = a**2 * process.log_power.exp() + s**2
    tau = variance.log() / process.log_power
    torch.testing.assert_close(tau, tau[..., :1, 1:2].expand_as(tau), **CLOSE)
    length = (process.log_power.square().sum() / 2).sqrt()
    torch.testing.assert_close(length, vectors.tensor("fisher_length_spd"), **CLOSE)


def test_derivatives_and_the_limit_of_unit_power() -> None:
    process = ShortestPath(5, 4, scale=1.3, steps=50)
    t, h = torch.tensor([0.4, 3.3, 49.2], dtype=torch.float64), 1e-5
    rates = process.derivatives(t)
    after, before = process.coefficients(t + h), process.coefficients(t - h)
    for name in ("a", "s", "phi"):
        found = (getattr(after, name) - getattr(before, name)) / (2 * h)
        torch.testing.assert_close(getattr(rates, name), found, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(process.variance_rate(t), 2 * process.coefficients(t).s * rates.s)
    flat, nearly = (ShortestPath(3, 3, scale, 1.0, 0.0, 10).coefficients(t[:2]) for scale in (1.0, 1 + 1e-9))
    torch.testing.assert_close(flat.a, nearly.a, rtol=1e-7, atol=1e-7)


class Gaussian:
    """E[x0 | x] of data N(0, d)."""

    def __init__(self, process: ShortestPath) -> None:
        self.process, self.power = process, process.log_power.exp()

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        a, _, s, _ = self.process.coefficients(as_time(t))
        return estimate_from_x0(self.process, x, as_time(t), a * self.power / (a**2 * self.power + s**2) * x)


@pytest.mark.parametrize(
    "sampler",
    [
        Ancestral(400, DiscreteGrid()),
        Euler(400, DiscreteGrid()),
        Heun(50, DiscreteGrid()),
        DPMSolverPP(100, DiscreteGrid()),
    ],
    ids=lambda s: type(s).__name__,
)
def test_samples_have_the_power_of_the_data(sampler: Sampler) -> None:
    process = ShortestPath(6, 6, scale=8.0, offset=0.5, steps=400)
    generator = torch.Generator().manual_seed(0)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    start = process.start(noise(torch.empty(3000, 1, 6, 6, dtype=torch.float64)))
    found = sampler(Gaussian(process), start, noise=noise)
    ratio = found.square().mean((0, 1)) / process.log_power.exp()
    assert (ratio - 1).abs().max() < 0.15, ratio
    assert abs(float(ratio.mean()) - 1) < 0.03


def test_the_fit_finds_the_power_and_networks_see_pictures() -> None:
    process = ShortestPath(16, 16, scale=5.0, exponent=1.7, steps=20)
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(500, 1, 16, 16, generator=generator, dtype=torch.float64)
    again = ShortestPath.fitted(process.log_power.exp().sqrt() * z, steps=20)
    assert again.exponent == pytest.approx(1.7, abs=0.02)
    assert again.scale == pytest.approx(5.0, rel=0.05)
    torch.testing.assert_close(hartley(hartley(z)), z)

    class Half(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return x.roll(1, -1) / 2

    estimate = Denoiser(InHartley(Half()), process, Noise())(hartley(z[:2]), 4.0)
    torch.testing.assert_close(hartley(estimate.noise), z[:2].roll(1, -1) / 2)


def test_bad_requests() -> None:
    with pytest.raises(ValueError, match="offset > 0"):
        ShortestPath(offset=0.0)
    with pytest.raises(ValueError, match="two or more"):
        ShortestPath.fitted(torch.zeros(1, 1, 4, 4))
