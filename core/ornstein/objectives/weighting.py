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
class EDMWeighting(Weighting):
    """(s^2 + d^2)/(s d)^2 with d = sigma_data (Karras et al. 2022, table 1), per sample."""

    sigma_data: float = 0.5

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        s = process.reference(t).s
        return (s**2 + self.sigma_data**2) / (s * self.sigma_data) ** 2
