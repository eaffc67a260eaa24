"""The data of a training run: three datasets and their loaders."""

from pathlib import Path
from typing import Any

import torch

from ornstein.errors import UserError
from ornstein.pictures.crops import Augmentation
from ornstein.pictures.degraded import BatchDegradation
from ornstein.spread import spread
from ornstein.training.data import ResumableLoader
from ornstein.training.data_module import DataModule
from ornstein_restoration.datasets import Pictures
from ornstein_restoration.degradations import Degradation
from ornstein_restoration.layouts import Layout, Pair, Split, find_pairs


class RestorationData(DataModule):
    """Degraded and clean pictures for fit, validate, test and predict.

    Args:
        root: folder of the set.
        layout: `istd`, `lol`, `lol_v2` (its Real_captured or Synthetic), `raindrop`, `realsr` (RealSR-V3) and `div2k`
            (with LR_bicubic) as distributed; `pairs`: ROOT/{train,valid,test} with folders lq and gt (or LR/4 and HR,
            low and high), or these two alone as test set (ImageNet-Test, RealSR_test), or lq alone (RealSet65);
            `flist`: {train,valid,test}_{lq,gt,mask}.flist with one path a line; `clean`: clean pictures in
            ROOT/{train,valid,test}, DIV2K, or one folder, for a degradation.
        degradation: makes the degraded pictures of clean ones, anew in every epoch; the same ones at every validation.
        scale: clean sides over degraded ones: 4 for super-resolution x4, 1 for the rest.
        batch_size: crops per device and step.
        crop: side of a training crop in clean pixels; null for whole pictures (batch size 1, or resize).
        augment: none; flip: exchange left and right with probability 1/2; flip_rotate: all eight symmetries.
        fit: shrink pictures to this long side, with sides that are multiples of 16 (Raindrop as published: 1024).
        resize: make pictures squares of this side (RDDM as published: 256); null for their own size.
        epoch_length: crops per training epoch; null for one of every picture.
        held_out: share of the training pictures that is kept for validation where a set has no such split.
        valid_files: how many pictures are restored; whole ones, one at a time; null for all.
        test_files: the same for test.
        device_group: degrade training crops on the device of the model, so many at once, which share the kinds that the
            degradation draws for a batch (RealESRGAN, as published); 1 draws what loading processes do; null: there.
        in_memory: keep the training pictures in memory, in 8 bits.
        num_workers: loading processes.
        seed: of crops, degradations, order and what is held out.
    """

    def __init__(
        self,
        root: Path,
        layout: Layout = "pairs",
        degradation: Degradation | None = None,
        scale: int = 1,
        batch_size: int = 8,
        crop: int | None = 256,
        augment: Augmentation = "flip",
        fit: int | None = None,
        resize: int | None = None,
        epoch_length: int | None = None,
        held_out: float = 0.1,
        valid_files: int | None = 20,
        test_files: int | None = None,
        device_group: int | None = None,
        in_memory: bool = False,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(valid_files or 1, test_files or 1) < 1 or scale < 1:
            raise UserError("valid_files, test_files and scale must be at least 1")
        if valid_files == 0 or test_files == 0:
            raise UserError("valid_files and test_files must be at least 1; trainer.limit_val_batches 0 does without")
        if device_group is not None and (device_group < 1 or not isinstance(degradation, BatchDegradation)):
            raise UserError(
                f"device_group is {device_group}; it must be at least 1, with a degradation that takes batches, as "
                "RealESRGAN"
            )
        self.device_group = device_group
        self.root, self.layout, self.degradation, self.scale = Path(root), layout, degradation, scale
        self.batch_size, self.crop, self.augment, self.fit, self.resize = batch_size, crop, augment, fit, resize
        self.epoch_length, self.held_out, self.in_memory = epoch_length, held_out, in_memory
        self.valid_files, self.test_files = valid_files, test_files
        self.num_workers, self.seed = num_workers, seed

    def train_dataloader(self) -> ResumableLoader:
        """Random crops, shuffled."""
        pictures = Pictures(
            self._pairs("train"),
            degradation=self.degradation,
            crop=self.crop,
            augment=self.augment,
            scale=self.scale,
            fit=self.fit,
            resize=self.resize,
            length=self.epoch_length,
            in_memory=self.in_memory,
            later=self.device_group is not None,
            seed=self.seed,
        )
        return self.loader(pictures, self.batch_size, train=True)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Degrade what was left for the device: a group by the generator of its first item, so that no state is kept
        and a resumed run draws the same. (The published code mixes its batches in a pool of pairs instead.)"""
        if "draws" not in batch:
            return batch
        assert isinstance(self.degradation, BatchDegradation)
        degraded = []
        for clean, draws in zip(*(batch[name].split(self.device_group) for name in ("gt", "draws")), strict=True):
            generator = torch.Generator()
            generator.set_state(draws[0].cpu().clone())  # it reads from the start of the storage
            degraded.append(self.degradation.batch(clean, generator))
        return {name: value for name, value in batch.items() if name != "draws"} | {"lq": torch.cat(degraded)}

    def val_dataloader(self) -> ResumableLoader:
        """Whole pictures, in order."""
        return self._evaluation("valid", self.valid_files)

    def test_dataloader(self) -> ResumableLoader:
        """Whole pictures, in order."""
        return self._evaluation("test", self.test_files)

    predict_dataloader = test_dataloader

    def _evaluation(self, split: Split, files: int | None) -> ResumableLoader:
        pictures = Pictures(
            spread(self._pairs(split), files),
            degradation=self.degradation,
            scale=self.scale,
            fit=self.fit,
            resize=self.resize,
            epochs=False,
            seed=self.seed,
        )
        return self.loader(pictures, 1, train=False)

    def _pairs(self, split: Split) -> list[Pair]:
        if not self.root.is_dir():
            raise UserError(f"there is no folder {self.root}; name that of your data with --data.root")
        return find_pairs(self.root, self.layout, split, scale=self.scale, share=self.held_out, seed=self.seed)
