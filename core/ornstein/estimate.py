"""What a denoiser knows about a corrupted signal: everything downstream sees only this."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.process.affine import Process, combine, expand


@dataclass(frozen=True)
class Estimate:
    """Conditional means of x0 and of the unit noise z given x_t, with what follows from them.

    x = a x0 + b y + s noise holds. Signals have the shape of `x`, (B, *); `t` is float64, () or (B,).
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
        return -self.noise / expand(self.process.coefficients(self.t).s, self.x)

    @property
    def velocity(self) -> Tensor:
        """Probability-flow velocity dx/dt = a' x0 + b' y + s' noise."""
        da, db, ds, _ = self.process.derivatives(self.t)
        return combine(self.x, (da, self.x0), (db, self.process.require(self.y)), (ds, self.noise))

    @property
    def mean(self) -> Tensor:
        """a x0 + b y: x_t without its noise."""
        return self.process.mean(self.x0, self.t, self.y)


def estimate_from_x0(process: Process, x: Tensor, t: Tensor, x0: Tensor, y: Tensor | None = None) -> Estimate:
    """Estimate with noise = (x - a x0 - b y)/s, or 0 where s = 0."""
    a, b, s, _ = process.coefficients(t)
    some = s != 0
    inverse = torch.where(some, 1 / torch.where(some, s, torch.ones_like(s)), torch.zeros_like(s))
    noise = combine(x, (inverse, x), (-a * inverse, x0), (-b * inverse, process.require(y)))
    return Estimate(process, x, t, x0, noise, y)


def estimate_from_noise(process: Process, x: Tensor, t: Tensor, noise: Tensor, y: Tensor | None = None) -> Estimate:
    """Estimate with x0 = (x - b y - s noise)/a; not finite where a = 0, where noise says nothing about x0."""
    a, b, s, _ = process.coefficients(t)
    x0 = combine(x, (1 / a, x), (-s / a, noise), (-b / a, process.require(y)))
    return Estimate(process, x, t, x0, noise, y)
