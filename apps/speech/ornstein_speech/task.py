"""Training of a speech enhancer."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.objectives.denoising import Objective
from ornstein.training.data import is_repeat
from ornstein.training.task import Batch, Task
from ornstein_speech import audio, metrics
from ornstein_speech.objectives import DataPrediction
from ornstein_speech.representation import CompressedSpectrogram


class SpeechTask(Task):
    """Trains a denoiser on compressed spectrograms; validation enhances whole files and scores them.

    The other arguments are those of `Task`.

    Args:
        objective: the loss; a DataPrediction without a representation takes this one's.
        representation: waveform to spectrogram.
    """

    app: ClassVar[str] = "speech"
    predicted: ClassVar[str] = "enhanced files"

    def __init__(
        self,
        *,
        objective: Objective,
        representation: CompressedSpectrogram = CompressedSpectrogram(),  # noqa: B008  # frozen
        **kwargs: Any,
    ) -> None:
        if isinstance(objective, DataPrediction) and objective.representation is None:
            objective = replace(objective, representation=representation)
        super().__init__(objective=objective, **kwargs)
        self.representation = representation

    def prepare_batch(self, batch: Batch) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Spectrograms of the clean and the noisy waveforms (B, 1, L)."""
        return self.representation.forward(batch["clean"]), self.representation.forward(batch["noisy"]), {}

    def setup(self, stage: str) -> None:
        super().setup(stage)
        rate = getattr(getattr(self.trainer, "datamodule", None), "rate", self.representation.sample_rate)
        if rate != self.representation.sample_rate:
            raise UserError(
                f"the data have {rate} Hz, the representation {self.representation.sample_rate} Hz; "
                "set data.rate and model.representation.sample_rate to the same rate"
            )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """PESQ, ESTOI and SI-SDR of the enhanced files, and the gain in SI-SDR."""
        self._score(batch, batch_idx, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The scores of validation, named test/..."""
        self._score(batch, batch_idx, "test")

    def _score(self, batch: Batch, batch_idx: int, stage: str) -> None:
        estimates, repeat = self.enhance_batch(batch, batch_idx).cpu(), is_repeat(batch)
        clean, noisy = batch["clean"].cpu(), batch["noisy"].cpu()
        for i in range(len(clean)):
            scores = metrics.score(clean[i, 0], noisy[i, 0], estimates[i, 0], self.representation.sample_rate)
            scores["si_sdr_gain"] = scores["si_sdr"] - metrics.si_sdr(clean[i, 0], noisy[i, 0])
            for name, value in scores.items():
                # A score that is not defined (PESQ of silence) counts with weight 0: it must not spoil the mean of the
                # others, nor be missing on one rank while the others wait to sum it.
                defined = math.isfinite(value)
                self.log_means({f"{stage}/{name}": value if defined else 0.0}, int(defined and not repeat))

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Enhanced waveforms (B, 1, L), each also written to DEFAULT_ROOT_DIR/predictions/NAME.wav (32-bit float).

        Raises:
            UserError: a file exists already, or cannot be written.
        """
        if self.is_trial or is_repeat(
            batch
        ):  # a trial leaves no files; the file of a repeat is another rank's, or written
            return self.enhance_batch(batch, batch_idx)
        targets = [self._prediction(name) for name in batch["name"]]
        self.require_new(targets)
        estimates = self.enhance_batch(batch, batch_idx)
        for target, estimate in zip(targets, estimates.float().cpu(), strict=True):
            audio.write(target, estimate, self.representation.sample_rate, subtype="FLOAT")
        return estimates

    def _prediction(self, name: str) -> Path:
        """The file of an item, whose name may hold folders and may end like a sound file (or in 2.5dB)."""
        suffix = Path(name).suffix
        stem = name.removesuffix(suffix) if suffix.lower() in audio.SUFFIXES else name
        return self.predictions / f"{stem}.wav"

    def enhance_batch(self, batch: Batch, batch_idx: int) -> Tensor:
        """Enhance whole waveforms (B, 1, L) of one length; every item's noise is its own, whatever the batch."""
        noisy = batch["noisy"]
        peak = noisy.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(noisy.dtype).tiny)
        with torch.autocast(self.device.type, enabled=False):
            spec = self.representation.pad_frames(self.representation.forward(noisy / peak))
            noise = self.validation_noise(batch, batch_idx)
        with torch.compiler.set_stance("force_eager"):  # files have many lengths; each would compile anew
            y, condition = self.denoiser.observe(spec)
            start = self.denoiser.process.start(noise(spec), y)
            estimate = self.sampler(self.denoiser, start, y, noise, None, **condition)
        with torch.autocast(self.device.type, enabled=False):
            return self.representation.inverse(estimate, noisy.shape[-1]) * peak
