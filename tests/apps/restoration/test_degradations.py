import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor

from ornstein.config import build, describe
from ornstein.errors import UserError
from ornstein.pictures.degraded import choose, to_linear, to_srgb
from ornstein.pictures.filters import filter2d, gaussian_blur, unsharp_mask
from ornstein.pictures.jpeg import jpeg
from ornstein.pictures.kernels import (
    RandomKernel,
    RandomSinc,
    gaussian_kernel,
    padded,
    plateau_kernel,
    pulse_kernel,
    sinc_kernel,
)
from ornstein.pictures.noise import add_gaussian_noise, add_poisson_noise
from ornstein.pictures.real_esrgan import SECOND, Stage
from ornstein_restoration.datasets import item_generator
from ornstein_restoration.degradations import (
    Bicubic,
    Degradation,
    LowLight,
    PairPool,
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


def kernel_names(vectors: ReferenceFile) -> list[str]:
    return [name for name in vectors.names if name.startswith("kernel") and not name.endswith("_args")]


@reference_files("restoration", "degradation*.npz", cases=kernel_names)
def test_kernels(vectors: ReferenceFile, case: str) -> None:
    name, kind = case.split("_")
    size, *rest = vectors.tensor(f"{name}_args").tolist()
    if kind == "sinc":
        made = padded(sinc_kernel(int(size), rest[0]), int(rest[1]))
    else:
        make = plateau_kernel if kind.startswith("p") else gaussian_kernel
        if kind in ("giso", "piso"):
            rest[1:3] = [None, 0.0]
        made = make(int(size), *rest)
    assert torch.allclose(made, vectors.tensor(case), rtol=0, atol=1e-12)


@reference_files("restoration", "degradation*.npz", needs=["image", "filter2d", "kernel0_iso"])
def test_filter2d(vectors: ReferenceFile) -> None:
    made = filter2d(vectors.tensor("image"), vectors.tensor("kernel0_iso"))
    assert torch.allclose(made, vectors.tensor("filter2d"), rtol=0, atol=1e-6)


def qualities(vectors: ReferenceFile) -> list[str]:
    return [name.removeprefix("jpeg_q") for name in vectors.names if name.startswith("jpeg_q")]


@reference_files("restoration", "degradation*.npz", cases=qualities, needs=["image"])
def test_jpeg(vectors: ReferenceFile, case: str) -> None:
    image = vectors.tensor("image")
    made = jpeg(image, torch.full((len(image),), float(case)))
    assert torch.allclose(made, vectors.tensor(f"jpeg_q{case}"), rtol=0, atol=1e-5)


@reference_files("restoration", "degradation*.npz", needs=["image", "usm"])
def test_unsharp_mask(vectors: ReferenceFile) -> None:
    assert torch.allclose(unsharp_mask(vectors.tensor("image")), vectors.tensor("usm"), rtol=0, atol=1e-5)


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


def test_jpeg_is_a_real_file_turned_around(tmp_path: Path) -> None:
    """Quality 50 has whole steps, and a transposed image meets the tables as they stand in the standard."""
    image = (picture(64, 64).mean(0, keepdim=True).expand(3, -1, -1) * 255).round()  # chroma is upsampled otherwise
    Image.fromarray(image.byte().permute(1, 2, 0).numpy()).save(tmp_path / "x.jpg", quality=50, subsampling="4:2:0")
    real = torch.from_numpy(np.array(Image.open(tmp_path / "x.jpg"))).permute(2, 0, 1).float()
    quality = torch.tensor([50.0])
    turned = jpeg(image.mT.unsqueeze(0) / 255, quality)[0].mT * 255
    assert float((turned - real).abs().mean()) < 0.5
    assert float((jpeg(image.unsqueeze(0) / 255, quality)[0] * 255 - real).abs().mean()) > 1


def test_each_image_has_its_own_quality_and_kernel() -> None:
    images = torch.stack([picture(seed=1), picture(seed=2)])
    qualities = torch.tensor([30.0, 90.0])
    both = jpeg(images, qualities)
    alone = [jpeg(images[i : i + 1], qualities[i : i + 1])[0] for i in range(2)]
    assert torch.allclose(both, torch.stack(alone), rtol=0, atol=1e-5)
    kernels = torch.stack([pulse_kernel(9), gaussian_kernel(9, 2.0)])
    filtered = filter2d(images, kernels)
    assert torch.allclose(filtered[0], images[0], rtol=0, atol=1e-7)
    assert torch.allclose(filtered[1], filter2d(images[1:], kernels[1])[0], rtol=0, atol=1e-6)


def test_jpeg_has_a_gradient_when_soft() -> None:
    image = picture(17, 19).unsqueeze(0).requires_grad_()
    made = jpeg(image, torch.tensor([50.0]), soft=True)
    assert made.shape == image.shape
    (gradient,) = torch.autograd.grad((made**2).sum(), image)
    assert float(gradient.abs().mean()) > 1e-3


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 15))
@settings(max_examples=20, deadline=None)
def test_filters_mirror_like_numpy(height: int, width: int, margin: int) -> None:
    image = torch.rand(1, 1, height, width, generator=draw(height), dtype=torch.float64)
    kernel = torch.rand(2 * margin + 1, 2 * margin + 1, generator=draw(margin), dtype=torch.float64)
    wide = torch.from_numpy(np.pad(image[0, 0].numpy(), margin, mode="reflect"))
    expected = torch.nn.functional.conv2d(wide[None, None], kernel[None, None])
    assert torch.allclose(filter2d(image, kernel), expected)


def test_blur_keeps_the_mean_and_has_the_variance() -> None:
    image = torch.zeros(1, 1, 61, 61, dtype=torch.float64)
    image[..., 30, 30] = 1
    blurred = gaussian_blur(image, 3.0)[0, 0]
    axis = torch.arange(61, dtype=torch.float64) - 30
    assert float(blurred.sum()) == pytest.approx(1)
    assert float((blurred.sum(0) * axis**2).sum()) == pytest.approx(9.0, rel=0.05)
    assert gaussian_blur(image, 0.0) is image


def test_drawn_kernels() -> None:
    generator = draw()
    kernels = torch.stack([RandomKernel()(generator) for _ in range(200)])
    assert kernels.shape == (200, 21, 21)
    assert torch.allclose(kernels.sum((1, 2)), torch.ones(200, dtype=torch.float64))
    assert float(kernels[:, 0].abs().max()) == 0  # sizes stop at 19
    rings = (kernels < -1e-12).flatten(1).any(1)
    assert 0.02 < float(rings.double().mean()) < 0.2  # the sinc kernels, p = 0.1
    second = torch.stack([SECOND.kernel(generator) for _ in range(50)])
    assert second.shape == (50, 15, 15)
    sincs = torch.stack([RandomSinc()(generator) for _ in range(200)])
    pulses = (sincs == pulse_kernel(21)).flatten(1).all(1).double().mean()
    assert float(pulses) == pytest.approx(0.2, abs=0.1)


def test_choices_follow_their_weights() -> None:
    generator = draw()
    drawn = torch.tensor([choose((0.45, 0.25, 0.3), generator) for _ in range(3000)])
    shares = torch.bincount(drawn, minlength=3) / 3000
    assert torch.allclose(shares, torch.tensor([0.45, 0.25, 0.3]), atol=0.03)
    assert {choose((0.0, 1.0, 0.0), generator) for _ in range(50)} == {1}


def test_gaussian_noise_has_its_level_and_colour() -> None:
    images = torch.full((2, 3, 100, 100), 0.5)
    noise = add_gaussian_noise(images, torch.tensor([5.0, 20.0]), torch.tensor([False, True]), draw()) - images
    assert float(noise[0].std()) * 255 == pytest.approx(5, rel=0.03)
    assert float(noise[1].std()) * 255 == pytest.approx(20, rel=0.03)
    assert torch.equal(noise[1, 0], noise[1, 2])
    assert abs(float(torch.corrcoef(noise[0].flatten(1))[0, 1])) < 0.05


