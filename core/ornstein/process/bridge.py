"""Schroedinger bridge between the clean signal and the observation."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.process.affine import Coefficients, Process


@dataclass(frozen=True)
class SchroedingerBridge(Process):
    """Variance-exploding bridge with g = sqrt(c) k^t that ends exactly at y (Jukic et al. 2024, table 1).

    With v = c (k^(2t) - 1)/(2 log k), V = v(T), r = V - v: a = r/V, b = v/V, s = sqrt(v r/V), phi = r. It starts at
    x_T = y. `eps` regularises as the published code does (r + eps everywhere); 0 is the exact bridge.
    """

    k: float = 2.6
    c: float = 0.4
    eps: float = 0.0

    observed = True

    def __post_init__(self) -> None:
        if not (self.k > 1 and self.c > 0 and self.eps >= 0):
            raise ValueError(f"a bridge needs k > 1, c > 0 and eps >= 0, got k {self.k}, c {self.c}, eps {self.eps}")

    def coefficients(self, t: Tensor) -> Coefficients:
        v, r, total = self.variances(t)
        weight = total + self.eps
        s = (v * r).sqrt() / (math.sqrt(total) + self.eps)
        return Coefficients(a=r / weight, b=v / weight / (1 + self.eps), s=s, phi=r)

    def derivatives(self, t: Tensor) -> Coefficients:
        dv, weight = self._rate(t), self.variances(t)[2] + self.eps
        ds = self.variance_rate(t) / (2 * self.coefficients(t).s)
        return Coefficients(a=-dv / weight, b=dv / weight / (1 + self.eps), s=ds, phi=-dv)

    def variance_rate(self, t: Tensor) -> Tensor:
        v, r, total = self.variances(t)
        return self._rate(t) * (r - v) / (math.sqrt(total) + self.eps) ** 2

    def _rate(self, t: Tensor) -> Tensor:
        """dv/dt = g^2."""
        return self.c * torch.exp(2 * math.log(self.k) * t)

    def variances(self, t: Tensor) -> tuple[Tensor, Tensor, float]:
        """v, r + eps and V; r = c k^(2t) (k^(2(1-t)) - 1)/(2 log k) keeps its digits near T."""
        rate = 2 * math.log(self.k)
        v = self.c * torch.expm1(rate * t) / rate
        r = self.c * torch.exp(rate * t) * torch.expm1(rate * (1 - t)) / rate + self.eps
        return v, r, self.c * math.expm1(rate) / rate
