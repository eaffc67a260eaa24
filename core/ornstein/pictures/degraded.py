"""What a degradation is: a function of a clean image and a generator."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ornstein.errors import UserError


@dataclass(frozen=True)
class Degraded:
    """A degraded image (C, h, w) in [0, 1], and where a degradation has one, the mask (1, h, w) of what it touched."""

    image: Tensor
    mask: Tensor | None = None


class Degradation(Protocol):
    """Degrades a clean image (C, H, W), float32 in [0, 1]; the result has the size (H, W) // scale, at least 1.

    C is 3, or 1 for infrared. The draws are a pure function of the state of the generator, which is a CPU generator. An
    attribute `scale` says how many times smaller the image becomes; without it, not at all.
    """

    def __call__(self, image: Tensor, generator: torch.Generator) -> Degraded: ...


@runtime_checkable
class BatchDegradation(Protocol):
    """A degradation that also takes batches on any device; what it calls kinds is drawn once for a batch."""

    def __call__(self, image: Tensor, generator: torch.Generator) -> Degraded: ...

    def batch(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Degrade (B, C, H, W) on their device; a batch of one as the call does, on the CPU in the same bits."""


def check_images(images: Tensor, dimensions: int = 3, channels: int = 3) -> Tensor:
    """Return images of shape (`channels`, H, W), or (B, `channels`, H, W) for 4 `dimensions`, unchanged.

    Raises:
        UserError: another shape or type, empty, or values outside [0, 1] or not finite.
    """
    if images.dim() != dimensions or images.shape[-3] != channels or images.numel() == 0:
        wanted = f"({'B, ' if dimensions == 4 else ''}{channels}, H, W)"
        raise UserError(f"an image to degrade has the shape {tuple(images.shape)}; give {wanted}, not empty")
    if images.dtype != torch.float32:
        raise UserError(f"an image to degrade is {images.dtype}; give float32 in [0, 1]")
    low, high = images.aminmax()
    if not (bool(low >= 0) and bool(high <= 1)):  # also false for NaN
        raise UserError(f"an image to degrade spans {float(low):.4g} to {float(high):.4g}; scale it to [0, 1]")
    return images


def uniform(limits: tuple[float, float], generator: torch.Generator) -> float:
    """Draw from U(low, high)."""
    low, high = limits
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def log_uniform(limits: tuple[float, float], generator: torch.Generator) -> float:
    """Draw a number whose logarithm is uniform between those of `limits`."""
    low, high = limits
    return float(low * (high / low) ** uniform((0.0, 1.0), generator))


def integer(limits: tuple[int, int], generator: torch.Generator) -> int:
    """Draw a whole number between `limits`, both included."""
    return int(torch.randint(limits[0], limits[1] + 1, (), generator=generator))


def choose(weights: tuple[float, ...], generator: torch.Generator) -> int:
    """Draw an index with probability proportional to its weight."""
    total = torch.tensor(weights, dtype=torch.float64).cumsum(0)
    return int((uniform((0.0, float(total[-1])), generator) >= total[:-1]).sum())


def to_eight_bits(images: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to the 256 levels that a file holds."""
    return (images.clamp(0, 1) * 255).round() / 255


def to_linear(images: Tensor) -> Tensor:
    """sRGB values in [0, 1] to linear light (IEC 61966-2-1)."""
    return torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055).pow(2.4))


def to_srgb(light: Tensor) -> Tensor:
    """Linear light in [0, 1] to sRGB values, the inverse of `to_linear`."""
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp(min=0.0031308).pow(1 / 2.4) - 0.055)
