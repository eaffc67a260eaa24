"""Training of an image restorer."""

import sys
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from ornstein.checkpoint import load
from ornstein.errors import UserError
from ornstein.latent import LatentDenoiser
from ornstein.process.resfusion import Resfusion
from ornstein.training.data import is_repeat
from ornstein.training.pictures import PERFECT, PictureTask
from ornstein.training.task import Batch
from ornstein_restoration import images
from ornstein_restoration.generate import generates
from ornstein_restoration.metrics import psnr_rgb, ssim_rgb_uniform
from ornstein_restoration.representation import PictureSpace


class RestorationTask(PictureTask):
    """Trains a denoiser on pictures; validation restores whole pictures and scores them.

    The other arguments are those of `PictureTask` and `Task`.

    Args:
        representation: pictures to what the process runs on.
        predictor_from: an exported checkpoint of a regression network, for the `predictor` of the denoiser (the g of
            UPSR); init_from and a Lightning checkpoint win over it.
    """

    app: ClassVar[str] = "restoration"
    predicted: ClassVar[str] = "restored pictures"

    def __init__(
        self,
        *,
        representation: PictureSpace = PictureSpace(),  # noqa: B008  # frozen
        predictor_from: Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.representation = representation
        self.predictor_from = predictor_from

    def prepare_batch(self, batch: Batch) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """x0 and y in [-1, 1] of the clean and the degraded pictures, and the mask where the network wants one."""
        space = self.representation
        if "gt" not in batch:
            raise UserError("the pictures have no clean partners; only predict works without")
        if space.mask != "none" and "mask" not in batch:
            raise UserError("the network wants masks and the data have none; choose data with masks or mask: none")
        x0 = space.forward(batch["gt"])
        return (
            self.denoiser.latents(x0) if isinstance(self.denoiser, LatentDenoiser) else x0,
            space.observation(space.measured(batch["lq"])),
            space.condition(batch.get("mask")),
        )

    def setup(self, stage: str) -> None:
        if self.predictor_from is not None:
            self._fill_predictor(self.predictor_from)
        elif self._is_random("predictor", stage):
            raise UserError(
                "the predictor of this model has random weights; train it first, as with photos_x4_atd.yaml, "
                "and give model.predictor_from"
            )
        if self.autoencoder_from is None and self._is_random("autoencoder", stage):
            raise UserError(
                "the autoencoder of this model has random weights; give model.autoencoder_from, such as "
                "autoencoder_vq_f4.pth"
            )
        super().setup(stage)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        process = self.denoiser.process
        if isinstance(process, Resfusion) and self.trainer.is_global_zero:
            print(f"note: Resfusion has {process.summary}", file=sys.stderr)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """PSNR in dB and SSIM of the restored pictures, RGB, and the gain in PSNR over the degraded ones; the loss of a
        model of generation, whose pictures compare with none."""
        self._score(batch, batch_idx, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The scores of validation, named test/..."""
        self._score(batch, batch_idx, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Tensor]:
        """Restored pictures (3, H, W), each also written to DEFAULT_ROOT_DIR/predictions/NAME.png.

        Raises:
            UserError: a file exists already, or cannot be written.
        """
        if self.is_trial or is_repeat(
            batch
        ):  # a trial leaves no files; the file of a repeat is another rank's, or written
            return self.restore_batch(batch, batch_idx)
        targets = [self.predictions / f"{name}.png" for name in batch["name"]]
        self.require_new(targets)
        restored = self.restore_batch(batch, batch_idx)
        for target, picture in zip(targets, restored, strict=True):
            images.write(target, picture)
        return restored

    def restore_batch(self, batch: Batch, batch_idx: int) -> list[Tensor]:
        """Restore whole pictures; every item's noise is its own, whatever the batch."""
        if self.representation.mask != "none" and "mask" not in batch:
            raise UserError("the network wants masks and the data have none; choose data with masks or mask: none")
        return super().restore_batch(batch, batch_idx)

    def _score(self, batch: Batch, batch_idx: int, stage: str) -> None:
        if "gt" not in batch:
            raise UserError("the pictures have no clean partners to compare with; only predict works without")
        if generates(self.denoiser):
            self.log_loss(batch, batch_idx, stage)
            return
        repeat = is_repeat(batch)
        for i, restored in enumerate(self.restore_batch(batch, batch_idx)):
            clean = batch["gt"][i].float().cpu()
            scores = {"psnr": _psnr(clean, restored), "ssim": ssim_rgb_uniform(clean, restored)}
            lq = batch["lq"][i].float().cpu()
            if lq.shape == clean.shape:
                scores["psnr_gain"] = scores["psnr"] - _psnr(clean, lq)
            self.log_scores(scores, stage, int(not repeat))

    def _is_random(self, part: str, stage: str) -> bool:
        """Whether a frozen `part` of the denoiser would stay as it was initialised."""
        begun = self.init_from is not None or self.trainer.ckpt_path is not None
        return stage == "fit" and not begun and getattr(self.denoiser, part, None) is not None

    def _fill_predictor(self, path: Path) -> None:
        predictor: Any = getattr(self.denoiser, "predictor", None)
        if predictor is None:
            raise UserError(f"{type(self.denoiser).__name__} has no predictor; leave model.predictor_from out")
        trained = load(path, self.app).denoiser.network.state_dict()
        wanted = {name: weight.shape for name, weight in predictor.state_dict().items()}
        if {name: weight.shape for name, weight in trained.items()} != wanted:
            raise UserError(
                f"{path} holds another network than the predictor of this model; give the file that fits it"
            )
        predictor.load_state_dict(trained)


def _psnr(clean: Tensor, picture: Tensor) -> float:
    """`psnr_rgb`, and 100 dB where the pictures are equal."""
    return min(PERFECT, psnr_rgb(clean, picture))
