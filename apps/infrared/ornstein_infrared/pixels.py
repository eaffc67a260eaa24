"""Pixels that measure nothing: which they are, and what stands in for them while a network looks at the frame."""

from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

_SPREAD = 0.05
_NOISE = 20.0
_ROWS = 256
_NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def dead_pixels(values: npt.NDArray[Any]) -> Mask:
    """Pixels (H, W) that no lens can have made: far from their neighbours, which do not see anything of it.

    A point behind optics with a spread of half a pixel makes its neighbours differ by 12 % of its height, a spot of one
    pixel in a frame that was shrunk by a cubic by 7 %. A pixel is dead if it is off by more than 20 times the noise and
    its eight neighbours differ by less than 5 % of that. The noise is estimated by the median step between neighbours.
    Pairs of dead pixels are not found.
    """
    x = np.pad(values.astype(np.float64), 1, mode="reflect")
    height, width = values.shape
    step = np.median(np.abs(np.diff(x, axis=1)))
    floor = max(float(step), float(np.finfo(np.float32).eps * np.abs(x).max()), _quantum(values))
    found = np.zeros(values.shape, bool)
    for top in range(0, height, _ROWS):  # eight copies of a large frame would fill the memory
        rows = min(_ROWS, height - top)
        around = np.stack([x[1 + top + dy :][:rows, 1 + dx : 1 + dx + width] for dy, dx in _NEIGHBOURS])
        off = np.abs(values[top : top + rows] - np.median(around, axis=0))
        found[top : top + rows] = (off > _NOISE * floor) & (np.ptp(around, axis=0) < _SPREAD * off)
    return found


def fill(values: npt.NDArray[Any], mask: Mask) -> npt.NDArray[Any]:
    """`values` (H, W) with the median of the known neighbours in masked places, from their rim inwards.

    Raises:
        ValueError: nothing is known.
    """
    if mask.all():
        raise ValueError("all pixels are masked")
    filled, unknown = values.astype(np.float64), mask.copy()
    filled[mask] = np.nan
    while unknown.any():
        x = np.pad(filled, 1, constant_values=np.nan)
        rows, columns = np.nonzero(unknown)
        around = np.stack([x[rows + 1 + dy, columns + 1 + dx] for dy, dx in _NEIGHBOURS])
        reached = ~np.isnan(around).all(axis=0)
        rows, columns = rows[reached], columns[reached]
        filled[rows, columns] = np.nanmedian(around[:, reached], axis=0)
        unknown[rows, columns] = False
    return (np.rint(filled) if np.issubdtype(values.dtype, np.integer) else filled).astype(values.dtype)


def enlarged(values: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """`values` (h, w) repeated to `size`, the nearest pixel in each place."""
    rows, columns = (np.arange(to) * of // to for to, of in zip(size, values.shape, strict=True))
    return values[rows[:, None], columns]


def _quantum(values: npt.NDArray[Any]) -> float:
    """The step of integers, which may be all the noise there is."""
    return 1.0 if np.issubdtype(values.dtype, np.integer) else 0.0
