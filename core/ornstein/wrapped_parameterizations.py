"""Parameterizations around another one: what the network is shown, and the range of what is read from it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from ornstein.estimate import Estimate, estimate_from_x0
from ornstein.parameterization import X0, Parameterization
from ornstein.process.affine import Process, combine


class InputScaling(ABC):
    """c_in of a time: the network sees c_in x."""

    @abstractmethod
    def __call__(self, process: Process, t: Tensor) -> Tensor:
        """c_in, float64, of the shape of `t`; by the process's `reference` where s is a map."""


@dataclass(frozen=True)
class VarianceScaling(InputScaling):
    """1/sqrt(data + noise s^2): unit variance. ResShift and DifIISR in a latent space: 1 and 1; UPSR on pixels: 0.25
    and 0.3, which stands for the mean of W^2."""

    data: float = 1.0
    """Variance that the mean of the process is taken to have."""
    noise: float = 1.0
    """Factor of s^2."""

    def __post_init__(self) -> None:
        if not (self.data > 0 and self.noise >= 0):
            raise ValueError(f"variance scaling needs data > 0 and noise >= 0, got {self.data} and {self.noise}")

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        return (self.data + self.noise * process.reference(t).s ** 2).rsqrt()


@dataclass(frozen=True)
class RangeScaling(InputScaling):
    """1/(1 + 3 s): nearly all values within [-1, 1] (ResShift on pixels)."""

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        return 1 / (1 + 3 * process.reference(t).s)


@dataclass(frozen=True)
class Wrapped(Parameterization):
    """Another parameterization, of which a subclass changes one thing."""

    parameterization: Parameterization = X0()

    def inputs(
        self, process: Process, x: Tensor, t: Tensor, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.parameterization.inputs(process, x, t, y)

    def estimate(self, process: Process, output: Tensor, x: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        return self.parameterization.estimate(process, output, x, t, y)

    def target(self, truth: Estimate) -> Tensor:
        return self.parameterization.target(truth)


@dataclass(frozen=True)
class ScaledInput(Wrapped):
    """The network sees c_in x (ResShift: Yue et al. 2023; UPSR: Zhang et al. 2025)."""

    scaling: InputScaling = VarianceScaling()

    def inputs(
        self, process: Process, x: Tensor, t: Tensor, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        shown, time, seen = super().inputs(process, x, t, y)
        return combine(shown, (self.scaling(process, t), shown)), time, seen


@dataclass(frozen=True)
class HiddenObservation(Wrapped):
    """The network is not shown y: generation with y = 0 (RDDM), or a network that was made for a process without
    observation (a DDPM run as RDDM)."""

    def inputs(
        self, process: Process, x: Tensor, t: Tensor, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        shown, time, _ = super().inputs(process, x, t, y)
        return shown, time, None


@dataclass(frozen=True)
class ClippedX0(Wrapped):
    """x0 is clipped to [-bound, bound] and the noise follows from it (Resfusion's modes `sample` and `residual`)."""

    bound: float = 1.0

    def __post_init__(self) -> None:
        if self.bound <= 0:
            raise ValueError(f"the bound is {self.bound}; it must be positive")

    def estimate(self, process: Process, output: Tensor, x: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        found = super().estimate(process, output, x, t, y)
        return estimate_from_x0(process, x, t, found.x0.clamp(-self.bound, self.bound), found.y)
