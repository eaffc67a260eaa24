"""What generation degrades to: nothing is left of the picture."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.pictures.degraded import Degraded, check_images


@dataclass(frozen=True)
class Blank:
    """Every value 1/2, which is y = 0 on the range [-1, 1]: the residual of generation is R = -x0 (Resfusion, arXiv
    2311.14900; RDDM, arXiv 2308.13712)."""

    def __call__(self, image: Tensor, generator: torch.Generator) -> Degraded:
        """Degrade (3, H, W); nothing is drawn."""
        return Degraded(torch.full_like(check_images(image), 0.5))
