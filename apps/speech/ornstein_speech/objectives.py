"""The objectives of SGMSE+ that need the waveform."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.estimate import Estimate
from ornstein.objectives.denoising import DenoisingObjective
from ornstein.objectives.time_sampling import TimeSampling, UniformTimes
from ornstein_speech.representation import CompressedSpectrogram


@dataclass(frozen=True)
class DataPrediction(DenoisingObjective):
    """Half mean squared error of x0 plus an L1 term on the waveform (Jukic et al. 2024; Richter et al. 2024, equation
    10).

    loss = 1/2 mean |x0hat - x0|^2 + l1_weight * 1/2 mean |wav(x0hat) - wav(x0)|, waveforms of (T - 1) hop samples.
    """

    compare: Literal["x0", "noise", "mean", "velocity"] = "x0"
    time_sampling: TimeSampling = UniformTimes(t_min=0.03)
    reduction: Literal["mean", "half_mean", "half_sum"] = "half_mean"
    l1_weight: float = 1e-3
    representation: CompressedSpectrogram | None = None
    """How to get back to the waveform; None takes that of the task."""

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
        spectral, waveform = self.compare_with(estimate, truth), self.waveform_error(estimate, truth)
        return {"loss": spectral + self.l1_weight * waveform, "spectral": spectral, "waveform": waveform}

    def waveform_error(self, estimate: Estimate, truth: Estimate) -> Tensor:
        """1/2 mean |wav(x0hat) - wav(x0)|."""
        if self.representation is None:
            raise ValueError("DataPrediction needs a representation to compare waveforms")
        length = (truth.x0.shape[-1] - 1) * self.representation.hop
        estimated, true = (self.representation.inverse(spec, length) for spec in (estimate.x0, truth.x0))
        return (estimated - true).abs().mean() / 2
