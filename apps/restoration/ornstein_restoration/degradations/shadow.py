"""A cast shadow: less light of another colour inside a soft polygon."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.pictures.degraded import (
    Degraded,
    check_images,
    integer,
    to_eight_bits,
    to_linear,
    to_srgb,
    uniform,
)
from ornstein.pictures.filters import gaussian_blur


@dataclass(frozen=True)
class Shadow:
    """Multiply linear light inside a random polygon by an attenuation and a colour cast; the mask is the polygon.

    Args:
        attenuation: range of the share of the light that is left.
        cast: range of the factor that red and green have against blue, which the sky still lights.
        corners: number of corners.
        radius: range of the distance of a corner from the centre, in parts of the shorter side.
        softness: range of the width of the penumbra, in parts of the shorter side.
    """

    attenuation: tuple[float, float] = (0.25, 0.6)
    cast: tuple[float, float] = (0.85, 1.0)
    corners: tuple[int, int] = (3, 9)
    radius: tuple[float, float] = (0.15, 0.6)
    softness: tuple[float, float] = (0.0, 0.03)

    scale = 1

    def __call__(self, image: Tensor, generator: torch.Generator) -> Degraded:
        """Degrade (3, H, W) to 8 bits, with the mask (1, H, W) of 0 and 1."""
        height, width = check_images(image).shape[-2:]
        short = min(height, width)
        mask = polygon(self._corners(height, width, generator), height, width).to(image)
        soft = gaussian_blur(mask.view(1, 1, height, width), uniform(self.softness, generator) * short)[0]
        left = uniform(self.attenuation, generator)
        red = uniform(self.cast, generator)
        factors = left * torch.tensor([red, uniform((red, 1.0), generator), 1.0]).view(3, 1, 1)
        light = to_linear(image) * (1 - soft * (1 - factors))
        return Degraded(to_eight_bits(to_srgb(light.clamp(0, 1))), mask.view(1, height, width))

    def _corners(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Corners (n, 2) as x, y in pixels, in order around a centre inside the image."""
        short = min(height, width)
        centre = torch.tensor([uniform((0.2, 0.8), generator) * width, uniform((0.2, 0.8), generator) * height])
        count = integer(self.corners, generator)
        # one corner in each sector, so that the polygon winds around its centre once
        turns = (torch.arange(count) + 0.8 * torch.rand(count, generator=generator)) / count * 2 * math.pi
        low, high = self.radius
        radii = (low + (high - low) * torch.rand(count, generator=generator)) * short
        return centre + radii.view(-1, 1) * torch.stack([turns.cos(), turns.sin()], 1)


def polygon(corners: Tensor, height: int, width: int) -> Tensor:
    """Which pixel centres (H, W) lie inside a closed polygon (n, 2) of x, y, by the even-odd rule."""
    x, y = torch.arange(width) + 0.5, (torch.arange(height) + 0.5).view(-1, 1)
    inside = torch.zeros(height, width, dtype=torch.bool)
    for (x0, y0), (x1, y1) in zip(corners.tolist(), corners.roll(-1, 0).tolist(), strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside
