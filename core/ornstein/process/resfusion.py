"""Diffusion towards noise plus residual, begun where the clean signal has dropped out (Resfusion)."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ornstein.process.affine import Coefficients, Weight, as_time, combine
from ornstein.process.betas import BetaSchedule, CosineBetas, log_cumulative_alpha
from ornstein.process.tabulated import MonotoneTable, TabulatedProcess


def _check(steps: int) -> None:
    if steps < 2:
        raise ValueError(f"a schedule of Resfusion needs 2 steps or more, got {steps}")


@dataclass(frozen=True)
class LinearPro(BetaSchedule):
    """Betas from 0.1/steps to 20/steps, cut at the step T' where sqrt(A) is nearest to 1/2 (arXiv 2311.14900, appendix
    A.7): 12 steps leave 5, 1000 leave 368."""

    steps: int = 12

    def __post_init__(self) -> None:
        _check(self.steps)

    def __call__(self) -> Tensor:
        return cut_at_one_half(torch.linspace(0.1 / self.steps, 20 / self.steps, self.steps, dtype=torch.float64))


@dataclass(frozen=True)
class CosinePro(BetaSchedule):
    """Cosine betas (offset 0.008, cap 0.999) cut at T' likewise: 50 steps leave 34."""

    steps: int = 25

    def __post_init__(self) -> None:
        _check(self.steps)

    def __call__(self) -> Tensor:
        return cut_at_one_half(CosineBetas(self.steps)())


def cut_at_one_half(betas: Tensor) -> Tensor:
    """The first T' betas (N,), T' = argmin |sqrt(A) - 1/2|; where sqrt(A) jumps below 1/2 by more than 0.01, that step
    is shortened to end at 1/2 exactly.

    Betas above 1, which a linear schedule of fewer than 20 steps has, come after the crossing or at it and are cut.
    Raises ValueError if sqrt(A) stays above 1/2.
    """
    root = torch.cumprod((1 - betas).clamp(min=0), 0).sqrt()
    below = (root <= 0.5).nonzero()
    if len(below) == 0:
        raise ValueError(f"{len(betas)} steps never bring sqrt(A) down to 1/2; take more")
    first = int(below[0])
    if 0.5 - float(root[first]) > 0.01:
        before = float(root[first - 1]) if first else 1.0
        return torch.cat([betas[:first], betas.new_tensor([1 - (0.5 / before) ** 2])])
    return betas[: int((root[: first + 1] - 0.5).abs().argmin()) + 1]


@dataclass(frozen=True)
class Resfusion(TabulatedProcess):
    """a = 2c - 1, b = 1 - c, s = sqrt(1 - c^2), phi = c with c = sqrt(A) of a variance-preserving table (arXiv
    2311.14900, equation 8, where ah is A and xhat0 is y).

    It begins at T', the end of the table, where a = 0 or nearly so, of either sign; a schedule that is not cut runs on
    to a < 0. The interpolant is that of 1 - c.
    """

    observed = True

    schedule: BetaSchedule = LinearPro()
    published_start: bool = True
    """Begin at c y + s z, the process with y in the place of x0 (section 3.2), or else at b y + s z, without x0. They
    agree where c is 1/2 exactly."""

    @property
    def levels(self) -> int:
        return len(self._log_c) - 1

    @property
    def acceleration_step(self) -> int:
        """T' = argmin |sqrt(A) - 1/2|, counted from 1 (equation 8): the last step of a schedule that is cut there."""
        return int((self._log_c[1:].exp() - 0.5).abs().argmin()) + 1

    @property
    def summary(self) -> str:
        """The length of the schedule, and T', in words."""
        steps = getattr(self.schedule, "steps", self.levels)
        return f"{steps} steps, of which {self.levels} are left (T' = {self.acceleration_step})"

    def coefficients(self, t: Tensor) -> Coefficients:
        lost, c = self._table.rise(t), self._table.fall(t)
        return Coefficients(a=1 - 2 * lost, b=lost, s=(lost * (1 + c)).sqrt(), phi=c)

    def derivatives(self, t: Tensor) -> Coefficients:
        rate, c = self._table.rate(t), self._table.fall(t)
        return Coefficients(a=-2 * rate, b=rate, s=c * rate / self.coefficients(t).s, phi=-rate)

    def variance_rate(self, t: Tensor) -> Tensor:
        return 2 * self._table.fall(t) * self._table.rate(t)

    def start(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """c y + s z, or b y + s z (see `published_start`)."""
        _, b, s, c = self.coefficients(as_time(self.T))
        return combine(z, (c if self.published_start else b, self.require(y)), (s, z))

    def resnoise_weight(self, t: Tensor) -> Weight:
        """k of the target z + k (y - x0): (1 - sqrt(alpha)) s/beta with alpha and beta of the step that ends at `t`
        (equation 6); it equals s/(1 + sqrt(alpha))."""
        _, _, s, c = self.coefficients_at(t)
        return s / (1 + c / self.coefficients_at(t - 1).phi)

    @cached_property
    def _log_c(self) -> Tensor:
        return log_cumulative_alpha(self.schedule()) / 2

    @cached_property
    def _table(self) -> MonotoneTable:
        lost, c = -torch.expm1(self._log_c), self._log_c.exp()
        if abs(float(c[-1]) - 0.5) < 1e-15:
            lost[-1] = c[-1] = 0.5  # the schedule was made to end there; a = 0 exactly
        return MonotoneTable(lost, c)
