"""Tables of beta_i, the variance that step i of a discrete variance-preserving chain adds."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


class BetaSchedule(ABC):
    """beta_0 ... beta_(N-1), each in (0, 1]; the cumulative alpha at index i is the product of 1 - beta_j, j <= i."""

    @abstractmethod
    def __call__(self) -> Tensor:
        """The table, shape (N,), float64."""


def _check_ramp(steps: int, first: float, last: float) -> None:
    if not (steps >= 1 and 0 < first <= last < 1):
        raise ValueError(f"betas need steps >= 1 and 0 < first <= last < 1, got {steps}, {first} and {last}")


@dataclass(frozen=True)
class LinearBetas(BetaSchedule):
    """Equal steps from `first` to `last` (Ho et al. 2020: 1e-4 to 0.02 in 1000 steps)."""

    steps: int = 1000
    first: float = 1e-4
    last: float = 0.02

    def __post_init__(self) -> None:
        _check_ramp(self.steps, self.first, self.last)

    def __call__(self) -> Tensor:
        return torch.linspace(self.first, self.last, self.steps, dtype=torch.float64)


@dataclass(frozen=True)
class ScaledLinearBetas(BetaSchedule):
    """Equal steps of sqrt(beta) (Rombach et al. 2022: 8.5e-4 to 0.012 in 1000 steps)."""

    steps: int = 1000
    first: float = 8.5e-4
    last: float = 0.012

    def __post_init__(self) -> None:
        _check_ramp(self.steps, self.first, self.last)

    def __call__(self) -> Tensor:
        return torch.linspace(self.first**0.5, self.last**0.5, self.steps, dtype=torch.float64) ** 2


@dataclass(frozen=True)
class CosineBetas(BetaSchedule):
    """beta_i = min(1 - f(i + 1)/f(i), cap), f(i) = cos((i/N + o)/(1 + o) pi/2)^2 (Nichol and Dhariwal 2021, equation
    17)."""

    steps: int = 1000
    offset: float = 0.008
    """o, the paper's s."""
    cap: float = 0.999

    def __post_init__(self) -> None:
        if not (self.steps >= 1 and self.offset >= 0 and 0 < self.cap <= 1):
            raise ValueError(
                "cosine betas need steps >= 1, offset >= 0 and 0 < cap <= 1, "
                f"got {self.steps}, {self.offset} and {self.cap}"
            )

    def __call__(self) -> Tensor:
        u = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
        f = torch.cos((u + self.offset) / (1 + self.offset) * (math.pi / 2)) ** 2
        return (1 - f[1:] / f[:-1]).clamp(max=self.cap)


@dataclass(frozen=True)
class ListedBetas(BetaSchedule):
    """The betas given, for example those of a checkpoint."""

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.betas or not all(0 < beta <= 1 for beta in self.betas) or 1 in self.betas[:-1]:
            raise ValueError("listed betas needs at least one number, each in (0, 1), the last one in (0, 1]")

    def __call__(self) -> Tensor:
        return torch.tensor(self.betas, dtype=torch.float64)


@dataclass(frozen=True)
class ZeroTerminalSNR(BetaSchedule):
    """Another schedule with sqrt(cumulative alpha) shifted and scaled so that it ends at 0 exactly (Lin et al. 2024,
    algorithm 1)."""

    schedule: BetaSchedule = ScaledLinearBetas()

    def __call__(self) -> Tensor:
        a = log_cumulative_alpha(self.schedule())[1:].div(2).exp()
        if len(a) < 2:
            raise ValueError("a schedule that is to end at signal 0 needs two steps or more")
        a = (a - a[-1]) * (a[0] / (a[0] - a[-1]))
        return 1 - (a / torch.cat([a.new_ones(1), a[:-1]])) ** 2


def log_cumulative_alpha(betas: Tensor) -> Tensor:
    """log of the cumulative alphas at the nodes 0, 1, ..., N: (N + 1,), 0 first; -inf where a beta is 1."""
    return torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])
