"""Time grids: the decreasing times t_0 > ... > t_N that a sampler visits, as float64 on the host.

A grid ends at 0, or above it at `end`. On a table no network was trained between 0 and the first level: an end there,
as t_eps = 0.03 is on 1000 levels, means the first level, and so does None.
"""

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


def _end(process: Process, end: float | None) -> float:
    return process.first_level if end is None or 0 < end < process.first_level else end


def _curve(process: Process, steps: int, end: float | None) -> tuple[Tensor, float, Tensor]:
    """`steps` equal steps from 1 to 0, where they end, and what follows: nothing, or on a table 0, which is then
    reached from its first level instead of from between the two."""
    last = _end(process, end)
    to_zero = last == 0 < process.first_level and _at_least_one(steps) > 1
    ramp = torch.linspace(1, 0, _at_least_one(steps) + (0 if to_zero else 1), dtype=torch.float64)
    return ramp, process.first_level if to_zero else last, ramp.new_zeros(1 if to_zero else 0)


def _at_least_one(steps: int) -> int:
    if not isinstance(steps, int) or steps < 1:
        raise UserError(f"a grid needs at least one step, and a whole number of them, got {steps}")
    return steps


def _require_positive(grid: TimeGrid, **values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{name} of {type(grid).__name__} has to be positive, got {value}")


def _require_table(grid: TimeGrid, process: Process, instead: str) -> None:
    if process.first_level == 0:
        raise UserError(
            f"{type(grid).__name__} takes the times of a table of noise levels, and {type(process).__name__} has no "
            f"table; {instead}"
        )


@dataclass(frozen=True)
class UniformGrid(TimeGrid):
    """Equal steps in time from `start` (T if None) to `end`, each rounded to the nearest node of a tabulated schedule.

    `to_zero` spends the last step on going from `end` to 0, which is the grid of SGMSE+: linspace(1, t_eps, N), then 0.
    """

    start: float | None = None
    end: float | None = 0.0
    to_zero: bool = False

    def __call__(self, process: Process, steps: int) -> Tensor:
        start = process.T if self.start is None else self.start
        count = _at_least_one(steps) + (0 if self.to_zero else 1)
        times = process.nearest(torch.linspace(start, _end(process, self.end), count, dtype=torch.float64))
        return torch.cat([times, times.new_zeros(1)]) if self.to_zero else times


@dataclass(frozen=True)
class PowerGrid(TimeGrid):
    """t = start - (start - end)(i/N)^power: dense at the start, as a bridge wants (kappa ~ sqrt(T - t) there)."""

    power: float = 2.0
    start: float | None = None
    end: float | None = 0.0

    def __post_init__(self) -> None:
        _require_positive(self, power=self.power)

    def __call__(self, process: Process, steps: int) -> Tensor:
        start = process.T if self.start is None else self.start
        ramp = torch.linspace(0, 1, _at_least_one(steps) + 1, dtype=torch.float64) ** self.power
        return process.nearest(start - (start - _end(process, self.end)) * ramp)


@dataclass(frozen=True)
class QuadraticGrid(TimeGrid):
    """sqrt(t) in equal steps from `start` (T if None) to `end`: dense at the clean end (DDIM's quadratic grid)."""

    start: float | None = None
    end: float | None = 0.0

    def __call__(self, process: Process, steps: int) -> Tensor:
        start = process.T if self.start is None else self.start
        ramp, end, rest = _curve(process, steps, self.end)
        if min(start, end) < 0:
            raise UserError(f"QuadraticGrid goes through roots of times; {min(start, end)} is negative")
        return torch.cat([(end**0.5 + (start**0.5 - end**0.5) * ramp) ** 2, rest])


@dataclass(frozen=True)
class ShiftedGrid(TimeGrid):
    """t/T -> k t/(1 + (k - 1) t) of equal steps (Esser et al. 2024, equation 23): k > 1 spends more steps near T."""

    shift: float = 3.0
    """k."""
    start: float | None = None
    end: float | None = 0.0

    def __post_init__(self) -> None:
        _require_positive(self, shift=self.shift)

    def __call__(self, process: Process, steps: int) -> Tensor:
        start = process.T if self.start is None else self.start
        ramp, end, rest = _curve(process, steps, self.end)
        if end == process.first_level:  # the shift of this is the first level
            end = process.T * end / (self.shift * process.T + (1 - self.shift) * end)
        t = (end + (start - end) * ramp) / process.T
        return torch.cat([process.T * self.shift * t / (1 + (self.shift - 1) * t), rest])


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
        if self.train_steps is None:
            _require_table(self, process, "give it train_steps, or take UniformGrid")
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

    A process that ends at a smaller s/a than `sigma_max` begins there, at T; one whose first level has a larger s/a
    than `sigma_min` is not asked below it. Where some noise is left at t = 0 (VE), that may be the last step's end.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        _require_positive(self, sigma_min=self.sigma_min, sigma_max=self.sigma_max, rho=self.rho)

    def __call__(self, process: Process, steps: int) -> Tensor:
        last = process.kappa(process.T)
        sigma_max = min(self.sigma_max, float(1 / last)) if last > 0 else self.sigma_max
        first = float(1 / process.kappa(process.first_level))  # 0 where no noise is left
        clipped = self.sigma_min <= first
        at_zero = clipped and process.first_level == 0
        ramp = torch.linspace(0, 1, _at_least_one(steps) + at_zero, dtype=torch.float64)
        low, high = max(self.sigma_min, first) ** (1 / self.rho), sigma_max ** (1 / self.rho)
        times = process.time_at_kappa((high + ramp * (low - high)) ** -self.rho)
        if clipped and len(times) > 1:
            times[-1] = process.first_level
        return times if at_zero else torch.cat([times, times.new_zeros(1)])


@dataclass(frozen=True)
class LogSNRGrid(TimeGrid):
    """lambda = log(a/s) in equal steps between the times `start` (T if None) and `end` (1e-3 if None, on a table the
    first level); a must be positive at the start.

    `to_zero` spends the last step on going from `end` to 0.
    """

    start: float | None = None
    end: float | None = None
    to_zero: bool = False

    def __call__(self, process: Process, steps: int) -> Tensor:
        start = process.T if self.start is None else self.start
        end = _end(process, 1e-3 if self.end is None else self.end)
        ends = process.kappa(torch.tensor([start, end], dtype=torch.float64))
        if not bool((ends > 0).all() & ends.isfinite().all()):
            raise ValueError(f"lambda = log(a/s) is not finite at t = {start} or {end}; move the grid inside (0, T)")
        count = _at_least_one(steps) + (0 if self.to_zero else 1)
        first, last = ends.log().tolist()
        times = process.time_at_kappa(torch.linspace(first, last, count, dtype=torch.float64).exp())
        times[0] = start
        if count > 1:
            times[-1] = end
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
        _require_table(self, process, "take UniformGrid")
        levels = round(process.T)
        if not 1 <= _at_least_one(steps) <= levels:
            raise ValueError(f"{steps} steps are more than the {levels} times of the schedule; take at most {levels}")
        return torch.linspace(-1, levels - 1, steps + 1, dtype=torch.float32).int().flip(0).double() + 1
