"""Clean frames of a folder, normalised, as a map-style dataset: what an autoencoder learns from.

An item is {"clean": (1, H, W), "name": str}, float32 in [-1.5, 1.5]. Whatever is random in item i of epoch e is a pure
function of (seed, e, i).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ornstein.errors import UserError
from ornstein.training.seeds import derive_seed
from ornstein_infrared import thermal
from ornstein_infrared.normalization import Normalization, PercentileLinear

Split = Literal["train", "val", "test"]
Item = dict[str, Any]

FOLDERS: dict[Split, tuple[str, ...]] = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def clean_files(root: Path, split: Split, valid: int = 20, test: int = 20) -> list[Path]:
    """The frame files of a split: ROOT/{train,val,test}, there in HR if there is such a folder; else ROOT by sorted
    name, of which the last `test` are for testing and the `valid` before them for validation (RoadScene: 181/20/20).

    Raises:
        UserError: no such folder, no frames, or fewer than the split needs.
    """
    folder = next((root / name for name in FOLDERS[split] if (root / name).is_dir()), None)
    if folder is None and (root / "train").is_dir():
        raise UserError(f"{root} has a folder train and none called {FOLDERS[split][0]}; add it")
    if folder is not None:
        return thermal.find(folder / "HR" if (folder / "HR").is_dir() else folder)
    files = thermal.find(root)
    if len(files) <= valid + test:
        raise UserError(f"{root} holds {len(files)} frames, {valid} + {test} are kept from training; lower them")
    ends = {"train": (0, -valid - test), "val": (-valid - test, -test), "test": (-test, None)}
    begin, end = ends[split]
    return files[slice(begin, end if end != 0 else None)]


class CleanFrames(Dataset[Item]):
    """Items of files.

    Args:
        files: the frames.
        normalization: brings their values to [-1, 1].
        crop: side of the square that is cut out; None for whole frames.
        flip: exchange left and right with probability 1/2.
        length: items of an epoch; default: the number of files.
        in_memory: keep the normalised frames, 4 bytes a pixel.
        seed: of everything random.

    Raises:
        UserError: settings below 1.
    """

    def __init__(
        self,
        files: Sequence[Path],
        *,
        normalization: Normalization = PercentileLinear(),  # noqa: B008  # frozen
        crop: int | None = None,
        flip: bool = False,
        length: int | None = None,
        in_memory: bool = False,
        seed: int = 0,
    ) -> None:
        if (crop is not None and crop < 1) or (length is not None and length < 1):
            raise UserError(f"crop {crop} and length {length} must be at least 1, or null")
        self.files, self.normalization, self.crop, self.flip = list(files), normalization, crop, flip
        self.length, self.seed, self.epoch = length or len(self.files), seed, 0
        self._kept = {path: self._read(path) for path in self.files} if in_memory else {}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose draws are made."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(index)
        path = self.files[index % len(self.files)]
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "item", self.epoch, index))
        frame = self._kept[path] if path in self._kept else self._read(path)
        if self.crop is not None:
            frame = frame[:, *cut(frame, path, self.crop, generator)]
        if self.flip and int(torch.randint(2, (), generator=generator)):
            frame = frame.flip(-1)
        return {"clean": frame.contiguous(), "name": path.stem}

    def _read(self, path: Path) -> Tensor:
        frame = thermal.read(path)
        return torch.from_numpy(self.normalization(frame.values, frame.mask).z)[None]


def cut(frame: Tensor, path: Path | str, crop: int, generator: torch.Generator) -> tuple[slice, slice]:
    """A random square of `crop` pixels in `frame` (..., H, W).

    Raises:
        UserError: the frame is smaller.
    """
    height, width = frame.shape[-2:]
    if min(height, width) < crop:
        raise UserError(f"{path} has {width} x {height} pixels, less than the crop of {crop}; lower data.crop")
    top, left = (int(torch.randint(side - crop + 1, (), generator=generator)) for side in (height, width))
    return slice(top, top + crop), slice(left, left + crop)
