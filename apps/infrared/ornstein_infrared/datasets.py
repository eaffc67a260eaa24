"""Measured and true frames as map-style datasets.

An item is {"lq": (1, h, w), "gt": (1, H, W), "name": str, "index": int, "low": float, "high": float}, float32, H =
scale h; 0 and 1 stand for the values low and high, in the unit of the file. Whatever is random in item i of epoch e is
a pure function of (seed, e, i): neither the number of workers nor the order of access changes it.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ornstein.errors import UserError
from ornstein.pictures.crops import Augmentation, augmented, check_settings, cropped
from ornstein.pictures.degraded import Degradation
from ornstein.training.seeds import item_generator
from ornstein_infrared import thermal
from ornstein_infrared.degradations.bicubic import shrink
from ornstein_infrared.layouts import Pair
from ornstein_infrared.normalization import FixedRange, Normalization, PercentileLinear

Item = dict[str, Any]
Signals = tuple[dict[str, Tensor], tuple[float, float]]
"""Whole frames, and what 0 and 1 stand for."""


def usual_range(frame: thermal.Frame) -> Normalization:
    """0 to 255 for levels, robust percentiles for everything else."""
    return FixedRange() if frame.unit == "levels" else PercentileLinear()


def measured(
    large: thermal.Frame,
    scale: int,
    degradation: Degradation | None,
    normalization: Normalization | None,
    generator: torch.Generator,
) -> thermal.Frame:
    """The frame that a camera with fewer pixels would have measured, in the unit of `large`.

    Args:
        large: its sides are cut to multiples of the scale.
        scale: factor.
        degradation: works on the range of `large`, cut to [0, 1]; None: Pillow's bicubic filter of the stored values.
        normalization: of that range; None: `usual_range`.
        generator: of the degradation.
    """
    height, width = (side - side % scale for side in large.size)
    values = large.values[:height, :width]
    if degradation is None:
        small = shrink(values.astype(np.uint8) if large.dtype == np.uint8 else values, scale)
    else:
        span = (normalization or usual_range(large))(values)
        clean = _tensor(values, span.low, span.high).clamp(0, 1)
        small = span.low + (span.high - span.low) * degradation(clean, generator).image[0].double().numpy()
    return thermal.Frame(small.astype(np.float32), large.dtype, large.scale)


class Frames(Dataset[Item]):
    """Items of pairs of files, or of large frames and a degradation.

    Args:
        pairs: the files; see `ornstein_infrared.layouts`.
        degradation: makes the measured frame where the pairs have none, of the crop, which then has the range of the
            whole frame shrunk; of whole frames as `measured` does. None: Pillow's bicubic filter of the stored values.
        scale: large sides over small ones.
        crop: side of the square that is cut out of the large frame; None for whole frames.
        crop_at: `random`, or `centre`, for validation.
        augment: `flip`: left and right exchanged with probability 1/2; `flip_rotate`: one of the eight symmetries.
        normalization: the range of a frame, always from the measured one; default: `usual_range`.
        length: items of an epoch; default: the number of pairs.
        epochs: whether random draws change from epoch to epoch; false for validation.
        in_memory: keep whole frames as float32, for small sets; not those that a degradation makes anew each time.
        seed: of everything random.

    Raises:
        UserError: settings that do not fit together; on access, files that do not.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        degradation: Degradation | None = None,
        scale: int = 4,
        crop: int | None = None,
        crop_at: Literal["random", "centre"] = "random",
        augment: Augmentation = "none",
        normalization: Normalization | None = None,
        length: int | None = None,
        epochs: bool = True,
        in_memory: bool = False,
        seed: int = 0,
    ) -> None:
        check_settings(augment, crop, scale, degradation)
        if length is not None and length < 1:
            raise UserError(f"an epoch of {length} items; give at least 1, or null")
        self.pairs, self.degradation, self.scale, self.crop, self.crop_at = (
            list(pairs),
            degradation,
            scale,
            crop,
            crop_at,
        )
        self.augment, self.normalization, self.seed, self.epoch = augment, normalization, seed, 0
        self.length, self.epochs = length or len(self.pairs), epochs
        self._kept: dict[Pair, Signals] = {}
        if in_memory:  # before the loading processes are forked, which then share it
            self._kept = {pair: self._read(pair) for pair in self.pairs if not self._is_degraded_whole(pair)}

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
        if self._is_degraded_whole(pair):
            large = thermal.read(pair.gt)
            made = measured(large, self.scale, self.degradation, self.normalization, generator)
            signals, limits = self._normalized(made, large)
        else:
            signals, limits = self._kept[pair] if pair in self._kept else self._read(pair)
        if self.crop is not None:
            place = generator if self.crop_at == "random" else None
            signals = cropped(signals, self.crop, self.scale, place, pair.gt)
        signals = augmented(signals, self.augment, generator)
        if "lq" not in signals:
            assert self.degradation is not None
            signals["lq"] = self.degradation(signals["gt"].clamp(0, 1).contiguous(), generator).image
        frames = {name: signal.contiguous() for name, signal in signals.items()}
        return {**frames, "name": pair.name, "index": index, "low": limits[0], "high": limits[1]}

    def _is_degraded_whole(self, pair: Pair) -> bool:
        """As an evaluation does it, so that validation gives its scores."""
        return pair.lq is None and self.degradation is not None and self.crop is None

    def _read(self, pair: Pair) -> Signals:
        """gt and, unless it is made of crops, lq, both in the range of the measured one."""
        large = thermal.read(pair.gt)
        if pair.lq is None:
            signals, limits = self._normalized(measured(large, self.scale, None, None, torch.Generator()), large)
            return (signals if self.degradation is None else {"gt": signals["gt"]}), limits
        small = thermal.read(pair.lq)
        if tuple(self.scale * side for side in small.size) != large.size:
            raise UserError(
                f"{pair.lq} has {_size(small)} and {pair.gt} {_size(large)} pixels; "
                f"with scale {self.scale} their sides must differ by that factor"
            )
        if small.unit != large.unit:
            raise UserError(f"{pair.lq} holds {small.unit} and {pair.gt} {large.unit}; give both in one unit")
        return self._normalized(small, large)

    def _normalized(self, small: thermal.Frame, large: thermal.Frame) -> Signals:
        found = (self.normalization or usual_range(small))(small.values, small.mask)
        height, width = (self.scale * side for side in small.size)
        frames = {"lq": small.values, "gt": large.values[:height, :width]}
        tensors = {name: _tensor(values, found.low, found.high) for name, values in frames.items()}
        return tensors, (found.low, found.high)


def _tensor(values: thermal.Array, low: float, high: float) -> Tensor:
    """(1, H, W) with 0 for `low` and 1 for `high`; 1/2 where there is no range. Exact for levels."""
    exact = values.astype(np.float64)
    scaled = (exact - low) / (high - low) if high > low else np.full(exact.shape, 0.5)
    return torch.from_numpy(scaled.clip(-0.25, 1.25).astype(np.float32))[None]


def _size(frame: thermal.Frame) -> str:
    return f"{frame.size[1]} x {frame.size[0]}"
