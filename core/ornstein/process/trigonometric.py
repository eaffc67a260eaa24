"""The trigonometric interpolation between signal and noise."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.process.affine import Coefficients, Process


@dataclass(frozen=True)
class Trigonometric(Process):
    """a = phi = cos(pi t/2), s = sin(pi t/2): variance preserving, a = 0 at T (Albergo and Vanden-Eijnden 2023; the
    TrigFlow of Lu and Song 2024 with t in place of 2t/pi)."""

    def coefficients(self, t: Tensor) -> Coefficients:
        a = torch.sin((1 - t) * (math.pi / 2))  # the cosine, exactly 0 at T
        return Coefficients(a=a, b=torch.zeros_like(t), s=torch.sin(t * (math.pi / 2)), phi=a)

    def derivatives(self, t: Tensor) -> Coefficients:
        a, b, s, _ = self.coefficients(t)
        da = -s * (math.pi / 2)
        return Coefficients(a=da, b=b, s=a * (math.pi / 2), phi=da)
