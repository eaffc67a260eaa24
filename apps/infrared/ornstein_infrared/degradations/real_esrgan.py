"""Real-ESRGAN's blind degradation for frames with one channel."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ornstein.pictures.degraded import Degraded, check_images
from ornstein.pictures.real_esrgan import SECOND, Stage
from ornstein.pictures.real_esrgan import RealESRGAN as Colours

_GREY = 1.0
"""The recipe of DifIISR makes 40 % of the noise grey and lets the rest colour the frame, which no camera does."""


@dataclass(frozen=True)
class RealESRGAN:
    """`ornstein.pictures.real_esrgan.RealESRGAN` with the constants of DifIISR, of a frame in three equal channels.

    All noise is grey, so that the channels stay equal; the second stage runs with probability 0.5.

    Args:
        scale: factor of the result.
        first: the first stage.
        second: the second one.
        second_probability: of the second stage.
    """

    scale: int = 4
    first: Stage = replace(Stage(), grey_probability=_GREY)
    second: Stage = replace(SECOND, grey_probability=_GREY)
    second_probability: float = 0.5

    def __call__(self, image: Tensor, generator: torch.Generator) -> Degraded:
        """Degrade (1, H, W); the result has 8 bits."""
        colours = Colours(self.scale, self.first, self.second, self.second_probability)
        frame = check_images(image, channels=1).expand(3, -1, -1)
        return Degraded(colours(frame.contiguous(), generator).image[:1])
