"""The data of a training run of an autoencoder."""

from pathlib import Path

from lightning.pytorch import LightningDataModule

from ornstein.errors import UserError
from ornstein.training.data import ResumableLoader
from ornstein_infrared.frames import CleanFrames, clean_files
from ornstein_infrared.normalization import FixedRange, PercentileLinear


class AutoencoderData(LightningDataModule):
    """Clean frames for fit, validate and test.

    Args:
        root: folder with {train,val,test}, each perhaps with a folder HR; or with frames, to be split by name.
        normalization: brings the values of a frame to [-1, 1].
        batch_size: crops per device and step.
        crop: side of a training crop in pixels.
        flip: exchange left and right with probability 1/2.
        epoch_length: crops per training epoch; null for one of every frame.
        valid_files: frames that are kept for validation where a set has no split.
        test_files: the same for test.
        in_memory: keep the training frames in memory.
        num_workers: loading processes.
        seed: of crops and order.
    """

    def __init__(
        self,
        root: Path,
        normalization: PercentileLinear | FixedRange = PercentileLinear(),  # noqa: B008  # frozen
        batch_size: int = 8,
        crop: int = 128,
        flip: bool = True,
        epoch_length: int | None = None,
        valid_files: int = 20,
        test_files: int = 20,
        in_memory: bool = False,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(valid_files, test_files) < 1:
            raise UserError("valid_files and test_files must be at least 1; trainer.limit_val_batches 0 does without")
        self.root, self.normalization, self.batch_size = Path(root), normalization, batch_size
        self.crop, self.flip, self.epoch_length, self.in_memory = crop, flip, epoch_length, in_memory
        self.valid_files, self.test_files = valid_files, test_files
        self.num_workers, self.seed = num_workers, seed

    def train_dataloader(self) -> ResumableLoader:
        """Random crops, shuffled."""
        frames = CleanFrames(
            clean_files(self.root, "train", self.valid_files, self.test_files),
            normalization=self.normalization,
            crop=self.crop,
            flip=self.flip,
            length=self.epoch_length,
            in_memory=self.in_memory,
            seed=self.seed,
        )
        pinned = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return ResumableLoader(
            frames,
            self.batch_size,
            train=True,
            seed=self.seed,
            num_workers=self.num_workers,
            pin_memory=pinned,
        )

    def val_dataloader(self) -> ResumableLoader:
        """Whole frames, in order."""
        return self._whole(clean_files(self.root, "val", self.valid_files, self.test_files))

    def test_dataloader(self) -> ResumableLoader:
        """Whole frames, in order."""
        return self._whole(clean_files(self.root, "test", self.valid_files, self.test_files))

    predict_dataloader = test_dataloader

    def _whole(self, files: list[Path]) -> ResumableLoader:
        return ResumableLoader(CleanFrames(files, normalization=self.normalization), 1, train=False, seed=self.seed)
