"""Diffusion posterior sampling (Chung et al., ICLR 2023, arXiv 2209.14687)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.inverse_problems.base import CorrectedDDIM


@dataclass(frozen=True, eq=False, kw_only=True)
class DPS(CorrectedDDIM):
    """A DDIM step, minus scale * grad_x |r - H x0hat|^2 / |r - H x0hat| (algorithm 1, the norm of each sample; `scale`
    is zeta).

    The samples are not calibrated: the weight has no relation to the noise of the measurement.
    """

    def correction(
        self, denoiser: DenoiserLike, x: Tensor, t: Tensor, s: Tensor, y: Tensor | None, condition: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            state = x.detach().requires_grad_()
            x0 = denoiser(state, t, y, **condition).x0
            squared = ((self.measurement - self.operator(x0)).abs() ** 2).flatten(1).sum(1)
            (gradient,) = torch.autograd.grad(squared.sum(), state)
        norm = squared.detach().sqrt().reshape(-1, *(1,) * (x.ndim - 1))
        return x0.detach(), -gradient / norm.clamp(min=torch.finfo(norm.dtype).tiny)
