"""Thresholding of x0 (Saharia et al. 2022, arXiv 2205.11487, section 2.3); the noise follows from the new x0.

For pictures in a known range: in a latent space there is no such range.
"""

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.estimate import Estimate, estimate_from_x0


class StaticThreshold:
    """x0 clipped to [-bound, bound]."""

    def __init__(self, denoiser: DenoiserLike, bound: float = 1.0) -> None:
        if bound <= 0:
            raise ValueError(f"the bound is {bound}; it must be positive")
        self.denoiser = denoiser
        self.process = denoiser.process
        self.bound = bound

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        estimate = self.denoiser(x, t, y, **condition)
        x0 = estimate.x0.clamp(-self.bound, self.bound)
        return estimate_from_x0(estimate.process, x, estimate.t, x0, estimate.y)


class DynamicThreshold:
    """x0 clipped to its own `quantile` of |x0| in a sample, at least `bound`, and divided by it: back in [-bound,
    bound]."""

    def __init__(self, denoiser: DenoiserLike, quantile: float = 0.995, bound: float = 1.0) -> None:
        if bound <= 0 or not 0 < quantile <= 1:
            raise ValueError(f"bound {bound} must be positive and quantile {quantile} in (0, 1]")
        self.denoiser = denoiser
        self.process = denoiser.process
        self.quantile, self.bound = quantile, bound

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        estimate = self.denoiser(x, t, y, **condition)
        x0 = estimate.x0
        limit = torch.quantile(x0.flatten(1).abs(), self.quantile, dim=1).clamp(min=self.bound)
        limit = limit.reshape(-1, *(1,) * (x0.ndim - 1))
        x0 = torch.minimum(torch.maximum(x0, -limit), limit) / limit * self.bound
        return estimate_from_x0(estimate.process, x, estimate.t, x0, estimate.y)
