"""Values of a frame to the range [-1, 1] that networks work in, and exactly back; a picture for eyes.

The range comes from the measured frame alone, so that it is known when the result is made. Nothing here imports torch.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ornstein.errors import UserError
from ornstein_infrared.pixels import Mask

Array = npt.NDArray[np.floating[Any]]

CLIP = 1.5
"""Networks see values in [-1.5, 1.5]; what lies beyond is kept apart and comes back with the result."""

ROWS = 256
"""Rows of a frame that are worked on at once."""


@dataclass(frozen=True)
class Normalized:
    """A frame as a network sees it.

    Attributes:
        z: (H, W), float32 in [-1.5, 1.5]; 0 everywhere for a constant frame.
        low, high: the values of z = -1 and z = 1.
        excess: values minus those that `z` stands for, (H, W): hot and cold spots outside the range, and rounding.
    """

    z: npt.NDArray[np.float32]
    low: float
    high: float
    excess: Array

    @property
    def constant(self) -> bool:
        """Whether there is nothing to enhance: the result is the enlarged input (z = 0 comes back as that)."""
        return not self.high > self.low

    def values(self, z: npt.NDArray[np.floating[Any]]) -> Array:
        """What a result z (s H, s W) stands for, with the excess enlarged to its size; the identity loses nothing.

        Raises:
            ValueError: the sides are not the same multiple of those of the frame.
        """
        factor, rest = divmod(z.shape[0], self.z.shape[0])
        if rest or factor < 1 or z.shape != tuple(factor * side for side in self.z.shape):
            raise ValueError(f"a result of the size {z.shape} for a frame of {self.z.shape}; one factor for both sides")
        if self.constant:
            return self._enlarged(self.low + self.excess, factor)
        found = self._enlarged(self.excess, factor)
        for rows in strips(z.shape[0]):
            found[rows] += _value(z[rows], self.low, self.high)
        return found

    def _enlarged(self, values: Array, factor: int) -> Array:
        """By Pillow's bicubic filter; without it nothing is rounded to float32."""
        if factor == 1:
            return values.copy()
        from PIL import Image

        height, width = values.shape
        middle = float(values.mean())  # float32 is finer around 0
        source = Image.fromarray((values - middle).astype(np.float32))
        found = np.empty((factor * height, factor * width))
        for rows in strips(height):  # several copies of a large result would fill the memory
            size, box = (factor * width, factor * (rows.stop - rows.start)), (0, rows.start, width, rows.stop)
            part = source.resize(size, Image.Resampling.BICUBIC, box)
            found[factor * rows.start : factor * rows.stop] = np.asarray(part, np.float64) + middle
        return found


class Normalization(Protocol):
    """Chooses the range of a frame."""

    def __call__(self, values: Array, mask: Mask | None = None) -> Normalized: ...


@dataclass(frozen=True)
class PercentileLinear:
    """z = 2 (v - lo) / (hi - lo) - 1 with lo and hi robust percentiles of the measured frame."""

    low: float = 0.1
    high: float = 99.9

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 100:
            raise UserError(f"the percentiles {self.low} and {self.high} are no range; give two between 0 and 100")

    def __call__(self, values: Array, mask: Mask | None = None) -> Normalized:
        """Normalise (H, W); masked pixels do not count for the range."""
        known = values if mask is None else values[~mask]
        low, high = np.percentile(known.astype(np.float64), (self.low, self.high))
        return normalize(values, float(low), float(high))


@dataclass(frozen=True)
class FixedRange:
    """The same range for all frames: of a video, or to compare temperatures. 0 to 255 for processed pictures."""

    low: float = 0.0
    high: float = 255.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UserError(f"the range from {self.low} to {self.high} is empty; give the lower value first")

    def __call__(self, values: Array, mask: Mask | None = None) -> Normalized:
        """Normalise (H, W)."""
        known = values if mask is None else values[~mask]
        level = float(known.flat[0]) if known.size else self.low
        if (known == level).all():  # what is constant stays so, whatever a network would make of it
            return normalize(values, level, level)
        return normalize(values, self.low, self.high)


def strips(height: int) -> list[slice]:
    """The rows of an array, some at a time."""
    return [slice(top, min(top + ROWS, height)) for top in range(0, height, ROWS)]


def normalize(values: Array, low: float, high: float) -> Normalized:
    """`values` (H, W) with z = -1 for `low` and 1 for `high`."""
    exact = values.astype(np.float64)
    if not high > low:
        return Normalized(np.zeros(values.shape, np.float32), low, low, exact - low)
    z = (2 * (exact - low) / (high - low) - 1).clip(-CLIP, CLIP).astype(np.float32)
    return Normalized(z, low, high, exact - _value(z, low, high))


def plateau(values: Array, limit: float = 0.01, bins: int = 1024, mask: Mask | None = None) -> npt.NDArray[np.uint8]:
    """A picture with 8 bits for eyes: equalisation of the histogram whose bins are cut at a plateau (plateau AGC).

    It keeps no temperatures and cannot be undone: for previews only.

    Args:
        values: (H, W).
        limit: most that a bin counts, as a share of all pixels; 1 is plain equalisation, towards 0 linear.
        bins: of the histogram, from the smallest to the largest value.
        mask: pixels that do not count.
    """
    if not 0 < limit <= 1 or bins < 2:
        raise UserError(f"a plateau of {limit} with {bins} bins; give a share above 0 and up to 1, and at least 2 bins")
    known = values if mask is None else values[~mask]
    low, high = float(known.min()), float(known.max())
    if not high > low:
        return np.full(values.shape, 128, np.uint8)
    counts, edges = np.histogram(known, bins, (low, high))
    cut = np.minimum(counts, max(1.0, limit * known.size))
    rising = np.concatenate([[0.0], np.cumsum(cut)])
    return np.asarray(np.rint(255 * np.interp(values, edges, rising / rising[-1])), np.uint8)


def _value(z: npt.NDArray[np.floating[Any]], low: float, high: float) -> Array:
    return low + (z.astype(np.float64) + 1) * ((high - low) / 2)
