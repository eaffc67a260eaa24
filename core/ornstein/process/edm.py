"""The process of EDM: time is the noise level."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.process.affine import Coefficients, Process


@dataclass(frozen=True)
class EDM(Process):
    """a = 1, s = t in [0, sigma_max] (Karras et al. 2022, table 1)."""

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if self.sigma_max <= 0:
            raise ValueError(f"EDM needs sigma_max > 0, got {self.sigma_max}")

    @property
    def T(self) -> float:  # type: ignore[override]  # here the last time is a parameter
        return self.sigma_max

    def coefficients(self, t: Tensor) -> Coefficients:
        one = torch.ones_like(t)
        return Coefficients(a=one, b=0 * one, s=t, phi=one)

    def derivatives(self, t: Tensor) -> Coefficients:
        zero = torch.zeros_like(t)
        return Coefficients(a=zero, b=zero, s=torch.ones_like(t), phi=zero)
