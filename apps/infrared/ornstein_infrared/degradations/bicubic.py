"""Pillow's bicubic filter, with which the public test pairs of M3FD were made, and the way back up."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ornstein.pictures.degraded import Degraded, check_images


@dataclass(frozen=True)
class Bicubic:
    """Shrink with Pillow's bicubic filter (a = -1/2, widened), bit by bit as the published pairs.

    Args:
        scale: factor.
        eight_bit: on whole levels, as the pairs are; false for float32 (Pillow's mode F), not clipped but to [0, 1].
    """

    scale: int = 4
    eight_bit: bool = True

    def __call__(self, image: Tensor, generator: torch.Generator) -> Degraded:
        """Degrade (1, H, W); nothing is drawn."""
        frame = check_images(image, channels=1)[0].numpy()
        if self.eight_bit:
            small = shrink(np.rint(255 * frame).astype(np.uint8), self.scale).astype(np.float32) / 255
        else:
            small = shrink(frame, self.scale).clip(0, 1)
        return Degraded(torch.from_numpy(small)[None])


def shrink(values: npt.NDArray[Any], scale: int) -> npt.NDArray[Any]:
    """Values (H, W) to (H // scale, W // scale): integers with 8 bits as such, everything else in float32.

    Counts with 16 bits become float32 too: what is rounded is the choice of the caller.
    """
    height, width = (max(1, side // scale) for side in values.shape)
    frame = values if values.dtype == np.uint8 else values.astype(np.float32)
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))


def enlarge(frames: Tensor, scale: int) -> Tensor:
    """What the diffusion starts from: (B, C, h, w) by the cubic a = -3/4 without antialiasing, not clipped."""
    return F.interpolate(frames, scale_factor=scale, mode="bicubic", align_corners=False)
