import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from ornstein.config import build, describe
from ornstein.errors import UserError
from ornstein.pictures.degraded import to_linear
from ornstein.pictures.filters import gaussian_blur
from ornstein.training.seeds import item_generator
from ornstein_restoration.degradations import (
    Bicubic,
    Degradation,
    LowLight,
    Rain,
    RealESRGAN,
    Shadow,
)
from ornstein_restoration.degradations.low_light import sensor
from ornstein_restoration.degradations.rain import streak_kernel
from ornstein_restoration.degradations.shadow import polygon

ALL: list[Degradation] = [Bicubic(), RealESRGAN(), RealESRGAN(sharpen=True), LowLight(), Rain(), Shadow()]


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(height: int = 48, width: int = 64, seed: int = 0) -> Tensor:
    """Smooth colours with an edge."""
    noise = torch.rand(1, 3, height, width, generator=draw(seed))
    image = gaussian_blur(noise, 3.0)[0]
    image = (image - image.min()) / (image.max() - image.min())
    image[:, :, width // 2 :] *= 0.5
    return image


@pytest.mark.parametrize("degradation", ALL)
@settings(max_examples=12, deadline=None)
@given(height=st.integers(1, 33), width=st.integers(1, 33), seed=st.integers(0, 2**32))
def test_size_range_levels_and_repetition(degradation: Degradation, height: int, width: int, seed: int) -> None:
    image = torch.rand(3, height, width, generator=draw(seed))
    before = image.clone()
    result = degradation(image, draw(seed))
    assert torch.equal(image, before)
    assert result.image.shape == (3, max(1, height // degradation.scale), max(1, width // degradation.scale))
    assert result.image.dtype == torch.float32
    assert 0 <= float(result.image.min()) <= float(result.image.max()) <= 1
    levels = result.image * 255
    assert torch.allclose(levels, levels.round(), rtol=0, atol=1e-4)
    again = degradation(image, draw(seed))
    assert torch.equal(result.image, again.image)
    if result.mask is not None:
        assert again.mask is not None
        assert torch.equal(result.mask, again.mask)


@pytest.mark.parametrize("degradation", [d for d in ALL if not isinstance(d, Bicubic)])
def test_images_and_epochs_draw_anew(degradation: Degradation) -> None:
    image = picture()
    keys = [(0, 0), (0, 1), (1, 0), (1, 1)]
    results = [degradation(image, item_generator(3, epoch, index)).image for epoch, index in keys]
    assert all(not torch.equal(results[i], results[j]) for i in range(4) for j in range(i))
    assert torch.equal(degradation(image, item_generator(3, 0, 1)).image, results[1])


@pytest.mark.parametrize("degradation", ALL)
def test_a_recipe_can_hold_it(degradation: Degradation) -> None:
    assert build(describe(degradation), type(degradation)) == degradation


@pytest.mark.parametrize("degradation", ALL)
@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(1, 8, 8),
        torch.zeros(3, 0, 8),
        torch.zeros(1, 3, 8, 8),
        torch.zeros(3, 8, 8, dtype=torch.uint8),
        torch.full((3, 8, 8), 2.0),
        torch.full((3, 8, 8), -0.1),
        torch.full((3, 8, 8), math.nan),
    ],
    ids=["channels", "empty", "batch", "bytes", "bright", "negative", "nan"],
)
def test_bad_images(degradation: Degradation, bad: Tensor) -> None:
    with pytest.raises(UserError, match="an image to degrade"):
        degradation(bad, draw())


def test_bicubic_agrees_with_pillow() -> None:
    image = (picture(47, 66) * 255).round()
    pillow = Image.fromarray(image.byte().permute(1, 2, 0).numpy()).resize((16, 11), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(pillow)).permute(2, 0, 1)
    assert ((Bicubic()(image / 255, draw()).image * 255).round() - expected).abs().max() <= 1


def test_sensor_noise_has_the_stated_variance() -> None:
    light = torch.full((3, 200, 200), 0.1)
    noisy = sensor(light, 1000.0, 0.003, draw())
    assert float(noisy.mean()) == pytest.approx(0.1, rel=0.01)
    assert float(noisy.var()) == pytest.approx(0.1 / 1000 + 0.003**2, rel=0.03)


def test_low_light_follows_its_formula() -> None:
    bright = LowLight(gain=(0.2, 0.2), gamma=(3.0, 3.0), photons=(1e6, 1e6), read_noise=(0.0, 0.0))
    image = picture()
    expected = (0.2 * image**3) ** (1 / 2.2)
    assert torch.allclose(bright(image, draw()).image, expected, rtol=0, atol=0.02)
    assert float(LowLight()(image, draw()).image.mean()) < 0.6 * float(image.mean())


def test_shadow_darkens_its_mask_alone() -> None:
    image = picture(60, 80) * 0.8 + 0.1
    hard = Shadow(softness=(0.0, 0.0))
    for seed in range(8):
        result = hard(image, draw(seed))
        assert result.mask is not None
        assert result.mask.shape == (1, 60, 80)
        assert set(result.mask.unique().tolist()) == {0.0, 1.0}
        inside = result.mask.bool().expand(3, -1, -1)
        assert torch.allclose(result.image[~inside], image[~inside], rtol=0, atol=0.6 / 255)
        ratio = to_linear(result.image)[inside] / to_linear(image)[inside]
        assert float(ratio.min()) > 0.25 * 0.85 - 0.05
        assert float(ratio.max()) < 0.6 + 0.05
    soft = Shadow(softness=(0.03, 0.03))(image, draw(0)).image
    assert not torch.allclose(soft, hard(image, draw(0)).image, atol=0.05)


def test_polygon_counts_the_pixels_of_a_rectangle() -> None:
    corners = torch.tensor([[2.0, 1.0], [7.0, 1.0], [7.0, 5.0], [2.0, 5.0]])
    inside = polygon(corners, 8, 10)
    expected = torch.zeros(8, 10, dtype=torch.bool)
    expected[1:5, 2:7] = True
    assert torch.equal(inside, expected)
    triangle = polygon(torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]]), 100, 100)
    assert float(triangle.double().sum()) == pytest.approx(5000, rel=0.02)


def test_streaks_are_oriented_and_only_add_light() -> None:
    kernel = streak_kernel(15, 20.0, 0.7)
    assert float(kernel.sum()) == pytest.approx(1)
    half = len(kernel) // 2
    y, x = torch.meshgrid(torch.arange(-half, half + 1), torch.arange(-half, half + 1), indexing="ij")
    covariance = float((kernel * x * y).sum())
    spread = float((kernel * (x**2 - y**2)).sum())
    assert math.degrees(0.5 * math.atan2(2 * covariance, -spread)) == pytest.approx(20, abs=2)
    image = picture()
    streaks = Rain(drops=(0, 0))(image, draw()).image
    assert bool((streaks >= image - 0.6 / 255).all())
    assert float((streaks - image).mean()) > 0.01


def test_drops_change_some_places_and_leave_the_rest() -> None:
    image = picture(96, 96)
    drops = Rain(layers=(0, 0), drops=(3, 3), radius=(0.05, 0.1))(image, draw(1)).image
    changed = ((drops - image).abs().amax(0) > 1 / 255).double().mean()
    assert 0.005 < float(changed) < 0.3
    none = Rain(layers=(0, 0), drops=(0, 0))(image, draw()).image
    assert torch.allclose(none, image, rtol=0, atol=0.6 / 255)
