"""Training of a model that enlarges infrared frames."""

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.latent import LatentDenoiser
from ornstein.pictures.sampling import Model, restore_picture
from ornstein.published_shift import fill_autoencoder
from ornstein.tiles import Tiling
from ornstein.training.data import is_repeat
from ornstein.training.seeds import derive_seed
from ornstein.training.task import Batch, Task
from ornstein_infrared import thermal
from ornstein_infrared.degradations.bicubic import enlarge
from ornstein_infrared.metrics import psnr_gray, spectrum_distance, ssim_gray
from ornstein_infrared.representation import ThermalSpace

PERFECT = 100.0
"""PSNR in dB that counts for a frame restored without error."""


class InfraredTask(Task):
    """Trains a denoiser on frames, on pixels or on latents; validation enlarges whole frames and scores them.

    The other arguments are those of `Task`.

    Args:
        representation: frames to what the process runs on.
        autoencoder_from: autoencoder_vq_f4.pth or one of our files, for the autoencoder of the denoiser; init_from and
            a Lightning checkpoint win over it.
        tile: side of the tiles of frames in validation, in pixels of the measured frame; null for whole frames.
    """

    app: ClassVar[str] = "infrared"
    predicted: ClassVar[str] = "enlarged frames"

    def __init__(
        self,
        *,
        representation: ThermalSpace = ThermalSpace(),  # noqa: B008  # frozen
        autoencoder_from: Path | None = None,
        tile: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.representation = representation
        self.autoencoder_from = autoencoder_from
        self.tiling = None if tile is None else Tiling(size=tile, overlap=tile // 8)

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

    def setup(self, stage: str) -> None:
        if self.autoencoder_from is not None:
            fill_autoencoder(self.denoiser, self.autoencoder_from, self.app)
        super().setup(stage)
        scale = getattr(getattr(self.trainer, "datamodule", None), "scale", self.representation.scale)
        if scale != self.representation.scale:
            raise UserError(
                f"the data have scale {scale}, the representation {self.representation.scale}; "
                "set data.scale and model.representation.scale to the same"
            )

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

    def restore_batch(self, batch: Batch, batch_idx: int) -> list[Tensor]:
        """Enlarge whole frames; every item's noise is its own, whatever the batch."""
        model = Model(self.denoiser, self.sampler, self.representation)
        seeds = [derive_seed(self.seed, "sample", i) for i in self._identities(batch, batch_idx)]
        with torch.compiler.set_stance("force_eager"):  # frames have many sizes; each would compile anew
            return [
                restore_picture(model, frame, None, seed=seeds[i], tiling=self.tiling, device=self.device)
                for i, frame in enumerate(batch["lq"])
            ]

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
            finite = {f"{stage}/{name}": value for name, value in scores.items() if not math.isnan(value)}
            self.log_means(finite, int(not repeat))


def _psnr(clean: Tensor, frame: Tensor) -> float:
    """`psnr_gray`, and 100 dB where the frames are equal: a mean over frames has to be finite."""
    return min(PERFECT, psnr_gray(clean, frame))
