"""Degradations: Pillow's filter bit by bit, a camera's noise by its statistics, grey noise of Real-ESRGAN."""

import math

import numpy as np
import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor

from ornstein.config import build, describe
from ornstein.errors import UserError
from ornstein_infrared.degradations import Bicubic, Degradation, RealESRGAN, Thermal
from ornstein_infrared.degradations.bicubic import enlarge, shrink
from ornstein_infrared.degradations.thermal import flicker

ALL: list[Degradation] = [Bicubic(), Bicubic(2, False), RealESRGAN(), Thermal(), Thermal(agc=(0.5, 99.5))]


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frame(height: int = 48, width: int = 64, seed: int = 0) -> Tensor:
    noise = torch.rand(1, 1, 1 + height // 8, 1 + width // 8, generator=draw(seed))
    return torch.nn.functional.interpolate(noise, (height, width), mode="bilinear")[0]


@reference_files("infrared", "degrade*.npz", needs=["hr_u8", "lr_u8", "hr_f32", "lr_f32", "up_bicubic"])
def test_published_pairs(vectors: ReferenceFile) -> None:
    large, small = vectors["hr_u8"], vectors["lr_u8"]
    scale = large.shape[0] // small.shape[0]
    np.testing.assert_array_equal(shrink(large, scale), small)
    np.testing.assert_allclose(shrink(vectors["hr_f32"], scale), vectors["lr_f32"], rtol=0, atol=1e-3)
    image = torch.from_numpy(large.astype(np.float32) / 255)[None]
    made = Bicubic(scale)(image, draw()).image[0]
    np.testing.assert_array_equal(torch.round(255 * made), small)
    up = enlarge(torch.from_numpy(small / 255.0)[None, None], scale)[0, 0]
    np.testing.assert_allclose(up, vectors["up_bicubic"], rtol=0, atol=1e-9)


def test_floats_are_not_rounded() -> None:
    image = frame()
    found = Bicubic(4, eight_bit=False)(image, draw()).image
    rounded = Bicubic(4)(image, draw()).image
    assert 0 < float((found - rounded).abs().max()) <= 1.5 / 255
    counts = (7000 + 100 * frame()[0].numpy()).astype(np.uint16)
    assert shrink(counts, 4).dtype == np.float32


@pytest.mark.parametrize("degradation", ALL)
@pytest.mark.parametrize(("height", "width"), [(48, 64), (37, 50), (8, 8)])
def test_size_range_and_repetition(degradation: Degradation, height: int, width: int) -> None:
    image = frame(height, width)
    before = image.clone()
    found = degradation(image, draw(3))
    scale = degradation.scale  # type: ignore[attr-defined]
    assert found.image.shape == (1, max(1, height // scale), max(1, width // scale))
    assert found.image.dtype == torch.float32
    assert 0 <= float(found.image.min()) <= float(found.image.max()) <= 1
    assert torch.equal(found.image, degradation(image, draw(3)).image)
    assert torch.equal(image, before)
    assert build(describe(degradation), type(degradation)) == degradation


@pytest.mark.parametrize("degradation", [RealESRGAN(), Thermal()])
def test_seeds_differ(degradation: Degradation) -> None:
    assert not torch.equal(degradation(frame(), draw(1)).image, degradation(frame(), draw(2)).image)


@pytest.mark.parametrize("degradation", ALL)
@pytest.mark.parametrize("bad", [torch.rand(3, 16, 16), torch.full((1, 8, 8), math.nan), torch.full((1, 8, 8), 300.0)])
def test_bad_frames(degradation: Degradation, bad: Tensor) -> None:
    with pytest.raises(UserError, match="to degrade"):
        degradation(bad, draw())


def test_noise_of_the_camera_is_what_it_says() -> None:
    """A flat scene: noise of 50 mK in 20 K, columns of 40 mK, and nothing else."""
    camera = Thermal(span=(20, 20), netd=(0.05, 0.05), columns=(0.04, 0.04), rows=(0, 0), dead=(0, 0), counts=1e4)
    flat = torch.full((1, 800, 1600), 0.5)
    kelvin = 20 * camera(flat, draw()).image[0].double()  # rounded to 78 mK in the file
    columns = kelvin.mean(0)
    assert float(columns.std()) == pytest.approx(0.04, rel=0.15)
    step = (20 / 255) ** 2 / 12
    assert float((kelvin - columns).var()) == pytest.approx(0.05**2 + step, rel=0.1)


def test_dead_pixels_are_marked_and_the_lens_blurs() -> None:
    quiet = {"netd": (0.0, 0.0), "columns": (0.0, 0.0), "rows": (0.0, 0.0), "counts": 1e6}
    camera = Thermal(dead=(0.02, 0.02), **quiet)  # type: ignore[arg-type]
    found = camera(torch.full((1, 400, 400), 0.5), draw())
    assert found.mask is not None
    assert torch.equal(found.mask > 0, (found.image == 0) | (found.image == 1))
    assert 0.01 < float(found.mask.mean()) < 0.03
    edge = (torch.arange(160) >= 80).float().expand(1, 160, 160).contiguous()
    widths = []
    for sigma in (0.5, 1.2):
        row = Thermal(psf=(sigma, sigma), dead=(0, 0), **quiet)(edge, draw()).image[0, 20]  # type: ignore[arg-type]
        slope = row.diff()
        place = torch.arange(39.0)
        centre = (slope * place).sum()
        # squares of the widths of lens, pixel and the step of diff add up; the Gaussian is cut at 3 sigma
        widths.append(float((slope * (place - centre) ** 2).sum().sqrt()))
    assert widths[0] == pytest.approx(math.hypot(0.5, 1 / math.sqrt(6)), abs=0.02)
    assert widths[1] == pytest.approx(math.hypot(1.2, 1 / math.sqrt(6)), abs=0.03)


def test_gain_control() -> None:
    image = 0.4 + 0.2 * frame()
    found = Thermal(agc=(0.5, 99.5))(image, draw()).image
    assert float(found.max() - found.min()) > 0.95
    with pytest.raises(UserError, match="no range"):
        Thermal(agc=(99, 1))
    with pytest.raises(UserError, match="above 0"):
        Thermal(counts=0)


def test_flicker_has_unit_variance_and_falls_with_frequency() -> None:
    noise = torch.stack([flicker(256, draw(seed)) for seed in range(400)]).double()
    assert float(noise.var()) == pytest.approx(1, abs=0.05)
    power = torch.fft.rfft(noise).abs().square().mean(0)
    frequency = torch.arange(1.0, 128).double()
    slope = np.polyfit(frequency.log(), power[1:128].log(), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)
    assert flicker(2, draw()).shape == (2,)


def test_noise_of_real_esrgan_is_grey() -> None:
    """Channels that went through equal stay equal: what is returned is all there is."""
    from ornstein.pictures.real_esrgan import RealESRGAN as Colours

    grey = RealESRGAN(second_probability=1.0)
    colours = Colours(grey.scale, grey.first, grey.second)(frame().expand(3, -1, -1).contiguous(), draw(5)).image
    assert float((colours - colours[:1]).abs().max()) <= 1.01 / 255
    assert torch.equal(grey(frame(), draw(5)).image, colours[:1])
