"""Where on the time axis a denoiser is trained."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.process.affine import Process


class TimeSampling(ABC):
    """Draws one training time per sample."""

    @abstractmethod
    def __call__(self, process: Process, count: int, generator: torch.Generator) -> Tensor:
        """Times, shape (count,), float64, on the device of `generator`."""


@dataclass(frozen=True)
class UniformTimes(TimeSampling):
    """t ~ U(t_min, t_max), t_max = T if None; SGMSE+ uses t_min = t_eps = 0.03."""

    t_min: float = 0.0
    t_max: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.t_min <= (math.inf if self.t_max is None else self.t_max):
            raise UserError(f"t_min is {self.t_min:g}, t_max {self.t_max}; give 0 <= t_min <= t_max")

    def __call__(self, process: Process, count: int, generator: torch.Generator) -> Tensor:
        t_max = process.T if self.t_max is None else self.t_max
        if not self.t_min <= t_max:
            raise UserError(f"t_min is {self.t_min:g}, and {type(process).__name__} ends at {t_max:g}; give less")
        u = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)
        return self.t_min + u * (t_max - self.t_min)


@dataclass(frozen=True)
class UniformLevels(TimeSampling):
    """Every level of a tabulated process alike: t uniform over the nodes 1, ..., N (Ho et al. 2020, algorithm 1)."""

    def __call__(self, process: Process, count: int, generator: torch.Generator) -> Tensor:
        levels = getattr(process, "levels", None)
        if levels is None:
            raise ValueError(f"{type(process).__name__} has no table of levels; take UniformTimes")
        return torch.randint(1, levels + 1, (count,), generator=generator, device=generator.device).double()


@dataclass(frozen=True)
class LogNormalTimes(TimeSampling):
    """log(s/a) ~ N(mean, std^2) (P_mean, P_std of Karras et al. 2022, table 1)."""

    mean: float = -1.2
    std: float = 1.2

    def __call__(self, process: Process, count: int, generator: torch.Generator) -> Tensor:
        z = torch.randn(count, generator=generator, device=generator.device, dtype=torch.float64)
        return process.time_at_kappa((-(self.mean + self.std * z)).exp())
