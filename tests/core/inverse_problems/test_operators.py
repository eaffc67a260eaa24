"""Every operator: adjoint, pseudo-inverse and SVD agree with each other; samplers against closed forms."""

import pytest
import torch
from torch import Tensor

from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser
from ornstein.errors import UserError
from ornstein.inverse_problems.base import PosteriorSampler
from ornstein.inverse_problems.ddrm import DDRM
from ornstein.inverse_problems.deepinv_physics import DeepinvOperator
from ornstein.inverse_problems.dps import DPS
from ornstein.inverse_problems.operators import (
    Blur,
    Downsample,
    LinearOperator,
    Mask,
    MaskedFourier,
    Matrix,
    SpectralOperator,
    as_matrix,
)
from ornstein.inverse_problems.pigdm import PseudoinverseGuidance
from ornstein.noise import SampleNoise
from ornstein.process.vp import VP
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.time_grids import LogSNRGrid, UniformGrid

F64 = torch.float64


def random(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


NAMES = ["matrix", "mask of each sample", "downsample", "blur", "fourier", "tomography", "tomography as matrix"]


def operators() -> dict[str, tuple[LinearOperator, Tensor]]:
    picture = random(3, 2, 6, 4)
    masks = (random(3, 1, 6, 4, seed=1) > 0).double()
    import deepinv

    tomography = deepinv.physics.Tomography(angles=6, img_width=8, circle=False, normalize=True)
    return {
        "matrix": (Matrix(random(5, 12)), random(3, 12)),
        "mask of each sample": (Mask(masks), picture),
        "downsample": (Downsample(2), picture),
        "blur": (Blur(torch.tensor([[0.1, 0.2, 0.0], [0.1, 0.4, 0.2]])), picture),
        "fourier": (MaskedFourier(masks[:1]), random(3, 2, 6, 4, dtype=torch.cdouble)),
        "tomography": (DeepinvOperator(tomography), random(2, 1, 8, 8).float()),
        "tomography as matrix": (as_matrix(DeepinvOperator(tomography), (1, 8, 8)), random(2, 1, 8, 8).float()),
    }


@pytest.mark.parametrize("name", NAMES)
def test_operator(name: str) -> None:
    operator, x = operators()[name]
    close = {"rtol": 1e-9, "atol": 1e-9} if x.dtype in (F64, torch.cdouble) else {"rtol": 2e-2, "atol": 2e-3}
    image = operator(x)
    r = random(*image.shape, seed=2, dtype=image.dtype)
    r = operator(operator.adjoint(r))  # inside the range, as zeros of masked measurements are
    left, right = (image.conj() * r).sum(), (x.conj() * operator.adjoint(r)).sum()
    torch.testing.assert_close(left, right, rtol=close["rtol"], atol=1e-6)
    explained = operator.pseudo_inverse(image)
    torch.testing.assert_close(operator(explained), image, **close)
    assert float(explained.abs().square().sum()) <= float(x.abs().square().sum()) * 1.001, "the least norm"
    solved = operator.regularized_inverse(r, 0.5)
    torch.testing.assert_close(operator.adjoint(operator(solved)) + 0.5 * solved, operator.adjoint(r), **close)
    if isinstance(operator, SpectralOperator):
        torch.testing.assert_close(operator.from_spectral(operator.to_spectral(x), x), x, **close)
        spectral = operator.kept(x) * operator.to_spectral(x)
        torch.testing.assert_close(operator.measured_to_spectral(image), spectral, rtol=1e-5, atol=1e-5)


def test_bad_operators_are_named() -> None:
    with pytest.raises(UserError, match="0 and 1"):
        Mask(torch.zeros(2, 2))
    with pytest.raises(UserError, match="divisible by 2"):
        Downsample(2)(torch.zeros(1, 1, 3, 4))
    with pytest.raises(UserError, match="complex"):
        MaskedFourier(torch.ones(2, 2))(torch.zeros(1, 1, 2, 2))
    with pytest.raises(UserError, match="too large"):
        as_matrix(Downsample(2), (1, 100, 100))
    with pytest.raises(UserError, match="NaN"):
        DDRM(operator=Downsample(2), measurement=torch.full((1, 1, 2, 2), float("nan")))


def gaussian(size: int, std: float) -> MixtureDenoiser:
    covariance = std**2 * torch.eye(size, dtype=F64)[None]
    return MixtureDenoiser(GaussianMixture(torch.ones(1, dtype=F64), torch.zeros(1, size, dtype=F64), covariance), VP())


def test_pseudoinverse_guidance_samples_the_gaussian_posterior() -> None:
    """Mean and covariance against the closed form, for data N(0, d^2 I) where it is exact."""
    count, d, sigma = 4000, 0.7, 0.3
    matrix, denoiser = random(2, 4), gaussian(4, 0.7)
    r = torch.tensor([[0.8, -1.0]], dtype=F64)
    guided = PseudoinverseGuidance(denoiser, Matrix(matrix), r.expand(count, 2), sigma, d)
    x = denoiser.process.start(random(count, 4, seed=5))
    grid = LogSNRGrid(end=1e-4, to_zero=True)
    generator = torch.Generator().manual_seed(6)
    noise = lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)  # noqa: E731
    samples = Ancestral(steps=150, grid=grid)(guided, x, noise=noise)
    gram = matrix @ matrix.T * d**2 + sigma**2 * torch.eye(2, dtype=F64)
    gain = d**2 * matrix.T @ torch.linalg.inv(gram)
    torch.testing.assert_close(samples.mean(0), (gain @ r[0]), rtol=0, atol=0.04)
    wanted = d**2 * torch.eye(4, dtype=F64) - gain @ matrix * d**2
    torch.testing.assert_close(samples.T.cov(), wanted, rtol=0, atol=0.04)


def test_ddrm_keeps_what_is_measured_and_draws_the_rest() -> None:
    """A mask on N(0, d^2 I): measured values near the measurement, the others with the prior's mean and variance."""
    count, d = 4000, 0.7
    denoiser = gaussian(3, d)
    mask = torch.tensor([[1.0, 0.0, 0.0]], dtype=F64)
    r = torch.tensor([[0.9, 0.0, 0.0]], dtype=F64).expand(count, 3)
    grid = LogSNRGrid(end=1e-4, to_zero=True)
    sampler = DDRM(steps=60, grid=grid, operator=Mask(mask), measurement=r, sigma=0.05, eta=0.0)
    noise = SampleNoise(range(count))
    samples = sampler(denoiser, sampler.start(denoiser.process, noise), noise=noise)
    torch.testing.assert_close(samples.mean(0), torch.tensor([0.9, 0, 0], dtype=F64), rtol=0, atol=0.05)
    assert float(samples[:, 0].std()) < 3 * 0.05
    torch.testing.assert_close(samples[:, 1:].std(0), torch.full((2,), d, dtype=F64), rtol=0.06, atol=0)


@pytest.mark.parametrize("kind", [DPS, DDRM])
def test_a_start_is_refused_where_the_times_are(kind: type[PosteriorSampler]) -> None:
    grid = UniformGrid(start=0.2, end=0.4)
    sampler = kind(steps=4, grid=grid, operator=Mask(torch.ones(1, 3)), measurement=torch.zeros(2, 3))
    with pytest.raises(UserError, match="times that do not decrease"):
        sampler.start(VP(), SampleNoise(range(2)))
