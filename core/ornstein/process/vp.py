"""Variance-preserving processes: a^2 + s^2 = 1, the memory is a."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.process.affine import Coefficients, Process


class VariancePreserving(Process):
    """s and its derivative follow from a."""

    @abstractmethod
    def log_a(self, t: Tensor) -> Tensor:
        """log a at time `t`; s^2 = 1 - a^2 is formed from it without cancellation."""

    @abstractmethod
    def a_rate(self, t: Tensor) -> Tensor:
        """da/dt at time `t`."""

    def coefficients(self, t: Tensor) -> Coefficients:
        log_a = self.log_a(t)
        a = log_a.exp()
        return Coefficients(a=a, b=torch.zeros_like(t), s=torch.expm1(2 * log_a).abs().sqrt(), phi=a)

    def derivatives(self, t: Tensor) -> Coefficients:
        a, b, s, _ = self.coefficients(t)
        da = self.a_rate(t)
        return Coefficients(a=da, b=b, s=-a * da / s, phi=da)

    def variance_rate(self, t: Tensor) -> Tensor:
        return -2 * self.log_a(t).exp() * self.a_rate(t)


@dataclass(frozen=True)
class VP(VariancePreserving):
    """VP diffusion with the linear rate beta(t) = beta_min + t (beta_max - beta_min) (Song et al. 2021, equation 32).

    log a = -t^2 (beta_max - beta_min)/4 - t beta_min/2.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 <= self.beta_min < self.beta_max:
            raise ValueError(f"VP needs 0 <= beta_min < beta_max, got {self.beta_min} and {self.beta_max}")

    def log_a(self, t: Tensor) -> Tensor:
        return -(t**2) * (self.beta_max - self.beta_min) / 4 - t * self.beta_min / 2

    def a_rate(self, t: Tensor) -> Tensor:
        return -(t * (self.beta_max - self.beta_min) + self.beta_min) / 2 * self.log_a(t).exp()


@dataclass(frozen=True)
class CosineVP(VariancePreserving):
    """VP diffusion with a = cos((t+o)/(1+o) pi/2) / cos(o/(1+o) pi/2) (Nichol and Dhariwal 2021, equation 17); a = 0
    at T."""

    offset: float = 0.008
    """o, the paper's s."""

    def log_a(self, t: Tensor) -> Tensor:
        first, here = self._angle(torch.zeros_like(t)), self._angle(t)
        log_a = (torch.cos(here) / torch.cos(first)).clamp(min=0).log()
        # cos - cos as a product: near t = 0 the ratio has no digits left, and a/s would rise and fall
        step = t / (1 + self.offset) * (torch.pi / 2)
        near = torch.log1p(-2 * torch.sin(first + step / 2) * torch.sin(step / 2) / torch.cos(first))
        return torch.where(t >= 1, torch.full_like(t, -torch.inf), torch.where(t < 0.5, near, log_a)).clamp(max=0)

    def a_rate(self, t: Tensor) -> Tensor:
        rate = torch.pi / 2 / (1 + self.offset)
        return -torch.sin(self._angle(t)) * rate / torch.cos(self._angle(torch.zeros_like(t)))

    def _angle(self, t: Tensor) -> Tensor:
        return (t + self.offset) / (1 + self.offset) * (torch.pi / 2)
