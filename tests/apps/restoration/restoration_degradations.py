"""Degradations for tests: importable by name, as a recipe names them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Result:
    image: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True)
class Shrink:
    """Means of squares of pixels."""

    scale: int = 4

    def __call__(self, image: Tensor, generator: torch.Generator) -> Result:
        return Result(F.avg_pool2d(image[None], self.scale)[0])


@dataclass(frozen=True)
class Darken:
    """A random gain."""

    low: float = 0.2

    def __call__(self, image: Tensor, generator: torch.Generator) -> Result:
        gain = self.low + 0.1 * float(torch.rand((), generator=generator))
        return Result(image * gain)
