"""Rectified flow, also called conditional flow matching with straight paths."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.process.affine import Coefficients, Process


@dataclass(frozen=True)
class RectifiedFlow(Process):
    """a = 1 - t, s = t (Liu et al. 2022); a = 0 at T."""

    def coefficients(self, t: Tensor) -> Coefficients:
        return Coefficients(a=1 - t, b=torch.zeros_like(t), s=t, phi=1 - t)

    def derivatives(self, t: Tensor) -> Coefficients:
        one = torch.ones_like(t)
        return Coefficients(a=-one, b=0 * one, s=one, phi=-one)
