"""The data of a training run: three datasets and their loaders."""

from pathlib import Path
from typing import Any, Literal

from torch.utils.data import Subset

from ornstein.errors import UserError
from ornstein.spread import spread
from ornstein.training.data import ResumableLoader, SizedDataset
from ornstein.training.data_module import DataModule
from ornstein_speech import audio
from ornstein_speech.banks import require_rooms
from ornstein_speech.datasets import FixedMixes, MixedOnTheFly, PairedFolder, voicebank_demand
from ornstein_speech.pairs import SPLITS

LOUDEST_SNR = 200.0
"""In dB: beyond it one of two sounds is lost in the rounding of the other."""

Layout = Literal["mixes", "pairs", "voicebank"]


class SpeechData(DataModule):
    """Clean and noisy speech for fit, validate, test and predict.

    Args:
        root: folder of the set.
        layout: `mixes`: ROOT/speech and ROOT/noise with train, valid and test, mixed on the fly (what `ornstein speech
            prepare` makes); `pairs`: ROOT/{train,valid,test}/{clean,noisy} (or anechoic, reverb) with the same file
            names; `voicebank`: VoiceBank-DEMAND as distributed.
        batch_size: segments per device and step.
        samples: length of a training segment; (frames - 1) * hop, so 32640 is 256 frames.
        rate: of the model, in Hz.
        normalize: which peak becomes 1 in a training segment.
        resample: convert files of another rate instead of refusing them.
        snr_range: of the mixes in training, in dB.
        epoch_length: mixes per training epoch.
        valid_files, test_files: how many files are enhanced; whole files, one at a time unless they are mixes.
        snrs: of the mixes in validation and test, in dB.
        rooms: folder that `ornstein speech prepare-rooms` makes: the speech of `mixes` is heard in its rooms, and the
            target is the direct sound; null for no reverberation.
        eval_batch_size: mixes enhanced at once in validation and test.
        num_workers: loading processes.
        seed: of cuts, mixes and order.
    """

    def __init__(
        self,
        root: Path,
        layout: Layout = "mixes",
        batch_size: int = 8,
        samples: int = 32640,
        rate: int = 16000,
        normalize: Literal["noisy", "clean", "not"] = "noisy",
        resample: bool = False,
        snr_range: tuple[float, float] = (0.0, 15.0),
        epoch_length: int = 8000,
        valid_files: int = 20,
        test_files: int = 48,
        snrs: tuple[float, ...] = (0.0, 5.0, 10.0, 15.0),
        rooms: Path | None = None,
        eval_batch_size: int = 8,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(valid_files, test_files, eval_batch_size) < 1:
            raise UserError(
                "valid_files, test_files and eval_batch_size must be at least 1; for no validation, set "
                "trainer.limit_val_batches to 0"
            )
        if min(samples, batch_size, epoch_length, 1 + num_workers) < 1:
            raise UserError("samples, batch_size and epoch_length must be at least 1, num_workers at least 0")
        audio.require_rate(rate, "--data.rate")
        if not all(abs(snr) <= LOUDEST_SNR for snr in (*snr_range, *snrs)) or snr_range[0] > snr_range[1]:
            raise UserError(
                f"snr_range is {list(snr_range)} and snrs {list(snrs)}; give ascending dB within +-{LOUDEST_SNR:g}"
            )
        if rooms is not None and layout != "mixes":
            raise UserError("rooms are for the layout mixes; pairs are reverberant already or not at all")
        self.root, self.layout, self.rooms = Path(root), layout, rooms
        self.batch_size, self.samples, self.rate, self.normalize, self.resample = (
            batch_size,
            samples,
            rate,
            normalize,
            resample,
        )
        self.snr_range, self.epoch_length, self.snrs = snr_range, epoch_length, snrs
        self.valid_files, self.test_files, self.eval_batch_size = valid_files, test_files, eval_batch_size
        self.num_workers, self.seed = num_workers, seed

    def train_dataloader(self) -> ResumableLoader:
        """Random segments, shuffled."""
        return self.loader(self._train_set(), self.batch_size, train=True)

    def val_dataloader(self) -> ResumableLoader:
        """Whole files, in order."""
        return self._evaluation("valid", self.valid_files)

    def test_dataloader(self) -> ResumableLoader:
        """Whole files, in order."""
        return self._evaluation("test", self.test_files)

    predict_dataloader = test_dataloader

    def _train_set(self) -> SizedDataset:
        self._require_root()
        if self.layout == "mixes":
            return MixedOnTheFly(
                self.root / "speech" / "train",
                self.root / "noise" / "train",
                length=self.epoch_length,
                snr_range=self.snr_range,
                seconds=max(4.0, self.samples / self.rate),
                samples=self.samples,
                normalize=self.normalize,
                rooms=self._rooms("train"),
                rate=self.rate,
                seed=self.seed,
            )
        return self._pairs("train", samples=self.samples, normalize=self.normalize, seed=self.seed)

    def _evaluation(self, split: Literal["valid", "test"], files: int) -> ResumableLoader:
        self._require_root()
        if self.layout == "mixes":
            mixes = FixedMixes(
                self.root / "speech" / split,
                self.root / "noise" / split,
                length=files,
                snrs=self.snrs,
                rooms=self._rooms(split),
                rate=self.rate,
                seed=self.seed,
            )
            return self.loader(mixes, self.eval_batch_size, train=False)
        pairs = self._pairs(split, samples=None)
        return self.loader(Subset(pairs, spread(range(len(pairs)), files)), 1, train=False)

    def _rooms(self, split: str) -> Path | None:
        return Path(self.rooms) / split if self.rooms is not None else None

    def _pairs(self, split: Literal["train", "valid", "test"], **options: Any) -> PairedFolder:
        options |= {"rate": self.rate, "resample": self.resample}
        if self.layout == "voicebank":
            return voicebank_demand(self.root, split, **options)
        return PairedFolder(self.root, split, **options)

    def _require_root(self) -> None:
        if not self.root.is_dir():
            raise UserError(
                f"there is no folder {self.root}; make it with `ornstein speech prepare` or name yours with --data.root"
            )
        if self.rooms is not None:  # before minutes go into decoding the speech
            for split in SPLITS:
                require_rooms(Path(self.rooms) / split)
