"""Stochastic interpolants between the data and any base: y is the base sample, time runs towards it."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.process.affine import Coefficients, Process


class Gamma(ABC):
    """gamma(t), the noise between the ends, 0 at both and the same in both directions of time."""

    @abstractmethod
    def value(self, t: Tensor) -> Tensor:
        """gamma."""

    @abstractmethod
    def rate(self, t: Tensor) -> Tensor:
        """gamma'."""

    def squared_rate(self, t: Tensor) -> Tensor:
        """(gamma^2)'; finite also where gamma' is not."""
        return 2 * self.value(t) * self.rate(t)


@dataclass(frozen=True)
class BrownianGamma(Gamma):
    """sqrt(scale t (1 - t))."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"gamma needs scale > 0, got {self.scale}")

    def value(self, t: Tensor) -> Tensor:
        return (self.scale * t * (1 - t)).clamp(min=0).sqrt()

    def rate(self, t: Tensor) -> Tensor:
        return self.squared_rate(t) / (2 * self.value(t))

    def squared_rate(self, t: Tensor) -> Tensor:
        return self.scale * (1 - 2 * t)


@dataclass(frozen=True)
class QuadraticGamma(Gamma):
    """t (1 - t)."""

    def value(self, t: Tensor) -> Tensor:
        return t * (1 - t)

    def rate(self, t: Tensor) -> Tensor:
        return 1 - 2 * t


@dataclass(frozen=True)
class SineSquaredGamma(Gamma):
    """sin(pi t)^2."""

    def value(self, t: Tensor) -> Tensor:
        return torch.sin(math.pi * torch.minimum(t, 1 - t)) ** 2  # exactly 0 at both ends

    def rate(self, t: Tensor) -> Tensor:
        return math.pi * torch.sin(2 * math.pi * t)


@dataclass(frozen=True)
class SigmoidGamma(Gamma):
    """S(f (t - 1/2) + 1) - S(f (t - 1/2) - 1), S the logistic function, less its value at the ends."""

    steepness: float = 10.0
    """f."""

    def __post_init__(self) -> None:
        if self.steepness <= 0:
            raise ValueError(f"gamma needs steepness > 0, got {self.steepness}")

    def value(self, t: Tensor) -> Tensor:
        return self._bump(torch.minimum(t, 1 - t)) - self._bump(torch.zeros_like(t))

    def rate(self, t: Tensor) -> Tensor:
        up, down = torch.sigmoid(self.steepness * (t - 0.5) + 1), torch.sigmoid(self.steepness * (t - 0.5) - 1)
        return self.steepness * (up * (1 - up) - down * (1 - down))

    def _bump(self, t: Tensor) -> Tensor:
        return torch.sigmoid(self.steepness * (t - 0.5) + 1) - torch.sigmoid(self.steepness * (t - 0.5) - 1)


@dataclass(frozen=True)
class ZeroGamma(Gamma):
    """0: no noise, the base sample is all there is."""

    def value(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def rate(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)


class InterpolantPath(ABC):
    """The weights of the two ends."""

    largest_gamma: float = math.inf
    """gamma must stay below this."""

    @abstractmethod
    def weights(self, t: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """a, b at time `t`, where gamma^2 = `variance`."""

    @abstractmethod
    def rates(self, t: Tensor, variance: Tensor, variance_rate: Tensor) -> tuple[Tensor, Tensor]:
        """a', b'."""


@dataclass(frozen=True)
class LinearPath(InterpolantPath):
    """a = 1 - t, b = t."""

    def weights(self, t: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t

    def rates(self, t: Tensor, variance: Tensor, variance_rate: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.ones_like(t), torch.ones_like(t)


@dataclass(frozen=True)
class TrigonometricPath(InterpolantPath):
    """a = sqrt(1 - gamma^2) cos(pi t/2), b = sqrt(1 - gamma^2) sin(pi t/2): a^2 + b^2 + gamma^2 = 1."""

    largest_gamma = 1.0

    def weights(self, t: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        scale = (1 - variance).sqrt()
        return scale * torch.sin((1 - t) * (math.pi / 2)), scale * torch.sin(t * (math.pi / 2))

    def rates(self, t: Tensor, variance: Tensor, variance_rate: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.weights(t, variance)
        shrink = -variance_rate / 2 / (1 - variance)
        return shrink * a - (math.pi / 2) * b, shrink * b + (math.pi / 2) * a


@dataclass(frozen=True)
class EncodingDecodingPath(InterpolantPath):
    """cos(pi t)^2, for the data until t = 1/2 and for the base after it: at 1/2 all is noise."""

    def weights(self, t: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        return self._halves(t, torch.cos(math.pi * torch.minimum(t, 1 - t)) ** 2)

    def rates(self, t: Tensor, variance: Tensor, variance_rate: Tensor) -> tuple[Tensor, Tensor]:
        return self._halves(t, -math.pi * torch.sin(2 * math.pi * t))

    @staticmethod
    def _halves(t: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        zero = torch.zeros_like(t)
        return torch.where(t < 0.5, value, zero), torch.where(t > 0.5, value, zero)


@dataclass(frozen=True)
class StochasticInterpolant(Process):
    """x_t = a x0 + b y + gamma z (Albergo et al. 2023, arXiv 2303.08797, definition 2.1, with their t as 1 - t and
    their x0 and x1 as y and x0).

    Where y is given, x0 alone is unknown. Where it is not (generation from the base), the network estimates y too: see
    `TwoOutput`. The marginals leave the memory free: phi = (1 - t)^memory. Memory 1 with `LinearPath` and
    `BrownianGamma` is a Brownian bridge; gamma/phi must not fall, which takes memory 1/2 for the Brownian, 1 for the
    quadratic, 2 for the squared sine and 3 for the sigmoid gamma of steepness 10.
    """

    observed = True

    path: InterpolantPath = LinearPath()
    gamma: Gamma = BrownianGamma()
    memory: float = 2.0

    def __post_init__(self) -> None:
        t = torch.linspace(0, 1, 200, dtype=torch.float64)[1:-1]
        values = self.gamma.value(t)
        if float(self.gamma.value(torch.tensor(0.5, dtype=torch.float64))) >= self.path.largest_gamma:
            raise ValueError(
                f"{self.path} needs gamma < {self.path.largest_gamma}, which {self.gamma} is not at t = 1/2"
            )
        if not bool(((values / (1 - t) ** self.memory).diff() > -1e-12).all()):
            raise ValueError(f"{self.gamma} needs a larger memory than {self.memory}: gamma/(1 - t)^memory falls")

    def coefficients(self, t: Tensor) -> Coefficients:
        s = self.gamma.value(t)
        a, b = self.path.weights(t, s**2)
        return Coefficients(a=a, b=b, s=s, phi=(1 - t) ** self.memory)

    def derivatives(self, t: Tensor) -> Coefficients:
        s, variance_rate = self.gamma.value(t), self.gamma.squared_rate(t)
        da, db = self.path.rates(t, s**2, variance_rate)
        return Coefficients(a=da, b=db, s=self.gamma.rate(t), phi=-self.memory * (1 - t) ** (self.memory - 1))

    def variance_rate(self, t: Tensor) -> Tensor:
        return self.gamma.squared_rate(t)

    def time_at_kappa(self, kappa: Tensor | float) -> Tensor:
        """As for every process; raises ValueError where a vanishes at T more slowly than gamma (a linear path with a
        squared sine, for example), so that kappa rises again."""
        values = self.kappa(torch.linspace(0, 1, 200, dtype=torch.float64)[1:-1])
        if bool((values.diff() > 1e-9).any()):
            raise ValueError(f"a/s of {self} does not fall all the way to T; take a grid in time, such as UniformGrid")
        return super().time_at_kappa(kappa)
