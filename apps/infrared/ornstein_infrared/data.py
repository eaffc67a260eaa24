"""The data of a training run: three datasets and their loaders."""

import sys
from pathlib import Path

from ornstein.errors import UserError
from ornstein.pictures.crops import Augmentation
from ornstein.spread import spread
from ornstein.training.data import ResumableLoader
from ornstein.training.data_module import DataModule
from ornstein_infrared.datasets import Frames
from ornstein_infrared.degradations import Degradation
from ornstein_infrared.latent_frames import LatentFrames
from ornstein_infrared.layouts import Layout, Pair, Split, find_pairs
from ornstein_infrared.normalization import FixedRange, PercentileLinear
from ornstein_infrared.simulate import simulate

SIMULATED = Path(".data/infrared")
"""Where scenes are made when no data are named."""


class InfraredData(DataModule):
    """Measured and clean frames for fit, validate, test and predict.

    Args:
        root: folder of the set; null makes simulated scenes in .data/infrared, of the layout pairs.
        layout: `flat` for a folder of clean frames, cut by name; `pairs` for ROOT/{train,val,test}/HR and, perhaps, LR
            beside; or a public set.
        degradation: makes the measured frames where there are none; null for Pillow's bicubic filter of the stored
            values.
        scale: clean sides over measured ones.
        normalization: the range of a frame, from the measured one; null for 0 to 255 for levels and percentiles for
            everything else.
        batch_size: crops per device and step.
        crop: side of a training crop in pixels of the clean frame; null for whole frames.
        augment: none; flip: exchange left and right with probability 1/2; flip_rotate: all eight symmetries.
        epoch_length: crops per training epoch; null for one of every frame.
        latents: folder of `ornstein infrared encode` to train on, in place of the training frames; no symmetries then.
        held_out: share of the training frames that is kept for validation where a set has no such split.
        valid_files: how many frames are enlarged in validation; whole ones, one at a time; null for all.
        test_files: the same for test.
        in_memory: keep the training frames in memory.
        num_workers: loading processes.
        seed: of crops, degradations, order and what is held out.
    """

    def __init__(
        self,
        root: Path | None = None,
        layout: Layout = "pairs",
        degradation: Degradation | None = None,
        scale: int = 4,
        normalization: PercentileLinear | FixedRange | None = None,
        batch_size: int = 8,
        crop: int | None = 128,
        augment: Augmentation = "flip",
        epoch_length: int | None = None,
        latents: Path | None = None,
        held_out: float = 0.1,
        valid_files: int | None = 20,
        test_files: int | None = None,
        in_memory: bool = False,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if any(count is not None and count < 1 for count in (valid_files, test_files)) or scale < 1:
            raise UserError("valid_files, test_files and scale must be at least 1; limit_val_batches 0 does without")
        if latents is not None and augment != "none":
            raise UserError("latents of a mirrored frame are not the mirrored latents; set data.augment to none")
        self.simulated = root is None
        self.root = SIMULATED if root is None else Path(root)
        self.layout: Layout = "pairs" if root is None else layout
        self.degradation, self.scale, self.normalization = degradation, scale, normalization
        self.batch_size, self.crop, self.augment, self.epoch_length = batch_size, crop, augment, epoch_length
        self.latents, self.held_out, self.in_memory = latents, held_out, in_memory
        self.valid_files, self.test_files = valid_files, test_files
        self.num_workers, self.seed = num_workers, seed

    def prepare_data(self) -> None:
        """Simulated scenes, where no data are named."""
        if self.simulated and not (self.root / "manifest.json").exists():
            print(f"no data are named (data.root); scenes are simulated in {self.root}", file=sys.stderr)
            simulate(self.root, scale=self.scale)

    def train_dataloader(self) -> ResumableLoader:
        """Random crops, shuffled."""
        if self.latents is not None:
            return self.loader(self._latents(self.latents), self.batch_size, train=True)
        frames = Frames(
            self._pairs("train"),
            degradation=self.degradation,
            scale=self.scale,
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
        return self._evaluation("val", self.valid_files)

    def test_dataloader(self) -> ResumableLoader:
        """Whole frames, in order."""
        return self._evaluation("test", self.test_files)

    predict_dataloader = test_dataloader

    def _latents(self, folder: Path) -> LatentFrames:
        crop = None if self.crop is None else self.crop // self.scale
        frames = LatentFrames(folder, crop, self.epoch_length, self.seed)
        if frames.scale != self.scale:
            raise UserError(f"{folder} has scale {frames.scale}, data.scale is {self.scale}; make them equal")
        return frames

    def _evaluation(self, split: Split, files: int | None) -> ResumableLoader:
        frames = Frames(
            spread(self._pairs(split), files),
            degradation=self.degradation,
            scale=self.scale,
            normalization=self.normalization,
            epochs=False,
            seed=self.seed,
        )
        return self.loader(frames, 1, train=False)

    def _pairs(self, split: Split) -> list[Pair]:
        return find_pairs(self.root, self.layout, split, scale=self.scale, share=self.held_out, seed=self.seed)
