"""Denoising with further losses on the clean estimate: guidance that is learned, and costs nothing at sampling."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.objectives.denoising import DenoisingObjective, Objective
from ornstein.objectives.distillation import Term
from ornstein.objectives.outputs import with_outputs
from ornstein.objectives.time_sampling import UniformLevels


@dataclass(frozen=True)
class GuidedObjective(Objective):
    """The denoising loss + the sum of weight * distance(x0hat, x0), x0 the clean signal.

    DifIISR (arXiv 2503.01187) names a loss of spectra and one of features. Its code has both with the weight 0.001,
    between latents, in the distillation alone: `OneStepDistillation(terms=...)` takes the same terms.
    """

    terms: Sequence[Term] = ()
    denoising: DenoisingObjective = DenoisingObjective(compare="x0", time_sampling=UniformLevels())

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
        found, truth = self.denoising.corrupt_and_estimate(denoiser, x0, y, generator=generator, **seen, **condition)
        loss = self.denoising.compare_with(found, truth)
        losses = {"denoising": loss}
        for index, term in enumerate(self.terms):
            losses[f"term_{index}"] = term.between(denoiser, found.x0, truth.x0)
            loss = loss + term.weight * losses[f"term_{index}"]
        return {"loss": loss, **{name: value.detach() for name, value in losses.items()}}
