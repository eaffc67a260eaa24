"""One Euler-Maruyama step of dx = (velocity - e^2 score/2) dt + e dw, backward in time."""

from typing import NamedTuple

import torch
from torch import Tensor

from ornstein.estimate import Estimate
from ornstein.process.affine import Process, Weight, combine


class ReverseWeights(NamedTuple):
    """x - (velocity - e^2 score/2) dt in terms of x0, y and the unit noise z, and the standard deviation e sqrt(dt)."""

    x0: Weight
    y: Weight
    z: Weight
    noise: Weight


def reverse_weights(process: Process, times: Tensor, steps: list[Tensor], noise_scale: float) -> list[ReverseWeights]:
    """The weights, on `Process.scalar`, of the steps of length `steps` from every time of a grid but the last, with
    e = noise_scale g."""

    def weights(t: Tensor, dt: Tensor) -> tuple[Tensor, ...]:
        da, db, ds, _ = process.derivatives(t)
        # not 0 g^2, which is no number where g is infinite
        e2 = process.diffusion_squared(t) * noise_scale**2 if noise_scale > 0 else torch.zeros_like(da)
        return -dt * da, -dt * db, -dt * (ds + e2 / process.coefficients(t).s / 2), (e2 * dt).sqrt()

    process = process.scalar()[0]
    if process.coefficients(times[0]).s.ndim == 0:
        lengths = torch.stack(steps)

        def floats() -> list[ReverseWeights]:
            every = weights(times[:-1], lengths)
            return [ReverseWeights(*w) for w in zip(*(w.tolist() for w in every), strict=True)]

        return process.remember(("reverse", noise_scale, *times.tolist(), *lengths.tolist()), floats)
    return [ReverseWeights(*weights(t, dt)) for t, dt in zip(times, steps, strict=False)]


def reverse_mean(estimate: Estimate, dt: Tensor, g: Tensor) -> Tensor:
    """x - (velocity - g^2 score/2) dt for a step of length `dt` > 0 backward in time."""
    return combine(estimate.x, (torch.ones(()), estimate.x), (-dt, estimate.velocity), (dt * g**2 / 2, estimate.score))
