"""Spectra: reference losses and gradients, Parseval, bands, and the slope of noise whose slope is known."""

import math

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files

from ornstein.config import build, describe
from ornstein.errors import UserError
from ornstein.spectrum import SpectrumLoss, amplitude, band, radial_power, spectral_slope


def losses(vectors: ReferenceFile) -> list[str]:
    return vectors.prefixes("_loss")


@reference_files("infrared", "spectrum*.npz", cases=losses, needs=["x", "g", "band"])
def test_loss_and_gradient(vectors: ReferenceFile, case: str) -> None:
    comparison, _, kept = case.rpartition("_")
    x = vectors.tensor("x").requires_grad_()
    loss = SpectrumLoss(comparison, vectors.number("band") if kept == "band" else None)(x, vectors.tensor("g"))
    (gradient,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(loss.item(), vectors.number(f"{case}_loss"), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, vectors.tensor(f"{case}_grad"), rtol=1e-10, atol=1e-10)


def pictures(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, g = (torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return x, g


@pytest.mark.parametrize("size", [(8, 8), (7, 12)])
def test_parseval(size: tuple[int, int]) -> None:
    x, g = pictures(3, 2, *size)
    loss = SpectrumLoss("complex_l2").per_sample(x, g)
    torch.testing.assert_close(loss, (x - g).square().flatten(1).mean(1), rtol=1e-12, atol=0)


def test_amplitude_does_not_see_a_shift_and_has_a_gradient_at_zero() -> None:
    x, _ = pictures(1, 1, 16, 20)
    assert float(SpectrumLoss()(x, x.roll((3, 5), (2, 3)))) < 1e-20
    zero = torch.zeros(1, 1, 16, 20, requires_grad=True)
    (gradient,) = torch.autograd.grad(SpectrumLoss()(zero, x.float()), zero)
    assert gradient.isfinite().all()
    torch.testing.assert_close(amplitude(torch.zeros(4, 4)), torch.full((4, 4), 1e-4))


def test_a_band_counts_low_frequencies_only() -> None:
    rows, columns = torch.arange(32.0).double()[:, None], torch.arange(32.0).double()
    low, high = (torch.cos(2 * math.pi * f * (rows + columns))[None, None] for f in (1 / 16, 3 / 8))
    x, _ = pictures(1, 1, 32, 32)
    loss = SpectrumLoss(cutoff=1 / 8)
    assert float(loss(x + high, x)) < 1e-20 < 1e-3 < float(loss(x + low, x))
    assert int(band(8, 8, 0.125).sum()) == 9
    assert bool(band(5, 6, 0.5).all())


def test_per_sample_and_half_precision() -> None:
    x, g = pictures(4, 1, 12, 20)
    for i, one in enumerate(SpectrumLoss("logamp_l2", 0.25).per_sample(x, g)):
        torch.testing.assert_close(one, SpectrumLoss("logamp_l2", 0.25)(x[i : i + 1], g[i : i + 1]))
    assert SpectrumLoss()(x.bfloat16(), g.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.5])
def test_slope_of_coloured_noise(exponent: float) -> None:
    """An amplitude of 1/f^p has a power of 1/f^2p."""
    x, _ = pictures(256, 300)
    f = torch.hypot(torch.fft.fftfreq(256)[:, None], torch.fft.rfftfreq(300)).double()
    f[0, 0] = 1
    noise = torch.fft.irfft2(torch.fft.rfft2(x - x.mean()) / f**exponent, s=(256, 300))
    assert spectral_slope(noise) == pytest.approx(-2 * exponent, abs=0.2)


def test_no_slope() -> None:
    assert math.isnan(spectral_slope(torch.ones(32, 32)))
    assert math.isnan(spectral_slope(torch.rand(23, 100)))
    with pytest.raises(ValueError, match="square"):
        radial_power(torch.rand(8, 9))


def test_bad_settings() -> None:
    for settings in ({"comparison": "phase"}, {"cutoff": 0.7}):
        with pytest.raises(UserError, match=r"use one of|between 0 and"):
            SpectrumLoss(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one shape"):
        SpectrumLoss()(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5))
    assert build(describe(SpectrumLoss("amp_l1", 0.25)), SpectrumLoss) == SpectrumLoss("amp_l1", 0.25)
