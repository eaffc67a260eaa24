"""Losses on what the network itself puts out."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from ornstein.denoiser import Denoiser, DenoiserLike
from ornstein.errors import UserError
from ornstein.estimate import Estimate
from ornstein.objectives.denoising import Objective, squared_magnitude
from ornstein.objectives.time_sampling import TimeSampling, UniformLevels
from ornstein.objectives.weighting import Unweighted, Weighting


@dataclass(frozen=True)
class OutputObjective(Objective):
    """Error of the network's output against what a perfect one would give: the parameterization says what that is.

    Every output has its own mean over a sample, and they are summed: RDDM (Liu et al. 2024, arXiv 2308.13712, equation
    11) with `absolute` for restoration and `squared` for generation, one output or two; Resfusion (arXiv 2311.14900)
    with `squared`, or `smooth` for what its code calls L1. The times are the levels of the table, all of them alike:
    the T' that are left of Resfusion's.
    """

    error: Literal["squared", "absolute", "smooth"] = "squared"
    """`smooth` is d^2/2 below |d| = 1 and |d| - 1/2 above."""
    time_sampling: TimeSampling = UniformLevels()
    weighting: Weighting = Unweighted()

    def __call__(
        self,
        denoiser: DenoiserLike,
        x0: Tensor,
        y: Tensor | None = None,
        *,
        generator: torch.Generator,
        **condition: Tensor,
    ) -> dict[str, Tensor]:
        denoiser, y, seen = with_outputs(denoiser).prepare(y)
        truth = corrupted(denoiser, x0, y, self.time_sampling, generator)
        output = denoiser.output(truth.x, truth.t, y, **seen, **condition)
        return {"loss": self.compare(output, denoiser.parameterization.target(truth), truth)}

    def compare(self, output: Tensor, target: Tensor, truth: Estimate) -> Tensor:
        """The weighted error of the output, a scalar."""
        match self.error:
            case "squared":
                error = squared_magnitude(output - target)
            case "absolute":
                error = (output - target).abs()
            case "smooth":
                error = smooth_l1_loss(output, target, reduction="none")
        outputs = output.numel() / truth.x0.numel()
        per_sample = outputs * error.flatten(1).mean(1)
        weights = self.weighting(truth.process, truth.t)
        return (weights.to(device=per_sample.device, dtype=per_sample.dtype) * per_sample).mean()


def corrupted(
    denoiser: DenoiserLike, x0: Tensor, y: Tensor | None, time_sampling: TimeSampling, generator: torch.Generator
) -> Estimate:
    """The truth at a random time."""
    t = time_sampling(denoiser.process, len(x0), generator).to(x0.device)
    z = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=generator.device).to(x0.device)
    return Estimate(denoiser.process, denoiser.process.sample(x0, t, z, y), t, x0, z, y)


def with_outputs(denoiser: DenoiserLike) -> Denoiser:
    """`denoiser`, which must be one whose network's output can be seen; raises UserError otherwise."""
    if not isinstance(denoiser, Denoiser):
        raise UserError(
            f"this objective trains ornstein.denoiser.Denoiser and its kinds, not {type(denoiser).__name__}; "
            "give it the denoiser that is wrapped"
        )
    return denoiser
