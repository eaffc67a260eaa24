"""Training of a model that enlarges infrared frames."""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.latent import LatentDenoiser
from ornstein.training.data import is_repeat
from ornstein.training.pictures import PERFECT, PictureTask
from ornstein.training.task import Batch
from ornstein_infrared import thermal
from ornstein_infrared.degradations.bicubic import enlarge
from ornstein_infrared.metrics import psnr_gray, spectrum_distance, ssim_gray
from ornstein_infrared.representation import ThermalSpace


class InfraredTask(PictureTask):
    """Trains a denoiser on frames, on pixels or on latents; validation enlarges whole frames and scores them.

    The other arguments are those of `PictureTask` and `Task`.

    Args:
        representation: frames to what the process runs on.
    """

    app: ClassVar[str] = "infrared"
    predicted: ClassVar[str] = "enlarged frames"

    def __init__(
        self,
        *,
        representation: ThermalSpace = ThermalSpace(),  # noqa: B008  # frozen
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.representation = representation

    def prepare_batch(self, batch: Batch) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """x0 and what the denoiser observes, in [-1, 1], of the clean and the measured frames, or cached latents."""
        if "x0" in batch:
            if not isinstance(self.denoiser, LatentDenoiser):
                raise UserError("the data are latents and the model works on pixels; leave data.latents out")
            return batch["x0"], batch["y"], {"measured": batch["measured"]}
        x0 = self.representation.forward(batch["gt"])
        if isinstance(self.denoiser, LatentDenoiser):
            x0 = self.denoiser.latents(x0)
        return x0, self.representation.observation(batch["lq"]), {}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Of enlarged frames over their range: PSNR in dB, its gain over bicubic enlargement, SSIM, and the distance of
        amplitudes."""
        self._score(batch, batch_idx, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The scores of validation, named test/..."""
        self._score(batch, batch_idx, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Tensor]:
        """Enlarged frames (1, H, W), each also written to DEFAULT_ROOT_DIR/predictions: NAME.png of levels, NAME.tif in
        float32 of everything else, in the unit of the file.

        Raises:
            UserError: a file exists already, or cannot be written.
        """
        restored = self.restore_batch(batch, batch_idx)
        if self.is_trial or is_repeat(batch):  # a trial leaves no files; that of a repeat is another rank's, or written
            return restored
        for i, frame in enumerate(restored):
            low, high = float(batch["low"][i]), float(batch["high"][i])
            levels = (low, high) == (0.0, 255.0)
            target = self.predictions / f"{batch['name'][i]}{'.png' if levels else '.tif'}"
            self.require_new([target])
            like = thermal.Frame(
                np.zeros((1, 1), np.float32),
                np.dtype(np.uint8 if levels else np.float32),
                thermal.Scale(unit="levels" if levels else "unknown"),
            )
            thermal.write(target, low + (high - low) * frame[0].double().numpy(), like)
        return restored

    def _losses(self, batch: Batch, generator: torch.Generator) -> tuple[dict[str, Tensor], int]:
        with torch.autocast(self.device.type, enabled=False):
            x0, y, condition = self.prepare_batch(batch)
        denoiser = self.denoiser
        if "x0" in batch and isinstance(denoiser, LatentDenoiser):
            denoiser = denoiser.on_latents()
        return self.objective(denoiser, x0, y, generator=generator, **condition), len(x0)

    def _score(self, batch: Batch, batch_idx: int, stage: str) -> None:
        repeat = is_repeat(batch)
        for i, restored in enumerate(self.restore_batch(batch, batch_idx)):
            clean, lq = batch["gt"][i].float().cpu(), batch["lq"][i : i + 1].float().cpu()
            scores = {
                "psnr": _psnr(clean, restored),
                "ssim": ssim_gray(clean, restored),
                "spectrum": spectrum_distance(clean, restored),
            }
            scores["psnr_gain"] = scores["psnr"] - _psnr(clean, enlarge(lq, self.representation.scale)[0])
            self.log_scores(scores, stage, int(not repeat))


def _psnr(clean: Tensor, frame: Tensor) -> float:
    """`psnr_gray`, and 100 dB where the frames are equal."""
    return min(PERFECT, psnr_gray(clean, frame))
