"""What a denoiser knows about a corrupted signal: everything downstream sees only this."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.process.affine import Process, Weight, combine, expand


@dataclass(frozen=True)
class Estimate:
    """Conditional means of x0 and of the unit noise z given x_t, with what follows from them.

    x = a x0 + b y + s noise holds. `y` is the observation that was used: the one given, or the conditional mean of it
    where the network estimates it (two outputs, RDDM; interpolants from an unseen end). Signals have the shape of `x`,
    (B, *); `t` is float64, () or (B,).
    """

    process: Process
    x: Tensor
    t: Tensor
    x0: Tensor
    noise: Tensor
    y: Tensor | None = None

    @property
    def score(self) -> Tensor:
        """Gradient of log p(x_t | y): -noise/s."""
        s = self.process.coefficients_at(self.t).s
        return -self.noise / (expand(s, self.x) if isinstance(s, Tensor) else s)

    @property
    def velocity(self) -> Tensor:
        """Probability-flow velocity dx/dt = a' x0 + b' y + s' noise."""
        da, db, ds, _ = self.process.derivatives_at(self.t)
        return combine(self.x, (da, self.x0), (db, self.process.require(self.y)), (ds, self.noise))

    @property
    def mean(self) -> Tensor:
        """a x0 + b y: x_t without its noise."""
        return self.process.mean(self.x0, self.t, self.y)


def refuse_zero(divisor: Weight, process: Process, why: str) -> None:
    """Raise ValueError if `divisor` is 0, or undefined because a rate is infinite, at a sampler's time, a number on the
    host.

    The times of a training batch are not looked at, which would make a device wait: there the result is not finite.
    """
    if isinstance(divisor, Tensor) and (divisor.ndim or divisor.device.type != "cpu"):
        return
    if divisor == 0 or divisor != divisor:
        raise ValueError(
            f"{why}, as at this time of {type(process).__name__}; begin below T, or let the network give x0"
        )


def estimate_from_x0(process: Process, x: Tensor, t: Tensor, x0: Tensor, y: Tensor | None = None) -> Estimate:
    """Estimate with noise = (x - a x0 - b y)/s, or 0 where s = 0."""
    scalar, noise_map = process.scalar()
    a, b, s, _ = scalar.coefficients_at(t)
    if isinstance(s, Tensor):
        some = s != 0
        inverse: Weight = torch.where(some, 1 / torch.where(some, s, torch.ones_like(s)), torch.zeros_like(s))
    else:
        inverse = 1 / s if s else 0.0
    noise = combine(x, (inverse, x), (-a * inverse, x0), (-b * inverse, process.require(y)))
    return Estimate(process, x, t, x0, noise if noise_map is None else noise / expand(noise_map, x), y)


def estimate_from_noise(process: Process, x: Tensor, t: Tensor, noise: Tensor, y: Tensor | None = None) -> Estimate:
    """Estimate with x0 = (x - b y - s noise)/a; raises ValueError at a time on the host where a = 0: noise says nothing
    about x0 there."""
    scalar, noise_map = process.scalar()
    a, b, s, _ = scalar.coefficients_at(t)
    refuse_zero(a, process, "the noise and the score say nothing about x0 where a = 0")
    scaled = noise if noise_map is None else expand(noise_map, x) * noise
    x0 = combine(x, (1 / a, x), (-s / a, scaled), (-b / a, process.require(y)))
    return Estimate(process, x, t, x0, noise, y)
