"""The two-stage degradation of Real-ESRGAN (arXiv 2107.10833) with the constants that UPSR trains with.

Each stage blurs, resizes, adds noise and compresses; a last low-pass and the resize to 1/scale come before or after the
last compression. In a batch the kinds of resizing and of noise are drawn once, kernels, noise levels and qualities for
each image, as published. The published option `second_order_prob` is read by nothing in UPSR: the second stage always
runs there, and so it does here unless `second_probability` says otherwise.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ornstein.pictures.degraded import Degraded, check_images, choose, integer, to_eight_bits, uniform
from ornstein.pictures.filters import filter2d, unsharp_mask
from ornstein.pictures.jpeg import jpeg
from ornstein.pictures.kernels import RandomKernel, RandomSinc
from ornstein.pictures.noise import add_gaussian_noise, add_poisson_noise

_MODES = ("area", "bilinear", "bicubic")


@dataclass(frozen=True)
class Stage:
    """One stage: its kernel, and the ranges that the rest is drawn from.

    Args:
        kernel: of the blur.
        blur_probability: of blurring at all.
        resize_weights: of enlarging, shrinking, keeping the size.
        enlarge: range of the factor above 1.
        shrink: range of the factor below 1.
        gaussian_probability: of Gaussian noise; shot noise otherwise.
        gaussian_sigma: standard deviation in levels of 255.
        poisson_scale: factor of the shot noise.
        grey_probability: of noise without colour.
        quality: of the JPEG compression.
    """

    kernel: RandomKernel = RandomKernel()
    blur_probability: float = 1.0
    resize_weights: tuple[float, float, float] = (0.2, 0.7, 0.1)
    enlarge: tuple[float, float] = (1.0, 1.5)
    shrink: tuple[float, float] = (0.15, 1.0)
    gaussian_probability: float = 0.5
    gaussian_sigma: tuple[float, float] = (1.0, 30.0)
    poisson_scale: tuple[float, float] = (0.05, 3.0)
    grey_probability: float = 0.4
    quality: tuple[float, float] = (30.0, 95.0)


SECOND = Stage(
    kernel=RandomKernel(sizes=(3, 13), padded_size=15, sigma=(0.2, 1.5)),
    blur_probability=0.8,
    resize_weights=(0.3, 0.4, 0.3),
    enlarge=(1.0, 1.2),
    shrink=(0.3, 1.0),
    gaussian_sigma=(1.0, 25.0),
    poisson_scale=(0.05, 2.5),
)


@dataclass(frozen=True)
class RealESRGAN:
    """Blind super-resolution: the input at 1/scale, blurred, noisy and compressed twice.

    Args:
        scale: factor of the result.
        first: the first stage.
        second: the second one, whose factors are relative to size / scale.
        second_probability: of the blur, resize and noise of the second stage; 0.5 in the recipe of DifIISR.
        sinc: last low-pass.
        sharpen: degrade the unsharp-masked image (`use_sharp`; off where UPSR trains).
    """

    scale: int = 4
    first: Stage = Stage()
    second: Stage = SECOND
    second_probability: float = 1.0
    sinc: RandomSinc = RandomSinc()
    sharpen: bool = False

    def __call__(self, image: Tensor, generator: torch.Generator) -> Degraded:
        """Degrade (3, H, W)."""
        return Degraded(self.batch(check_images(image).unsqueeze(0), generator)[0])

    def batch(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Degrade (B, 3, H, W) on their own device to (B, 3, H // scale, W // scale), 8-bit levels in [0, 1].

        Args:
            images: float32 in [0, 1].
            generator: on the CPU. Off the CPU it draws the seed of a generator on the device, which draws the noise.
        """
        height, width = check_images(images, 4).shape[-2:]
        noise = generator
        if images.device.type != "cpu":
            seed = int(torch.randint(2**62, (), generator=generator))
            noise = torch.Generator(images.device).manual_seed(seed)
        target = (max(1, height // self.scale), max(1, width // self.scale))
        x = unsharp_mask(images) if self.sharpen else images
        x = self._stage(x, self.first, (height, width), generator, noise)
        x = self._compressed(x, self.first, generator)
        # nothing is drawn for 1, so that the draws of UPSR stay what they are
        if self.second_probability >= 1 or uniform((0.0, 1.0), generator) < self.second_probability:
            x = self._stage(x, self.second, (height / self.scale, width / self.scale), generator, noise)
        mode = _MODES[integer((0, 2), generator)]
        low_pass = torch.stack([self.sinc(generator) for _ in images])
        if uniform((0.0, 1.0), generator) < 0.5:
            x = filter2d(_resized(x, target, mode), low_pass)
            x = self._compressed(x, self.second, generator)
        else:
            x = self._compressed(x, self.second, generator)
            x = filter2d(_resized(x, target, mode), low_pass)
        return to_eight_bits(x)

    @staticmethod
    def _stage(
        x: Tensor, stage: Stage, size: tuple[float, float], generator: torch.Generator, noise: torch.Generator
    ) -> Tensor:
        kernels = torch.stack([stage.kernel(generator) for _ in x])
        if uniform((0.0, 1.0), generator) < stage.blur_probability:
            x = filter2d(x, kernels)
        factors = (stage.enlarge, stage.shrink, (1.0, 1.0))[choose(stage.resize_weights, generator)]
        factor, mode = uniform(factors, generator), _MODES[integer((0, 2), generator)]
        x = _resized(x, (max(1, int(size[0] * factor)), max(1, int(size[1] * factor))), mode)
        grey = torch.rand(len(x), generator=generator) < stage.grey_probability
        if uniform((0.0, 1.0), generator) < stage.gaussian_probability:
            return add_gaussian_noise(x, _each(stage.gaussian_sigma, x, generator), grey.to(x.device), noise)
        # the cubic overshoots, and a negative number of events has no distribution
        return add_poisson_noise(x.clamp(0, 1), _each(stage.poisson_scale, x, generator), grey.to(x.device), noise)

    @staticmethod
    def _compressed(x: Tensor, stage: Stage, generator: torch.Generator) -> Tensor:
        return jpeg(x.clamp(0, 1), _each(stage.quality, x, generator))


def _each(limits: tuple[float, float], images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw (B,) numbers between `limits`, one for each image."""
    low, high = limits
    return (low + (high - low) * torch.rand(len(images), generator=generator)).to(images.device)


def _resized(images: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resize without antialiasing, as published."""
    return F.interpolate(images, size=size, mode=mode, align_corners=None if mode == "area" else False)
