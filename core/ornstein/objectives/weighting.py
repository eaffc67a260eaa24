"""Loss weights over time."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.process.affine import Process


class Weighting(ABC):
    """Weight of one sample's loss."""

    @abstractmethod
    def __call__(self, process: Process, t: Tensor) -> Tensor:
        """Weights for times (B,), float64."""


@dataclass(frozen=True)
class Unweighted(Weighting):
    """1."""

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class NoiseVariance(Weighting):
    """s^2."""

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        return process.reference(t).s ** 2


@dataclass(frozen=True)
class InverseNoiseVariance(Weighting):
    """1/s^2: of the error of s z (`ScaledNoise`), as ResShift divides it by kappa^2 eta."""

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        return process.reference(t).s ** -2


@dataclass(frozen=True)
class PosteriorWeighting(Weighting):
    """w^2/(2 v) of an error of x0 at the levels of a table, w and v the weight of x0 and the variance of the posterior
    q(x_(t-1) | x_t, x0, y): what this error adds to the variational bound (Ho et al. 2020, equation 10; the weighted
    loss of ResShift, (alpha/eta)^2/(2 v)).

    The first level, whose v is 0, takes the v of the second.
    """

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        if process.T < 2:
            raise ValueError(f"{type(process).__name__} has one level, whose posterior has no variance; weight nothing")
        t = process.nearest(t)
        variance = process.step_weights(t.clamp(min=2), t.clamp(min=2) - 1).noise ** 2
        return process.step_weights(t, t - 1).x0 ** 2 / (2 * variance)


@dataclass(frozen=True)
class EDMWeighting(Weighting):
    """(s^2 + d^2)/(s d)^2 with d = sigma_data (Karras et al. 2022, table 1), per sample."""

    sigma_data: float = 0.5

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        s = process.reference(t).s
        return (s**2 + self.sigma_data**2) / (s * self.sigma_data) ** 2
