"""Means over the files of a test set with confidence intervals, and comparisons file by file."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """Mean over files, half-width of its confidence interval, standard deviation and number of files without NaN."""

    mean: float
    half_width: float
    std: float
    files: int

    def __str__(self) -> str:
        if self.files == 0:
            return "n/a"
        places = _places(self.mean)
        if self.files == 1:
            return f"{self.mean:.{places}f}"
        return f"{self.mean:.{places}f} ± {self.half_width:.{places}f}"


class Difference(NamedTuple):
    """Mean of paired differences and the ends of its confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        places = _places(*self)
        return f"{self.mean:+.{places}f} [{self.low:+.{places}f}, {self.high:+.{places}f}]"


def _places(*values: float) -> int:
    """Digits behind the point: 3, and more, up to 6, where the largest of `values` is below 0.01: it has 3 then."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 3 if largest >= 0.01 or largest < 5e-7 else min(6, 2 - math.floor(math.log10(largest)))


def interval(values: Iterable[float], level: float = 0.95) -> Interval:
    """Mean of `values` over files with Student's t confidence interval at `level`; NaN values are left out."""
    from scipy.stats import t

    kept = np.array([v for v in values if not math.isnan(v)], dtype=np.float64)
    if len(kept) == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    if len(kept) == 1:
        return Interval(float(kept[0]), math.nan, math.nan, 1)
    std = float(kept.std(ddof=1))
    half = float(t.ppf((1 + level) / 2, len(kept) - 1)) * std / math.sqrt(len(kept))
    return Interval(float(kept.mean()), half, std, len(kept))


def paired(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Difference:
    """Mean of `first` - `second` over files, with its bias-corrected and accelerated bootstrap interval (Efron 1987).

    Files where one of the two is NaN or infinite are left out; fewer than two files give NaN for the interval.

    Raises:
        ValueError: not the same number of files.
    """
    from scipy.stats import bootstrap

    differences = np.subtract(first, second, dtype=np.float64) if len(first) == len(second) else None
    if differences is None:
        raise ValueError(f"{len(first)} and {len(second)} files cannot be compared in pairs")
    differences = differences[np.isfinite(differences)]
    if len(differences) < 2:
        mean = float(differences[0]) if len(differences) else math.nan
        return Difference(mean, math.nan, math.nan)
    mean = float(differences.mean())
    if np.ptp(differences) == 0:  # one and the same: resampling gives nothing else
        return Difference(mean, mean, mean)
    found = bootstrap((differences,), np.mean, confidence_level=level, rng=np.random.default_rng(0))
    return Difference(mean, float(found.confidence_interval.low), float(found.confidence_interval.high))


def finite_gains(values: Mapping[int, float], start: Mapping[int, float]) -> dict[int, float]:
    """`values` - `start` by file index; files where one of the two is missing or not finite are left out."""
    found = {index: values[index] - start[index] for index in sorted(values) if index in start}
    return {index: gain for index, gain in found.items() if math.isfinite(gain)}


def extremes(gains: Mapping[int, float]) -> dict[int, str]:
    """The files of the smallest, the middle and the largest gain by index, as "worst", "median" and "best"."""
    order = sorted(gains, key=lambda index: gains[index])
    found: dict[int, str] = {}
    for place, word in ((0, "worst"), (len(order) // 2, "median"), (len(order) - 1, "best")) if order else ():
        found.setdefault(order[place], word)
    return found
