"""Denoising objectives: corrupt, estimate, compare."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.estimate import Estimate
from ornstein.objectives.time_sampling import TimeSampling, UniformTimes
from ornstein.objectives.weighting import Unweighted, Weighting


class Objective(ABC):
    """How a denoiser learns from clean signals x0 (B, *) and observations y."""

    @abstractmethod
    def __call__(
        self,
        denoiser: DenoiserLike,
        x0: Tensor,
        y: Tensor | None = None,
        *,
        generator: torch.Generator,
        **condition: Tensor,
    ) -> dict[str, Tensor]:
        """Scalars to log; `loss` is the one to minimise."""


@dataclass(frozen=True)
class DenoisingObjective(Objective):
    """Error of one field of the Estimate at a random time.

    `compare`: `noise` is score matching, |s score + z|^2 (Richter et al. 2023, equation 11); `x0` data prediction;
    `mean` the `denoiser` loss of SGMSE+; `velocity` flow matching. `error`: |.|^2, or |.| as in the `mae` models of
    Welker et al. 2022. `reduction` per sample: mean, or half of the sum or mean, as published; then the mean over the
    batch.
    """

    compare: Literal["x0", "noise", "mean", "velocity"] = "noise"
    time_sampling: TimeSampling = UniformTimes()
    weighting: Weighting = Unweighted()
    reduction: Literal["mean", "half_mean", "half_sum"] = "mean"
    error: Literal["squared", "absolute"] = "squared"

    def __call__(
        self,
        denoiser: DenoiserLike,
        x0: Tensor,
        y: Tensor | None = None,
        *,
        generator: torch.Generator,
        **condition: Tensor,
    ) -> dict[str, Tensor]:
        estimate, truth = self.corrupt_and_estimate(denoiser, x0, y, generator=generator, **condition)
        return {"loss": self.compare_with(estimate, truth)}

    def corrupt_and_estimate(
        self,
        denoiser: DenoiserLike,
        x0: Tensor,
        y: Tensor | None = None,
        *,
        generator: torch.Generator,
        **condition: Tensor,
    ) -> tuple[Estimate, Estimate]:
        """The denoiser's Estimate of a corrupted `x0`, and the true one."""
        t = self.time_sampling(denoiser.process, len(x0), generator).to(x0.device)
        z = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=generator.device).to(x0.device)
        x = denoiser.process.sample(x0, t, z, y)
        return denoiser(x, t, y, **condition), Estimate(denoiser.process, x, t, x0, z, y)

    def compare_with(self, estimate: Estimate, truth: Estimate) -> Tensor:
        """The weighted error of the compared field, a scalar."""
        difference = (getattr(estimate, self.compare) - getattr(truth, self.compare)).flatten(1)
        error = squared_magnitude(difference) if self.error == "squared" else difference.abs()
        per_sample = error.mean(1) if self.reduction != "half_sum" else error.sum(1)
        if self.reduction != "mean":
            per_sample = per_sample / 2
        weights = self.weighting(truth.process, truth.t)
        return (weights.to(device=per_sample.device, dtype=per_sample.dtype) * per_sample).mean()


def squared_magnitude(x: Tensor) -> Tensor:
    """|x|^2, real also for complex x."""
    return x.real**2 + x.imag**2 if x.is_complex() else x**2
