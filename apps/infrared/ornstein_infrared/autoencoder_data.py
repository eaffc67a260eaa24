"""The data of a training run of an autoencoder."""

from pathlib import Path

from ornstein.errors import UserError
from ornstein.pictures.crops import Augmentation
from ornstein.spread import spread
from ornstein.training.data import ResumableLoader
from ornstein.training.data_module import DataModule
from ornstein_infrared.datasets import Frames
from ornstein_infrared.layouts import Layout, Pair, Split, find_pairs
from ornstein_infrared.normalization import FixedRange, PercentileLinear


class AutoencoderData(DataModule):
    """Large frames for fit, validate and test; measured ones beside them are left alone.

    Args:
        root: folder of the set.
        layout: `flat` for a folder of frames, cut by name; `pairs` for ROOT/{train,val,test}/HR; or a public set.
        normalization: the range of a frame; null for 0 to 255 for levels and percentiles for everything else.
        batch_size: crops per device and step.
        crop: side of a training crop in pixels.
        augment: none; flip: exchange left and right with probability 1/2; flip_rotate: all eight symmetries.
        epoch_length: crops per training epoch; null for one of every frame.
        held_out: share of the training frames that is kept for validation where a set has no such split.
        valid_files: how many frames are looked at in validation; null for all.
        in_memory: keep the training frames in memory.
        num_workers: loading processes.
        seed: of crops, order and what is held out.
    """

    def __init__(
        self,
        root: Path,
        layout: Layout = "flat",
        normalization: PercentileLinear | FixedRange | None = None,
        batch_size: int = 8,
        crop: int = 128,
        augment: Augmentation = "flip",
        epoch_length: int | None = None,
        held_out: float = 0.1,
        valid_files: int | None = 20,
        in_memory: bool = False,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if valid_files is not None and valid_files < 1:
            raise UserError("valid_files must be at least 1; trainer.limit_val_batches 0 does without validation")
        self.root, self.layout, self.normalization, self.batch_size = Path(root), layout, normalization, batch_size
        self.crop, self.augment, self.epoch_length, self.held_out = crop, augment, epoch_length, held_out
        self.valid_files, self.in_memory, self.num_workers, self.seed = valid_files, in_memory, num_workers, seed

    def train_dataloader(self) -> ResumableLoader:
        """Random crops, shuffled."""
        frames = Frames(
            self._pairs("train"),
            scale=1,
            crop=self.crop,
            augment=self.augment,
            normalization=self.normalization,
            length=self.epoch_length,
            in_memory=self.in_memory,
            seed=self.seed,
        )
        return self.loader(frames, self.batch_size, train=True)

    def val_dataloader(self) -> ResumableLoader:
        """Whole frames, in order."""
        return self._whole(spread(self._pairs("val"), self.valid_files))

    def test_dataloader(self) -> ResumableLoader:
        """Whole frames, in order."""
        return self._whole(self._pairs("test"))

    predict_dataloader = test_dataloader

    def _pairs(self, split: Split) -> list[Pair]:
        found = find_pairs(self.root, self.layout, split, share=self.held_out, seed=self.seed)
        return [Pair(pair.name, pair.gt) for pair in found]

    def _whole(self, pairs: list[Pair]) -> ResumableLoader:
        frames = Frames(pairs, scale=1, normalization=self.normalization, epochs=False, seed=self.seed)
        return self.loader(frames, 1, train=False)
