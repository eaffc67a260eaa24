"""No diffusion: the process of predictive models."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.process.affine import Coefficients, Process


@dataclass(frozen=True)
class Prediction(Process):
    """x_t = (1 - t) x0 + t y, without noise; at T = 1 the state is y itself.

    A predictive model (one-shot, discriminative) is a denoiser on this process with the parameterization `OneShot`,
    trained at t = T and sampled in the one step from T to 0.
    """

    observed = True

    def coefficients(self, t: Tensor) -> Coefficients:
        return Coefficients(a=1 - t, b=t, s=torch.zeros_like(t), phi=torch.ones_like(t))

    def derivatives(self, t: Tensor) -> Coefficients:
        one, zero = torch.ones_like(t), torch.zeros_like(t)
        return Coefficients(a=-one, b=one, s=zero, phi=zero)
