"""Time grids: the decreasing times t_0 > ... > t_N that a sampler visits, as float64 on the host."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.process.affine import Process


class TimeGrid(ABC):
    """Chooses `steps` + 1 times for a process."""

    @abstractmethod
    def __call__(self, process: Process, steps: int) -> Tensor:
        """Decreasing times, shape (steps + 1,), float64."""


def _at_least_one(steps: int) -> int:
    if steps < 1:
        raise ValueError(f"a grid needs at least one step, got {steps}")
    return steps


@dataclass(frozen=True)
class UniformGrid(TimeGrid):
    """Equal steps in time from `start` (T if None) to `end`, each rounded to the nearest node of a tabulated schedule.

    `to_zero` spends the last step on going from `end` to 0, which is the grid of SGMSE+: linspace(1, t_eps, N), then 0.
    """

    start: float | None = None
    end: float = 0.0
    to_zero: bool = False

    def __call__(self, process: Process, steps: int) -> Tensor:
        start = process.T if self.start is None else self.start
        count = _at_least_one(steps) + (0 if self.to_zero else 1)
        times = process.nearest(torch.linspace(start, self.end, count, dtype=torch.float64))
        return torch.cat([times, times.new_zeros(1)]) if self.to_zero else times


@dataclass(frozen=True)
class PowerGrid(TimeGrid):
    """t = start - (start - end)(i/N)^power: dense at the start, as a bridge wants (kappa ~ sqrt(T - t) there)."""

    power: float = 2.0
    start: float | None = None
    end: float = 0.0

    def __call__(self, process: Process, steps: int) -> Tensor:
        start = process.T if self.start is None else self.start
        ramp = torch.linspace(0, 1, _at_least_one(steps) + 1, dtype=torch.float64) ** self.power
        return process.nearest(start - (start - self.end) * ramp)


@dataclass(frozen=True)
class QuadraticGrid(TimeGrid):
    """sqrt(t) in equal steps from `start` (T if None) to `end`: dense at the clean end (DDIM's quadratic grid)."""

    start: float | None = None
    end: float = 0.0

    def __call__(self, process: Process, steps: int) -> Tensor:
        start = process.T if self.start is None else self.start
        return torch.linspace(start**0.5, self.end**0.5, _at_least_one(steps) + 1, dtype=torch.float64) ** 2


@dataclass(frozen=True)
class ShiftedGrid(TimeGrid):
    """t/T -> k t/(1 + (k - 1) t) of equal steps (Esser et al. 2024, equation 23): k > 1 spends more steps near T."""

    shift: float = 3.0
    """k."""
    start: float | None = None
    end: float = 0.0

    def __call__(self, process: Process, steps: int) -> Tensor:
        start = process.T if self.start is None else self.start
        t = torch.linspace(start, self.end, _at_least_one(steps) + 1, dtype=torch.float64) / process.T
        return process.T * self.shift * t / (1 + (self.shift - 1) * t)


@dataclass(frozen=True)
class DiscreteGrid(TimeGrid):
    """The N times a network was trained at, one in N/steps of them (the spacings of diffusers).

    Index i of the schedule is the time (i + 1) T/N, so that N = T on a tabulated process. `leading`: i = 0, N/steps,
    ... plus `offset`; `trailing`: from N - 1 downwards; `linspace`: from N - 1 to 0 in steps + 1 indices, the last
    of which is left out. The last time is 0, or with `to_zero` false that of index 0.
    """

    spacing: Literal["leading", "trailing", "linspace"] = "trailing"
    offset: int = 0
    to_zero: bool = True
    train_steps: int | None = None
    """N; None takes T."""

    def __post_init__(self) -> None:
        if self.spacing not in ("leading", "trailing", "linspace"):
            raise UserError(f"DiscreteGrid has the spacings leading, trailing and linspace, not {self.spacing!r}")

    def __call__(self, process: Process, steps: int) -> Tensor:
        count = round(process.T) if self.train_steps is None else self.train_steps
        if not 1 <= _at_least_one(steps) <= count:
            raise ValueError(f"{steps} steps are more than the {count} times of the schedule; take at most {count}")
        back = torch.arange(steps - 1, -1, -1, dtype=torch.float64)
        match self.spacing:
            case "leading":
                index = back * (count // steps) + self.offset
            case "trailing":
                index = ((back + 1) * count / steps).round() - 1
            case "linspace":
                index = ((back + 1) * (count - 1) / steps).round()
        times = (index + 1) * process.T / count
        return torch.cat([times, times.new_tensor([0.0 if self.to_zero else process.T / count])])


@dataclass(frozen=True)
class KarrasGrid(TimeGrid):
    """(s/a)^(1/rho) in equal steps from `sigma_max` to `sigma_min`, then 0 (Karras et al. 2022, equation 5).

    A process that ends at a smaller s/a than `sigma_max` begins there, at T.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __call__(self, process: Process, steps: int) -> Tensor:
        ramp = torch.linspace(0, 1, _at_least_one(steps), dtype=torch.float64)
        last = process.kappa(process.T)
        sigma_max = min(self.sigma_max, float(1 / last)) if last > 0 else self.sigma_max
        low, high = self.sigma_min ** (1 / self.rho), sigma_max ** (1 / self.rho)
        times = process.time_at_kappa((high + ramp * (low - high)) ** -self.rho)
        return torch.cat([times, times.new_zeros(1)])


@dataclass(frozen=True)
class LogSNRGrid(TimeGrid):
    """lambda = log(a/s) in equal steps between the times `start` (T if None) and `end`; a must be positive at the
    start.

    `to_zero` spends the last step on going from `end` to 0.
    """

    start: float | None = None
    end: float = 1e-3
    to_zero: bool = False

    def __call__(self, process: Process, steps: int) -> Tensor:
        start = process.T if self.start is None else self.start
        ends = process.kappa(torch.tensor([start, self.end], dtype=torch.float64))
        if not bool((ends > 0).all() & ends.isfinite().all()):
            raise ValueError(
                f"lambda = log(a/s) is not finite at t = {start} or {self.end}; move the grid inside (0, T)"
            )
        count = _at_least_one(steps) + (0 if self.to_zero else 1)
        first, last = ends.log().tolist()
        times = process.time_at_kappa(torch.linspace(first, last, count, dtype=torch.float64).exp())
        times[0] = start
        if count > 1:
            times[-1] = self.end
        return torch.cat([times, times.new_zeros(1)]) if self.to_zero else times


@dataclass(frozen=True)
class UserGrid(TimeGrid):
    """The times given, decreasing."""

    times: tuple[float, ...]

    def __call__(self, process: Process, steps: int) -> Tensor:
        times = torch.tensor(self.times, dtype=torch.float64)
        if len(times) != steps + 1:
            raise ValueError(f"{steps} steps need {steps + 1} decreasing times, got {len(times)}")
        if not bool((times.diff() < 0).all()):
            raise ValueError(f"the times {self.times} do not decrease; give each one below the one before")
        return times


@dataclass(frozen=True)
class TruncatedGrid(TimeGrid):
    """int(linspace(-1, N - 1, steps + 1)) + 1 in float32, N = T levels: the nodes that RDDM's code visits, where
    `UniformGrid` rounds."""

    def __call__(self, process: Process, steps: int) -> Tensor:
        levels = round(process.T)
        if not 1 <= _at_least_one(steps) <= levels:
            raise ValueError(f"{steps} steps are more than the {levels} times of the schedule; take at most {levels}")
        return torch.linspace(-1, levels - 1, steps + 1, dtype=torch.float32).int().flip(0).double() + 1
