"""Residual denoising diffusion: the residual and the noise have schedules of their own (RDDM)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ornstein.process.affine import Coefficients, as_time, combine
from ornstein.process.betas import BetaSchedule, LinearBetas, log_cumulative_alpha
from ornstein.process.tabulated import MonotoneTable, TabulatedProcess


class Increments(ABC):
    """What each of the N steps adds to a sum that ends at 1."""

    @abstractmethod
    def __call__(self, steps: int) -> Tensor:
        """Shape (steps,), float64, not negative."""


@dataclass(frozen=True)
class LinearIncrements(Increments):
    """2 (i + 1)/(N (N + 1)), or reversed: P(x, 1) and P(1 - x, 1) of the restoration code."""

    decreasing: bool = False

    def __call__(self, steps: int) -> Tensor:
        rising = torch.arange(1, steps + 1, dtype=torch.float64) * (2 / (steps * (steps + 1)))
        return rising.flip(0) if self.decreasing else rising


@dataclass(frozen=True)
class PowerIncrements(Increments):
    """(i/(N - 1))^power divided by its sum, or reversed: the family of the generation code, whose first (or last) step
    adds nothing. Power 0 makes all steps equal (`average`)."""

    power: float = 1.0
    decreasing: bool = False

    def __post_init__(self) -> None:
        if self.power < 0:
            raise ValueError(f"power increments need power >= 0, got {self.power}")

    def __call__(self, steps: int) -> Tensor:
        rising = torch.linspace(0, 1, steps, dtype=torch.float64) ** self.power if steps > 1 else torch.ones(1).double()
        rising = rising / rising.sum()
        return rising.flip(0) if self.decreasing else rising


@dataclass(frozen=True)
class NormalIncrements(Increments):
    """exp(-x^2/2) for x from -3 to 3, divided by its sum (`normal`)."""

    def __call__(self, steps: int) -> Tensor:
        bell = torch.exp(-(torch.linspace(-3, 3, steps, dtype=torch.float64) ** 2) / 2)
        return bell / bell.sum()


@dataclass(frozen=True)
class ConvertedIncrements(Increments):
    """Those of a DDPM schedule A: the residual as 1 - sqrt(A), the noise variance as 1 - A (section 4.3 of the paper).
    Both end short of 1. The deterministic sampler with y = 0 is then DDIM."""

    part: Literal["residual", "noise"] = "residual"
    schedule: BetaSchedule = LinearBetas()

    def __call__(self, steps: int) -> Tensor:
        log_a = log_cumulative_alpha(self.schedule()) / (2 if self.part == "residual" else 1)
        if len(log_a) != steps + 1:
            raise ValueError(f"a schedule of {len(log_a) - 1} betas cannot be converted to {steps} steps")
        return -torch.expm1(log_a).diff()


@dataclass(frozen=True)
class RDDM(TabulatedProcess):
    """a = 1 - abar, b = abar, s = bbar, phi = 1 (Liu et al. 2024, arXiv 2308.13712, equation 7); abar sums the
    increments of `residual`, bbar^2 those of `noise` times `sum_scale`.

    The defaults are those of the restoration code (sum_scale is 0.01 for shadows). There 1 - abar is replaced by 1e-6
    at T; here it is 0, and a network that gives the noise alone is refused at T, where the noise says nothing about x0.
    """

    observed = True

    steps: int = 1000
    residual: Increments = LinearIncrements(decreasing=True)
    noise: Increments = LinearIncrements()
    sum_scale: float = 1.0

    def __post_init__(self) -> None:
        if not (self.steps >= 1 and self.sum_scale > 0):
            raise ValueError(f"RDDM needs steps >= 1 and sum_scale > 0, got {self.steps} and {self.sum_scale}")

    @property
    def levels(self) -> int:
        return self.steps

    def coefficients(self, t: Tensor) -> Coefficients:
        shift, noise = self._tables
        return Coefficients(a=shift.fall(t), b=shift.rise(t), s=noise.rise(t), phi=torch.ones_like(t))

    def derivatives(self, t: Tensor) -> Coefficients:
        shift, noise = self._tables
        rate = shift.rate(t)
        return Coefficients(a=-rate, b=rate, s=noise.rate(t), phi=torch.zeros_like(t))

    def start(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """y + s z, as published; the process is there exactly where abar ends at 1."""
        return combine(z, (torch.ones(()), self.require(y)), (self.coefficients(as_time(self.T)).s, z))

    @cached_property
    def _tables(self) -> tuple[MonotoneTable, MonotoneTable]:
        """abar and bbar."""
        step, variance = self.residual(self.steps), self.noise(self.steps) * self.sum_scale
        done, total = step.cumsum(0), step.sum()
        rest = 1 - total if 1 - total > 1e-9 else torch.zeros_like(total)
        if rest == 0:
            done[-1] = 1
        # what is left is summed from the end, which keeps its digits near T
        left = torch.cat([step.flip(0).cumsum(0).flip(0)[1:], step.new_zeros(1)]) + rest
        zero, one = step.new_zeros(1), step.new_ones(1)
        shift = MonotoneTable(torch.cat([zero, done]), torch.cat([one, left]))
        return shift, MonotoneTable(torch.cat([zero, variance.cumsum(0).sqrt()]))
