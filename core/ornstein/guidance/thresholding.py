"""Thresholding of x0 (Saharia et al. 2022, arXiv 2205.11487, section 2.3); the noise follows from the new x0.

For pictures in a known range: in a latent space there is no such range.
"""

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.estimate import Estimate, estimate_from_x0


class StaticThreshold:
    """x0 clipped to [-bound, bound]; of a complex x0 the magnitude."""

    def __init__(self, denoiser: DenoiserLike, bound: float = 1.0) -> None:
        if bound <= 0:
            raise ValueError(f"the bound is {bound}; it must be positive")
        self.denoiser = denoiser
        self.process = denoiser.process
        self.bound = bound

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        estimate = self.denoiser(x, t, y, **condition)
        x0 = clipped(estimate.x0, torch.full((), self.bound, device=estimate.x0.device))
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
        limit = quantile_of_each(x0.abs(), self.quantile).clamp(min=self.bound)
        limit = limit.reshape(-1, *(1,) * (x0.ndim - 1))
        x0 = clipped(x0, limit) / limit * self.bound
        return estimate_from_x0(estimate.process, x, estimate.t, x0, estimate.y)


def clipped(x: Tensor, limit: Tensor) -> Tensor:
    """`x` (B, *) with |x| at most `limit`; the phase of a complex number stays."""
    if x.is_complex():
        size = x.abs()
        return x * (limit.to(size) / size.clamp(min=torch.finfo(size.dtype).tiny)).clamp(max=1)
    return torch.minimum(torch.maximum(x, -limit.to(x)), limit.to(x))


def quantile_of_each(x: Tensor, share: float) -> Tensor:
    """The linearly interpolated quantile of each sample of `x` (B, *), (B,); of any size, unlike torch.quantile."""
    flat = x.flatten(1)
    place = share * (flat.shape[1] - 1)
    below = int(place)
    low = flat.kthvalue(below + 1, dim=1).values
    high = flat.kthvalue(min(below + 2, flat.shape[1]), dim=1).values
    return low.lerp(high, place - below)
