"""Diffusion posterior sampling (Chung et al., ICLR 2023, arXiv 2209.14687)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.inverse_problems.base import PosteriorSampler
from ornstein.noise import Noise
from ornstein.samplers.base import drawn


@dataclass(frozen=True, eq=False, kw_only=True)
class DPS(PosteriorSampler):
    """A DDIM step, minus scale * grad_x |r - H x0hat|^2 / |r - H x0hat| (algorithm 1, the norm of each sample).

    One call and one gradient through the network a step. The samples are not calibrated: the weight has no relation to
    the noise of the measurement.
    """

    scale: float = 1.0
    """zeta."""
    eta: float = 0.0

    def trajectory(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        **condition: Tensor,
    ) -> Iterator[Tensor]:
        process = denoiser.process
        for t, s in self.pairs(process):
            with torch.enable_grad():
                state = x.detach().requires_grad_()
                x0 = denoiser(state, t, y, **condition).x0
                squared = ((self.measurement - self.operator(x0)).abs() ** 2).flatten(1).sum(1)
                (gradient,) = torch.autograd.grad(squared.sum(), state)
            norm = squared.detach().sqrt().reshape(-1, *(1,) * (x.ndim - 1))
            gradient = gradient / norm.clamp(min=torch.finfo(norm.dtype).tiny)
            last = bool(process.step_weights(t, s, self.eta).noise == 0)
            x = process.step(x, t, s, x0.detach(), y, None if last else drawn(noise, x), self.eta)
            x = x - self.scale * gradient
            yield x
