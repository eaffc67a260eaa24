"""What the output F of a network means: conversions from F to an Estimate, and back to the training target."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from ornstein.estimate import Estimate, estimate_from_noise, estimate_from_x0, refuse_zero
from ornstein.process.affine import Process, Weight, combine


class Parameterization(ABC):
    """One meaning of the network output. `t` is float64, () or (B,); signals are (B, *)."""

    def inputs(
        self, process: Process, x: Tensor, t: Tensor, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The signal, the time and the observation as the network is given them."""
        return x, process.network_time(t), y

    @abstractmethod
    def estimate(self, process: Process, output: Tensor, x: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        """The Estimate that the network output stands for."""

    @abstractmethod
    def target(self, truth: Estimate) -> Tensor:
        """The output a perfect network would give for a known x0 and noise."""


@dataclass(frozen=True)
class X0(Parameterization):
    """F = x0 (data prediction)."""

    def estimate(self, process: Process, output: Tensor, x: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        return estimate_from_x0(process, x, t, output, y)

    def target(self, truth: Estimate) -> Tensor:
        return truth.x0


@dataclass(frozen=True)
class OneShot(X0):
    """F = x0 from the state alone: the network is not shown y (predictive models, whose state is y)."""

    def inputs(
        self, process: Process, x: Tensor, t: Tensor, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        return x, process.network_time(t), None


@dataclass(frozen=True)
class Noise(Parameterization):
    """F = z, the unit noise (epsilon prediction)."""

    def estimate(self, process: Process, output: Tensor, x: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        return estimate_from_noise(process, x, t, output, y)

    def target(self, truth: Estimate) -> Tensor:
        return truth.noise


@dataclass(frozen=True)
class ScaledNoise(Parameterization):
    """F = s z, the noise as it is in x (`epsilon_scale` of ResShift): x0 = (x - b y - F)/a."""

    def estimate(self, process: Process, output: Tensor, x: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        a, b, s, _ = process.coefficients(t)
        refuse_zero(a, process, "the noise says nothing about x0 where a = 0")
        refuse_zero(s, process, "there is no noise where s = 0")
        x0 = combine(x, (1 / a, x), (-b / a, process.require(y)), (-1 / a, output))
        return Estimate(process, x, t, x0, combine(x, (1 / s, output)), y)

    def target(self, truth: Estimate) -> Tensor:
        return combine(truth.x, (truth.process.coefficients(truth.t).s, truth.noise))


@dataclass(frozen=True)
class Score(Parameterization):
    """F = scale * score; the published NCSN++ and NCSN++ 48k networks give minus the score (scale -1)."""

    scale: float = 1.0

    def estimate(self, process: Process, output: Tensor, x: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        s = process.coefficients_at(t).s
        return estimate_from_noise(process, x, t, combine(x, (-s / self.scale, output)), y)

    def target(self, truth: Estimate) -> Tensor:
        return self.scale * truth.score


@dataclass(frozen=True)
class V(Parameterization):
    """F = v = a z - s x0 (Salimans and Ho 2022); with u = x - b y and n = a^2 + s^2: x0 = (a u - s v)/n, z = (s u + a
    v)/n."""

    def estimate(self, process: Process, output: Tensor, x: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        a, b, s, _ = process.coefficients_at(t)
        n = a**2 + s**2
        refuse_zero(n, process, "v is neither x0 nor noise where a = s = 0")
        x0 = combine(x, (a / n, x), (-a * b / n, process.require(y)), (-s / n, output))
        noise = combine(x, (s / n, x), (-s * b / n, process.require(y)), (a / n, output))
        return Estimate(process, x, t, x0, noise, y)

    def target(self, truth: Estimate) -> Tensor:
        a, _, s, _ = truth.process.coefficients(truth.t)
        return combine(truth.x, (a, truth.noise), (-s, truth.x0))


@dataclass(frozen=True)
class Velocity(Parameterization):
    """F = dx/dt = a' x0 + b' y + s' z (flow matching); needs finite s', and a s' - a' s > 0, which every process has
    inside (0, T)."""

    def estimate(self, process: Process, output: Tensor, x: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        a, b, s, _ = process.coefficients_at(t)
        da, db, ds, _ = process.derivatives_at(t)
        n = a * ds - da * s
        refuse_zero(n, process, "the velocity does not tell x0 from the noise where a s' = a' s")
        y = process.require(y)
        x0 = combine(x, (ds / n, x), (-s / n, output), ((s * db - ds * b) / n, y))
        noise = combine(x, (-da / n, x), (a / n, output), ((da * b - a * db) / n, y))
        return Estimate(process, x, t, x0, noise, y)

    def target(self, truth: Estimate) -> Tensor:
        return truth.velocity


@dataclass(frozen=True)
class Mean(Parameterization):
    """F = a x0 + b y, the mean of the process (the `denoiser` objective of SGMSE+); undefined where a = 0."""

    def estimate(self, process: Process, output: Tensor, x: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        a, b, _, _ = process.coefficients_at(t)
        refuse_zero(a, process, "the mean says nothing about x0 where a = 0")
        return estimate_from_x0(process, x, t, combine(x, (1 / a, output), (-b / a, process.require(y))), y)

    def target(self, truth: Estimate) -> Tensor:
        return truth.mean


@dataclass(frozen=True)
class Residual(Parameterization):
    """F = y - x0, what the observation has that the clean signal has not (RDDM)."""

    def estimate(self, process: Process, output: Tensor, x: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        if y is None:
            raise ValueError("the residual parameterization needs the observation y")
        return estimate_from_x0(process, x, t, y - output, y)

    def target(self, truth: Estimate) -> Tensor:
        if truth.y is None:
            raise ValueError("the residual parameterization needs the observation y")
        return truth.y - truth.x0


class _ResidualNoise(Protocol):
    """What the resnoise target needs of a process."""

    def resnoise_weight(self, t: Tensor) -> Weight: ...


@dataclass(frozen=True)
class ResNoise(Parameterization):
    """F = z + k (y - x0), noise and residual in one (Resfusion, arXiv 2311.14900, equation 6).

    k is the process's `resnoise_weight`; x0 = (x - (b - s k) y - s F)/(a + s k), regular where a = 0.
    """

    def estimate(self, process: Process, output: Tensor, x: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        k = self._weight(process, t)
        a, b, s, _ = process.coefficients_at(t)
        n = a + s * k
        x0 = combine(x, (1 / n, x), (-(b - s * k) / n, process.require(y)), (-s / n, output))
        return Estimate(process, x, t, x0, combine(x, (1.0, output), (-k, y), (k, x0)), y)

    def target(self, truth: Estimate) -> Tensor:
        k = self._weight(truth.process, truth.t)
        return combine(truth.x, (1.0, truth.noise), (k, truth.y), (-k, truth.x0))

    @staticmethod
    def _weight(process: Process, t: Tensor) -> Weight:
        if not hasattr(process, "resnoise_weight"):
            raise ValueError(f"ResNoise works on Resfusion, not on {type(process).__name__}; use Residual or Noise")
        return cast(_ResidualNoise, process).resnoise_weight(t)


@dataclass(frozen=True)
class TwoOutput(Parameterization):
    """F = (y - x0, z), the residual and the noise as the two halves of the channels (`pred_res_noise` of RDDM).

    x0 = (x - b F_1 - s F_2)/(a + b), and the observation of the Estimate is x0 + F_1, what the network believes it to
    be; the y given serves the network only, and may be missing (interpolants from an unseen base).
    """

    def estimate(self, process: Process, output: Tensor, x: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        if output.shape[1] != 2 * x.shape[1]:
            raise ValueError(f"two outputs for {x.shape[1]} channels need {2 * x.shape[1]}, got {output.shape[1]}")
        residual, noise = output.chunk(2, dim=1)
        a, b, s, _ = process.coefficients_at(t)
        n = a + b
        refuse_zero(n, process, "residual and noise say nothing about x0 where a + b = 0")
        x0 = combine(x, (1 / n, x), (-b / n, residual), (-s / n, noise))
        return Estimate(process, x, t, x0, noise, x0 + residual)

    def target(self, truth: Estimate) -> Tensor:
        if truth.y is None:
            raise ValueError("the residual needs the observation y")
        return torch.cat([truth.y - truth.x0, truth.noise], dim=1)


@dataclass(frozen=True)
class EDMPreconditioning(Parameterization):
    """x0 = c_skip u + c_out F with u = x - b y (Karras et al. 2022, table 1, for any a and s).

    With n = a^2 d^2 + s^2 and d = sigma_data: c_skip = a d^2/n, c_out = s d/sqrt(n), c_in = 1/sqrt(n),
    network time log(s/a)/4. The network sees c_in x.
    """

    sigma_data: float = 0.5

    def inputs(
        self, process: Process, x: Tensor, t: Tensor, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        a, _, s, _ = process.coefficients_at(t)
        n = a**2 * self.sigma_data**2 + s**2
        refuse_zero(n, process, "EDM preconditioning divides by a^2 sigma_data^2 + s^2, which is 0 where a = s = 0")
        c_in = 1 / n**0.5
        return combine(x, (c_in, x)), process.lambda_at(t) / -4, y

    def estimate(self, process: Process, output: Tensor, x: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        skip, out, b = self._weights(process, t)
        return estimate_from_x0(process, x, t, combine(x, (skip, x), (-skip * b, process.require(y)), (out, output)), y)

    def target(self, truth: Estimate) -> Tensor:
        skip, out, b = self._weights(truth.process, truth.t)
        y = truth.process.require(truth.y)
        return combine(truth.x, (1 / out, truth.x0), (-skip / out, truth.x), (skip * b / out, y))

    def _weights(self, process: Process, t: Tensor) -> tuple[Weight, Weight, Weight]:
        a, b, s, _ = process.coefficients_at(t)
        n = a**2 * self.sigma_data**2 + s**2
        return a * self.sigma_data**2 / n, s * self.sigma_data / n**0.5, b
