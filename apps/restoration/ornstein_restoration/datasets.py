"""Degraded and clean pictures as map-style datasets.

An item is {"lq": (3, h, w), "gt": (3, H, W), "mask": (1, H, W), "name": str}, float32 in [0, 1], H = scale h; without
"mask" where there is none, without "gt" where there is no reference, and with "draws", the state of its generator, in
the place of "lq" where that is made later. Whatever is random in item i of epoch e is a pure
function of (seed, e, i): neither the number of workers nor the order of access changes it.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor
from torch.utils.data import Dataset

from ornstein.errors import UserError
from ornstein.pictures.crops import Augmentation, augmented, check_settings, cropped
from ornstein.training.seeds import item_generator
from ornstein_restoration import images
from ornstein_restoration.degradations import Degradation
from ornstein_restoration.layouts import Pair

Item = dict[str, Any]


def read_pixels(path: Path) -> Tensor:
    """The picture in a file, (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images.read(path).pixels))


def read_mask(path: Path) -> Tensor:
    """The mask in a picture file as grey levels (1, H, W) in [0, 1]; of coloured ones the brightest channel counts."""
    return read_pixels(path).amax(0, keepdim=True)


class Pictures(Dataset[Item]):
    """Items of pairs of files, or of clean files and a degradation.

    Args:
        pairs: the files; see `ornstein_restoration.layouts`.
        degradation: makes the degraded picture, after cropping, where the pairs have none.
        crop: side of the square that is cut out of the clean picture; None for whole pictures.
        crop_at: `random`, or `centre`, for validation.
        augment: `flip`: left and right exchanged with probability 1/2 (the code of RDDM always exchanges them, so that
            its networks never see a picture as it is); `flip_rotate`: one of the eight symmetries of a square.
        scale: clean sides over degraded ones.
        fit: pictures are shrunk to this long side, and sides changed to multiples of 16 (Raindrop as published: 1024).
        resize: pictures are made squares of this side, instead of cropping (RDDM as published: 256).
        length: items of an epoch; default: the number of pairs.
        epochs: whether random draws change from epoch to epoch; false for validation.
        in_memory: keep decoded pictures, in 8 bits: for sets of small files.
        later: leave the degradation to whoever takes the batch.
        seed: of everything random.

    Raises:
        UserError: settings that do not fit together.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        degradation: Degradation | None = None,
        crop: int | None = None,
        crop_at: Literal["random", "centre"] = "random",
        augment: Augmentation = "none",
        scale: int = 1,
        fit: int | None = None,
        resize: int | None = None,
        length: int | None = None,
        epochs: bool = True,
        in_memory: bool = False,
        later: bool = False,
        seed: int = 0,
    ) -> None:
        check_settings(augment, crop, scale, degradation)
        if (length is not None and length < 1) or (fit is not None and fit < 16) or (resize is not None and resize < 1):
            raise UserError(f"length {length}, fit {fit} and resize {resize} must be at least 1, 16 and 1, or null")
        if scale != 1 and (fit is not None or resize is not None):
            raise UserError("fit and resize are for pictures of one size; leave them out for super-resolution")
        for pair in pairs:
            if pair.lq is None and degradation is None:
                raise UserError(f"{pair.gt} has no degraded partner; name a degradation")
        self.pairs, self.degradation, self.crop, self.crop_at = list(pairs), degradation, crop, crop_at
        self.augment, self.scale, self.fit, self.resize = augment, scale, fit, resize
        self.length, self.epochs, self.seed, self.epoch = length or len(self.pairs), epochs, seed, 0
        self.later = later
        self._kept: dict[Path, Tensor] = {}
        if in_memory:  # before the loading processes are forked, which then share it
            for pair in self.pairs:
                for path in (pair.lq, pair.gt):
                    if path is not None:
                        self._kept[path] = (read_pixels(path) * 255).round().byte()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose draws are made."""
        self.epoch = epoch if self.epochs else 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(index)
        pair = self.pairs[index % len(self.pairs)]
        generator = item_generator(self.seed, self.epoch, index)
        signals = self._read(pair)
        if self.crop is not None:
            place = generator if self.crop_at == "random" else None
            signals = cropped(signals, self.crop, self.scale, place, pair.gt or pair.lq)
        signals = augmented(signals, self.augment, generator)
        if "lq" not in signals:
            signals |= self._degraded(signals["gt"], generator)
        return {**{name: signal.contiguous() for name, signal in signals.items()}, "name": pair.name}

    def _read(self, pair: Pair) -> dict[str, Tensor]:
        """lq, gt and mask at the size they are used at; raises UserError if they do not fit together."""
        signals = {}
        for name, path in (("lq", pair.lq), ("gt", pair.gt)):
            if path is not None:
                signals[name] = self._resized(self._pixels(path))
        if pair.mask is not None:
            signals["mask"] = self._resized(read_mask(pair.mask)).clamp(0, 1)
        if "lq" in signals and "gt" in signals:
            small, large = signals["lq"].shape[-2:], signals["gt"].shape[-2:]
            if tuple(self.scale * side for side in small) != tuple(large):
                raise UserError(
                    f"{pair.lq} has {_size(signals['lq'])} and {pair.gt} {_size(signals['gt'])} pixels; "
                    f"with scale {self.scale} their sides must differ by that factor"
                )
        if "mask" in signals:
            partner = signals["gt"] if "gt" in signals else signals["lq"]
            if signals["mask"].shape[-2:] != partner.shape[-2:]:
                raise UserError(
                    f"the mask {pair.mask} has {_size(signals['mask'])} pixels and its picture {_size(partner)}; "
                    "make them equal"
                )
        return signals

    def _pixels(self, path: Path) -> Tensor:
        kept = self._kept.get(path)
        return read_pixels(path) if kept is None else kept.float() / 255

    def _resized(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        if self.resize is not None:
            return resized(picture, self.resize, self.resize)
        if self.fit is None:
            return picture
        shrink = min(1.0, self.fit / max(height, width))
        sides = (16 * math.ceil(round(side * shrink, 6) / 16) for side in (height, width))
        return resized(picture, *sides)

    def _degraded(self, clean: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        assert self.degradation is not None
        height, width = (side - side % self.scale for side in clean.shape[-2:])
        clean = clean[:, :height, :width].contiguous()
        if self.later:
            return {"gt": clean, "draws": generator.get_state()}
        degraded = self.degradation(clean, generator)
        made = {"gt": clean, "lq": degraded.image}
        return made if degraded.mask is None else made | {"mask": degraded.mask}


def resized(picture: Tensor, height: int, width: int) -> Tensor:
    """`picture` (C, h, w) by Pillow's bicubic filter, which widens as it shrinks, (C, height, width)."""
    if picture.shape[-2:] == (height, width):
        return picture
    channels = [
        np.asarray(Pillow.fromarray(channel).resize((width, height), Pillow.Resampling.BICUBIC))
        for channel in picture.numpy()
    ]
    return torch.from_numpy(np.stack(channels)).clamp(0, 1)


def _size(picture: Tensor) -> str:
    return f"{picture.shape[-1]} x {picture.shape[-2]}"
