"""The task of the apps of pictures: validation restores whole pictures."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.pictures.sampling import Model, restore_picture
from ornstein.published_shift import fill_autoencoder
from ornstein.tiles import Tiling
from ornstein.training.seeds import derive_seed
from ornstein.training.task import Batch, Task

PERFECT = 100.0
"""PSNR in dB that counts for a picture restored without error: a mean over pictures has to be finite."""


class PictureTask(Task):
    """Trains a denoiser on pictures; apps subclass it, and set a `representation` with a `scale`.

    The other arguments are those of `Task`.

    Args:
        autoencoder_from: autoencoder_vq_f4.pth or one of our files, for the autoencoder of the denoiser (ResShift on
            latents); init_from and a Lightning checkpoint win over it.
        tile: side of the tiles in validation, in pixels of the degraded picture; null for whole pictures.
    """

    def __init__(self, *, autoencoder_from: Path | None = None, tile: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.autoencoder_from = autoencoder_from
        self.tiling = None if tile is None else Tiling(size=tile, overlap=tile // 8)

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

    def restore_batch(self, batch: Batch, batch_idx: int) -> list[Tensor]:
        """Restore whole pictures; every item's noise is its own, whatever the batch."""
        model = Model(self.denoiser, self.sampler, self.representation)
        seeds = [derive_seed(self.seed, "sample", i) for i in self._identities(batch, batch_idx)]
        masks = batch.get("mask", [None] * len(seeds))
        with torch.compiler.set_stance("force_eager"):  # pictures have many sizes; each would compile anew
            return [
                restore_picture(model, picture, mask, seed=seed, tiling=self.tiling, device=self.device)
                for picture, mask, seed in zip(batch["lq"], masks, seeds, strict=True)
            ]

    def log_scores(self, scores: Mapping[str, float], stage: str, weight: int) -> None:
        """Log the scores of a picture that are defined, as STAGE/NAME."""
        finite = {f"{stage}/{name}": value for name, value in scores.items() if not math.isnan(value)}
        self.log_means(finite, weight)
