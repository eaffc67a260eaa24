"""The objectives of SGMSE+ that need the waveform."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.estimate import Estimate
from ornstein.objectives.denoising import DenoisingObjective
from ornstein.objectives.time_sampling import TimeSampling, UniformTimes
from ornstein_speech.pesq_loss import disturbance
from ornstein_speech.representation import CompressedSpectrogram


@dataclass(frozen=True)
class DataPrediction(DenoisingObjective):
    """Half mean squared error of x0 plus an L1 term on the waveform (Jukic et al. 2024; Richter et al. 2024, equation
    10), and a differentiable model of PESQ if `pesq_weight` is above 0 (Richter et al. 2024, model M8: 5e-4).

    loss = 1/2 mean |x0hat - x0|^2 + l1_weight * 1/2 mean |wav(x0hat) - wav(x0)| + pesq_weight * (0.1 d_symm + 0.0309
    d_asymm), waveforms of (T - 1) hop samples. With the PESQ term also logs it (`pesq_loss`) and the listening quality
    that the model predicts (`mos`).
    """

    compare: Literal["x0", "noise", "mean", "velocity"] = "x0"
    time_sampling: TimeSampling = UniformTimes(t_min=0.03)
    reduction: Literal["mean", "half_mean", "half_sum"] = "half_mean"
    l1_weight: float = 1e-3
    pesq_weight: float = 0.0
    representation: CompressedSpectrogram | None = None
    """How to get back to the waveform; None takes that of the task."""

    def __post_init__(self) -> None:
        for name, weight in (("l1_weight", self.l1_weight), ("pesq_weight", self.pesq_weight)):
            if not weight >= 0:
                raise ValueError(f"{name} is {weight}; a weight is 0 or more")

    def __call__(
        self,
        denoiser: DenoiserLike,
        x0: Tensor,
        y: Tensor | None = None,
        *,
        generator: torch.Generator,
        **condition: Tensor,
    ) -> dict[str, Tensor]:
        return self.losses(*self.corrupt_and_estimate(denoiser, x0, y, generator=generator, **condition))

    def losses(self, estimate: Estimate, truth: Estimate) -> dict[str, Tensor]:
        """The loss and its unweighted terms, scalars."""
        if self.representation is None:
            raise ValueError("DataPrediction needs a representation to compare waveforms")
        length = (truth.x0.shape[-1] - 1) * self.representation.hop
        estimated, true = (self.representation.inverse(spec, length) for spec in (estimate.x0, truth.x0))
        spectral, waveform = self.compare_with(estimate, truth), (estimated - true).abs().mean() / 2
        losses = {"loss": spectral + self.l1_weight * waveform, "spectral": spectral, "waveform": waveform}
        if self.pesq_weight == 0:
            return losses
        distortion = disturbance(true, estimated, self.representation.sample_rate)
        pesq = distortion.loss.mean()
        total = losses["loss"] + self.pesq_weight * pesq
        return losses | {"loss": total, "pesq_loss": pesq, "mos": distortion.mos.detach().mean()}
