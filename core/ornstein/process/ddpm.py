"""The variance-preserving chain of DDPM, given by a table of betas."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ornstein.process.affine import Coefficients
from ornstein.process.betas import BetaSchedule, LinearBetas, log_cumulative_alpha
from ornstein.process.tabulated import MonotoneTable, TabulatedProcess


@dataclass(frozen=True)
class DDPM(TabulatedProcess):
    """a = phi = sqrt(A), s = sqrt(1 - A) with A the cumulative alpha of the table (Ho et al. 2020, equation 4); t = i +
    1 for index i. The interpolant is that of 1 - a."""

    schedule: BetaSchedule = LinearBetas()

    @property
    def levels(self) -> int:
        return len(self._log_a) - 1

    def coefficients(self, t: Tensor) -> Coefficients:
        a = self._table.fall(t)
        # 1 - a^2 from 1 - a, which keeps its digits near t = 0
        return Coefficients(a=a, b=torch.zeros_like(t), s=(self._table.rise(t) * (1 + a)).sqrt(), phi=a)

    def derivatives(self, t: Tensor) -> Coefficients:
        a, b, s, _ = self.coefficients(t)
        da = -self._table.rate(t)
        return Coefficients(a=da, b=b, s=-a * da / s, phi=da)

    def variance_rate(self, t: Tensor) -> Tensor:
        return 2 * self._table.fall(t) * self._table.rate(t)

    @cached_property
    def _log_a(self) -> Tensor:
        return log_cumulative_alpha(self.schedule()) / 2

    @cached_property
    def _table(self) -> MonotoneTable:
        return MonotoneTable(-torch.expm1(self._log_a), self._log_a.exp())
