"""Bicubic downscaling, the classical degradation of super-resolution."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ornstein.pictures.degraded import Degraded, check_images, to_eight_bits


@dataclass(frozen=True)
class Bicubic:
    """Downscale with the antialiased cubic (a = -1/2) of Pillow, cut and renormalised at the border.

    MATLAB's imresize has the same kernel and mirrors at the border. Sides that are not multiples of `scale` lose their
    remainder by a slight stretch; cut them to multiples first where pixels have to match.

    Args:
        scale: factor.
        eight_bit: round to the levels of a file.
    """

    scale: int = 4
    eight_bit: bool = True

    def __call__(self, image: Tensor, generator: torch.Generator) -> Degraded:
        """Degrade (3, H, W); nothing is drawn."""
        height, width = check_images(image).shape[-2:]
        small = resize(image.unsqueeze(0), (max(1, height // self.scale), max(1, width // self.scale)))[0]
        return Degraded(to_eight_bits(small) if self.eight_bit else small.clamp(0, 1))


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Antialiased bicubic resize of (B, C, H, W) to `size`, not clamped."""
    return F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False)