def test_poisson_noise_has_the_variance_of_its_events() -> None:
    ramp = (torch.arange(100) / 255).repeat(100, 1)  # 100 levels: 128 events
    images = ramp.expand(2, 3, 100, 100).contiguous()
    scale = torch.tensor([0.2, 0.2])
    noise = add_poisson_noise(images, scale, torch.tensor([False, True]), draw()) - images
    for column in (30, 99):
        expected = 0.2 * math.sqrt(column / 255 / 128)
        assert float(noise[0, :, :, column].std()) == pytest.approx(expected, rel=0.15)
    assert torch.allclose(noise[1, 0], noise[1, 1], rtol=0, atol=1e-6)


def test_a_batch_draws_kinds_together_and_levels_apart() -> None:
    model = RealESRGAN(first=Stage(gaussian_probability=1.0), second=SECOND)
    images = picture(64, 64).repeat(4, 1, 1, 1)
    small = model.batch(images, draw(5))
    assert small.shape == (4, 3, 16, 16)
    assert torch.equal(small, model.batch(images, draw(5)))
    assert all(not torch.equal(small[i], small[j]) for i in range(4) for j in range(i))
    assert torch.equal(model.batch(images[:1], draw(6))[0], model(images[0], draw(6)).image)


def test_without_noise_blur_and_loss_only_resizing_is_left() -> None:
    none = RandomKernel(sinc_probability=0.0, weights=(1.0, 0.0, 0.0, 0.0, 0.0, 0.0), sigma=(0.01, 0.02))
    quiet = Stage(
        kernel=none,
        resize_weights=(0.0, 0.0, 1.0),
        gaussian_probability=1.0,
        gaussian_sigma=(0.0, 0.0),
        quality=(100.0, 100.0),
    )
    model = RealESRGAN(scale=1, first=quiet, second=quiet, sinc=RandomSinc(probability=0.0))
    grey = picture(32, 32).mean(0, keepdim=True).repeat(3, 1, 1)  # 4:2:0 would blur colours
    assert torch.allclose(model(grey, draw()).image, grey, rtol=0, atol=2.5 / 255)


def test_pool_exchanges_every_pair() -> None:
    pool, generator = PairPool(8), draw()
    seen: list[float] = []
    for batch in range(20):
        values = torch.arange(4 * batch, 4 * batch + 4, dtype=torch.float32)
        degraded, clean = pool.exchange(
            values.view(4, 1, 1, 1).expand(4, 3, 1, 1), values.view(4, 1, 1, 1).expand(4, 3, 4, 4), generator
        )
        assert torch.equal(degraded[:, 0, 0, 0], clean[:, 0, 0, 0])  # pairs stay pairs
        seen += degraded[:, 0, 0, 0].tolist()
    assert len(pool) == 8
    assert seen[:8] == list(range(8))
    later = seen[8:]
    assert len(set(later)) == len(later)
    assert later != sorted(later)


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


def test_linear_light_and_back() -> None:
    x = torch.linspace(0, 1, 101, dtype=torch.float64)
    assert torch.allclose(to_srgb(to_linear(x)), x, atol=1e-6)
    assert float(to_linear(torch.tensor(0.5))) == pytest.approx(0.21404, abs=1e-5)


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


def test_second_stage_can_be_left_out() -> None:
    """What it is made of then changes nothing; with probability 1 nothing is drawn for it."""
    other = Stage(blur_probability=1.0, gaussian_sigma=(50.0, 60.0), quality=SECOND.quality)
    images = [RealESRGAN(second=stage, second_probability=0.0)(picture(), draw(1)).image for stage in (SECOND, other)]
    assert torch.equal(*images)
    assert not torch.equal(images[0], RealESRGAN()(picture(), draw(1)).image)
    assert torch.equal(
        RealESRGAN(second_probability=1.0)(picture(), draw(1)).image, RealESRGAN()(picture(), draw(1)).image
    )
