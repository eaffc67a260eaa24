"""The variance-preserving sibling of the Ornstein-Uhlenbeck process of SGMSE+."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.process.affine import Coefficients, Process, as_time, combine


@dataclass(frozen=True)
class OUVP(Process):
    """dx = stiffness/2 beta(t) (y - x) dt + sqrt(beta(t)) dw, beta(t) = beta_min + t (beta_max - beta_min).

    With B = integral of beta from 0 to t: a = phi = e^(-stiffness B/2), b = 1 - a, s^2 = (1 - a^2)/stiffness (`ouvp` in
    the code of StoRM, which takes this s^2 for s; here s is that of the equation).
    """

    beta_min: float = 0.01
    beta_max: float = 1.0
    stiffness: float = 1.0

    observed = True

    def __post_init__(self) -> None:
        if not (0 < self.beta_min <= self.beta_max and self.stiffness > 0):
            raise ValueError(
                "OUVP needs 0 < beta_min <= beta_max and stiffness > 0, "
                f"got beta_min {self.beta_min}, beta_max {self.beta_max}, stiffness {self.stiffness}"
            )

    def coefficients(self, t: Tensor) -> Coefficients:
        exponent = self.stiffness * (self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2)
        a = torch.exp(-exponent / 2)
        s = (-torch.expm1(-exponent) / self.stiffness).sqrt()
        return Coefficients(a=a, b=-torch.expm1(-exponent / 2), s=s, phi=a)

    def derivatives(self, t: Tensor) -> Coefficients:
        a, _, s, _ = self.coefficients(t)
        da = -self.stiffness / 2 * self._beta(t) * a
        return Coefficients(a=da, b=-da, s=self.variance_rate(t) / (2 * s), phi=da)

    def variance_rate(self, t: Tensor) -> Tensor:
        return self._beta(t) * self.coefficients(t).a ** 2

    def start(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """y + s z, as published, although the process is at a x0 + b y + s z there."""
        return combine(z, (torch.ones(()), self.require(y)), (self.coefficients(as_time(self.T)).s, z))

    def _beta(self, t: Tensor) -> Tensor:
        return self.beta_min + t * (self.beta_max - self.beta_min)
