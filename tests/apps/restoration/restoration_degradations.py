"""Degradations and a network for tests: importable by name, as a recipe names them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein_restoration.degradations import Degraded


@dataclass(frozen=True)
class Shrink:
    """Means of squares of pixels."""

    scale: int = 4

    def __call__(self, image: Tensor, generator: torch.Generator) -> Degraded:
        return Degraded(F.avg_pool2d(image[None], self.scale)[0])


@dataclass(frozen=True)
class Darken:
    """A random gain."""

    low: float = 0.2

    def __call__(self, image: Tensor, generator: torch.Generator) -> Degraded:
        gain = self.low + 0.1 * float(torch.rand((), generator=generator))
        return Degraded(image * gain)


class Affine(nn.Module):
    """A network that mixes the three colours: enough to undo a gain."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.mix(x)
