"""Learning without diffusion: the error of one call."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ornstein.denoiser import Denoiser, DenoiserLike
from ornstein.objectives.denoising import Objective, squared_magnitude
from ornstein.process.prediction import Prediction


@dataclass(frozen=True)
class RegressionObjective(Objective):
    """Mean error of the one call at T from y: |.|, or |.|^2."""

    error: Literal["absolute", "squared"] = "absolute"

    def __call__(
        self,
        denoiser: DenoiserLike,
        x0: Tensor,
        y: Tensor | None = None,
        *,
        generator: torch.Generator,
        **condition: Tensor,
    ) -> dict[str, Tensor]:
        if not isinstance(denoiser, Denoiser) or not isinstance(denoiser.process, Prediction) or y is None:
            raise ValueError("regression trains a Denoiser on Prediction with an observation")
        observed, seen = denoiser.observe(y)
        assert observed is not None
        difference = denoiser(observed, denoiser.process.T, observed, **seen, **condition).x0 - x0
        return {"loss": difference.abs().mean() if self.error == "absolute" else squared_magnitude(difference).mean()}
