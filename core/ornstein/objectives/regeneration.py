"""How a predictor and the diffusion behind it learn together."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.objectives.denoising import DenoisingObjective, Objective, squared_magnitude
from ornstein.objectives.time_sampling import UniformTimes
from ornstein.regeneration import StochasticRegeneration


@dataclass(frozen=True)
class RegenerationObjective(Objective):
    """weight * 1/2 |D(y) - x0|^2 + (1 - weight) * the denoising loss towards D(y) (StoRM, Lemercier et al. 2023, arXiv
    2212.11851).

    The first term is summed over a sample and averaged over the batch, as is the published second one. Both train the
    predictor: the gradient of the second goes through D(y).
    """

    denoising: DenoisingObjective = DenoisingObjective(
        compare="noise", time_sampling=UniformTimes(t_min=0.03), reduction="half_sum"
    )
    weight: float = 0.5
    """Share of the predictor's own error."""

    def __call__(
        self,
        denoiser: DenoiserLike,
        x0: Tensor,
        y: Tensor | None = None,
        *,
        generator: torch.Generator,
        **condition: Tensor,
    ) -> dict[str, Tensor]:
        if not isinstance(denoiser, StochasticRegeneration):
            raise UserError(
                f"RegenerationObjective trains ornstein.regeneration.StochasticRegeneration, not "
                f"{type(denoiser).__name__}; set model.denoiser.class_path or choose another objective"
            )
        prediction, seen = denoiser.observe(y)
        predictive = squared_magnitude(prediction - x0).flatten(1).sum(1).mean() / 2
        diffusion = self.denoising(denoiser, x0, prediction, generator=generator, **seen, **condition)["loss"]
        loss = self.weight * predictive + (1 - self.weight) * diffusion
        return {"loss": loss, "predictive": predictive, "diffusion": diffusion}
