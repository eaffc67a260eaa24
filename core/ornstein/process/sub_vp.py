"""The sub-variance-preserving diffusion."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.process.affine import Coefficients
from ornstein.process.vp import VP


@dataclass(frozen=True)
class SubVP(VP):
    """a = phi as `VP`, s = 1 - a^2, never above that of VP (Song et al. 2021, equation 33)."""

    def coefficients(self, t: Tensor) -> Coefficients:
        log_a = self.log_a(t)
        a = log_a.exp()
        return Coefficients(a=a, b=torch.zeros_like(t), s=-torch.expm1(2 * log_a), phi=a)

    def derivatives(self, t: Tensor) -> Coefficients:
        a, da = self.log_a(t).exp(), self.a_rate(t)
        return Coefficients(a=da, b=torch.zeros_like(t), s=-2 * a * da, phi=da)

    def variance_rate(self, t: Tensor) -> Tensor:
        a = self.log_a(t).exp()
        return -4 * a * self.a_rate(t) * self.coefficients(t).s
