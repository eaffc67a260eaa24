"""Parts of Real-ESRGAN against published values and closed forms, and the whole of it."""

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
from ornstein.pictures.real_esrgan import SECOND, RealESRGAN, Stage


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


def test_linear_light_and_back() -> None:
    x = torch.linspace(0, 1, 101, dtype=torch.float64)
    assert torch.allclose(to_srgb(to_linear(x)), x, atol=1e-6)
    assert float(to_linear(torch.tensor(0.5))) == pytest.approx(0.21404, abs=1e-5)


def test_second_stage_can_be_left_out() -> None:
    """What it is made of then changes nothing; with probability 1 nothing is drawn for it."""
    other = Stage(blur_probability=1.0, gaussian_sigma=(50.0, 60.0), quality=SECOND.quality)
    images = [RealESRGAN(second=stage, second_probability=0.0)(picture(), draw(1)).image for stage in (SECOND, other)]
    assert torch.equal(*images)
    assert not torch.equal(images[0], RealESRGAN()(picture(), draw(1)).image)
    assert torch.equal(
        RealESRGAN(second_probability=1.0)(picture(), draw(1)).image, RealESRGAN()(picture(), draw(1)).image
    )
