"""The Ornstein-Uhlenbeck process of SGMSE+, pulled from the clean signal to the observation."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.process.affine import Coefficients, Process, as_time, combine


@dataclass(frozen=True)
class OUVE(Process):
    """dx = theta (y - x) dt + g dw, g = sigma_min (sigma_max/sigma_min)^t sqrt(2 L), L = log(sigma_max/sigma_min).

    a = phi = e^(-theta t), b = 1 - a, s^2 = sigma_min^2 ((sigma_max/sigma_min)^(2t) - e^(-2 theta t)) L/(theta + L)
    (Richter et al. 2023, equations 5 to 8). The defaults are those of the 16 kHz models.
    """

    theta: float = 1.5
    """Stiffness: how fast the mean moves to y."""
    sigma_min: float = 0.05
    sigma_max: float = 0.5

    observed = True

    def __post_init__(self) -> None:
        if not (self.theta > 0 and 0 < self.sigma_min < self.sigma_max):
            raise ValueError(
                "OUVE needs theta > 0 and 0 < sigma_min < sigma_max, "
                f"got theta {self.theta}, sigma_min {self.sigma_min}, sigma_max {self.sigma_max}"
            )

    def coefficients(self, t: Tensor) -> Coefficients:
        a = torch.exp(-self.theta * t)
        # e^(-2 theta t) (e^(2 (L + theta) t) - 1) keeps its digits near t = 0
        variance = self._scale * a**2 * torch.expm1(2 * (self._log_ratio + self.theta) * t)
        return Coefficients(a=a, b=-torch.expm1(-self.theta * t), s=variance.sqrt(), phi=a)

    def derivatives(self, t: Tensor) -> Coefficients:
        a, _, s, _ = self.coefficients(t)
        return Coefficients(a=-self.theta * a, b=self.theta * a, s=self.variance_rate(t) / (2 * s), phi=-self.theta * a)

    def variance_rate(self, t: Tensor) -> Tensor:
        growth, decay = torch.exp(2 * self._log_ratio * t), torch.exp(-2 * self.theta * t)
        return 2 * self._scale * (self._log_ratio * growth + self.theta * decay)

    def start(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """y + s z, as published, although the process is at a x0 + b y + s z there."""
        return combine(z, (torch.ones(()), self.require(y)), (self.coefficients(as_time(self.T)).s, z))

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    @property
    def _scale(self) -> float:
        return self.sigma_min**2 * self._log_ratio / (self.theta + self._log_ratio)
