"""Brownian bridge with exponential diffusion coefficient, whose mean reaches the observation."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.process.affine import Coefficients, Process, as_time, combine


@dataclass(frozen=True)
class BBED(Process):
    """dx = (y - x)/(1 - t) dt + sqrt(theta) k^t dw (Lay et al. 2023, "Reducing the Prior Mismatch of Stochastic
    Differential Equations for Diffusion-based Speech Enhancement", arXiv 2302.14748).

    a = phi = 1 - t, b = t, s^2 = theta (1 - t)^2 integral of k^(2u)/(1 - u)^2 from 0 to t, which the paper writes with
    exponential integrals. The drift is singular at 1, so T = 0.999, as published.
    """

    k: float = 2.6
    theta: float = 0.52

    T = 0.999
    observed = True

    def __post_init__(self) -> None:
        if not (self.k > 1 and self.theta > 0):
            raise ValueError(f"BBED needs k > 1 and theta > 0, got k {self.k}, theta {self.theta}")

    def coefficients(self, t: Tensor) -> Coefficients:
        return Coefficients(a=1 - t, b=t, s=self._variance(t).sqrt(), phi=1 - t)

    def derivatives(self, t: Tensor) -> Coefficients:
        one = torch.ones_like(t)
        return Coefficients(a=-one, b=one, s=self.variance_rate(t) / (2 * self._variance(t).sqrt()), phi=-one)

    def variance_rate(self, t: Tensor) -> Tensor:
        return self.theta * torch.exp(self._rate * t) - 2 * self._variance(t) / (1 - t)

    def start(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """y + s z, as published, although the process is at a x0 + b y + s z there (a = 0.001)."""
        return combine(z, (torch.ones(()), self.require(y)), (self.coefficients(as_time(self.T)).s, z))

    def _variance(self, t: Tensor) -> Tensor:
        # sum over n of c^n/n! I_n with I_n = integral of u^n/(1 - u)^2: positive terms, which keep their digits near 0
        n = torch.arange(1, int(3 * self._rate) + 40, dtype=t.dtype, device=t.device)
        powers = t[..., None] ** n / n
        first = -torch.log1p(-t)[..., None] - (powers.cumsum(-1) - powers)  # J_(n-1); J_n = J_(n-1) - t^n/n
        zeroth = t / (1 - t)  # I_0; I_n = I_(n-1) - J_(n-1)
        weights = (n * math.log(self._rate) - torch.lgamma(n + 1)).exp()
        total = zeroth + ((zeroth[..., None] - first.cumsum(-1)) * weights).sum(-1)
        return self.theta * (1 - t) ** 2 * total

    @property
    def _rate(self) -> float:
        """c."""
        return 2 * math.log(self.k)
