"""Variance-exploding diffusion."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.process.affine import Coefficients, Process


@dataclass(frozen=True)
class VE(Process):
    """a = 1, s = sigma_min (sigma_max/sigma_min)^t (Song et al. 2021, equation 31); a little noise, sigma_min, is left
    at t = 0."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"VE needs 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")

    def coefficients(self, t: Tensor) -> Coefficients:
        one = torch.ones_like(t)
        return Coefficients(a=one, b=0 * one, s=self.sigma_min * torch.exp(t * self._log_ratio), phi=one)

    def derivatives(self, t: Tensor) -> Coefficients:
        zero = torch.zeros_like(t)
        return Coefficients(a=zero, b=zero, s=self.coefficients(t).s * self._log_ratio, phi=zero)

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)
