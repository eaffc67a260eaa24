"""How near a restored frame is to the true one: levels, luma, spectra, temperatures, hot objects.

Frames are arrays or tensors (H, W) or (1, H, W); where nothing else is said in [0, 1]. x is the truth, xh the restored
frame. All is computed in float64.

PSNR of Y is PSNR of grey plus 20 log10(255 / 219) = 1.32 dB, because Y of three equal channels is 16 + 219 x and its
peak is taken as 255. Tables of infrared papers have PSNR of Y; both are reported here.
"""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ornstein.errors import UserError
from ornstein.pictures.likeness import Array, Picture, as_array, psnr, ssim_gaussian

if TYPE_CHECKING:
    from ornstein.pictures.lpips import Lpips
    from ornstein.spectrum import Comparison

Y_OFFSET = 20 * math.log10(255 / 219)
"""Decibels by which PSNR of Y is higher than that of grey."""

_SMALLEST_ERROR = 1e-8


def psnr_gray(truth: Picture, restored: Picture, peak: float = 1.0) -> float:
    """PSNR in dB of the values themselves; infinite for equal frames.

    Args:
        truth: (H, W).
        restored: of the same shape.
        peak: largest value: 1, 255, or the span of temperatures.
    """
    return psnr(*pair(truth, restored), peak=peak)


def psnr_y(truth: Picture, restored: Picture) -> float:
    """PSNR in dB of the studio luma: 10 log10(1 / (mse(Y / 255) + 1e-8)), at most 80 (pyiqa)."""
    x, xh = pair(truth, restored)
    return 10 * math.log10(1 / (float(np.mean((_luma(x) - _luma(xh)) ** 2)) / 255**2 + _SMALLEST_ERROR))


def ssim_gray(truth: Picture, restored: Picture) -> float:
    """SSIM (Wang et al. 2004) of levels of 255, not rounded: Gaussian window 11 x 11, sigma 1.5, whole windows only,
    negative contrast terms set to 0. NaN for a side below 11."""
    x, xh = pair(truth, restored)
    return ssim_gaussian(255 * x, 255 * xh, positive=True)


def ssim_y(truth: Picture, restored: Picture) -> float:
    """`ssim_gray` of the studio luma rounded to whole levels (pyiqa)."""
    x, xh = pair(truth, restored)
    return ssim_gaussian(np.rint(_luma(x)), np.rint(_luma(xh)), positive=True)


def spectrum_distance(
    truth: Picture, restored: Picture, comparison: "Comparison" = "amp_l2", cutoff: float | None = None
) -> float:
    """`ornstein.spectrum.SpectrumLoss` of the frames in [-1, 1], as in training: 0 for equal amplitudes."""
    import torch

    from ornstein.spectrum import SpectrumLoss

    x, xh = (torch.from_numpy(2 * frame - 1)[None, None] for frame in pair(truth, restored))
    return float(SpectrumLoss(comparison, cutoff)(xh, x))


def slope(frame: Picture) -> float:
    """`ornstein.spectrum.spectral_slope` of one frame."""
    import torch

    from ornstein.spectrum import spectral_slope

    return spectral_slope(torch.from_numpy(_plane(frame)))


class TemperatureError(NamedTuple):
    """Differences in kelvin (or degrees Celsius: the same)."""

    mean_absolute: float
    root_mean_square: float
    bias: float
    """Mean of restored minus true."""
    largest: float


def temperature_error(truth: Picture, restored: Picture, mask: npt.NDArray[np.bool_] | None = None) -> TemperatureError:
    """Errors of temperatures, without the pixels in `mask` (H, W).

    Raises:
        ValueError: shapes differ, or everything is masked.
    """
    x, xh = pair(truth, restored)
    difference = xh - x if mask is None else (xh - x)[~mask]
    if difference.size == 0:
        raise ValueError("all pixels are masked")
    size = np.abs(difference)
    return TemperatureError(
        float(size.mean()),
        float(np.sqrt(np.mean(difference**2))),
        float(difference.mean()),
        float(size.max()),
    )


class HotScore(NamedTuple):
    """How well hot objects are seen."""

    iou: float
    """Of the pixels above the threshold and those of the objects; NaN without objects."""
    recall: float
    """Share of the objects of which at least half the pixels are above the threshold; NaN without objects."""
    objects: int


def hot_objects(
    truth: Picture,
    restored: Picture,
    hot: npt.NDArray[np.bool_] | None = None,
    threshold: float | None = None,
) -> HotScore:
    """A detector without a network: what is warmer than a threshold.

    Args:
        truth: frame or temperatures (H, W).
        restored: of the same shape.
        hot: where the hot objects are, (H, W), as the simulator knows it; default: above `threshold` in the truth.
        threshold: in the unit of the frames; default: the one that finds `hot` best in the truth.

    Raises:
        UserError: neither `hot` nor `threshold`.
    """
    from scipy.ndimage import label

    x, xh = pair(truth, restored)
    if hot is None:
        if threshold is None:
            raise UserError("hot objects need a mask or a threshold; give one of them")
        hot = x > threshold
    if hot.shape != x.shape:
        raise ValueError(f"the mask has the shape {hot.shape} and the frames {x.shape}")
    if not hot.any():
        return HotScore(math.nan, math.nan, 0)
    found = xh > (_best_threshold(x, hot) if threshold is None else threshold)
    regions, count = label(hot, np.ones((3, 3)))
    seen = np.bincount(regions.ravel(), found.ravel(), count + 1)[1:] / np.bincount(regions.ravel())[1:]
    return HotScore(_iou(found, hot), float((seen >= 0.5).mean()), int(count))


def score(truth: Picture, restored: Picture, lpips: "Lpips | None" = None) -> dict[str, float]:
    """All measures of a frame in [0, 1] that need its reference, by name.

    `spectrum` is the distance of amplitudes, `slope_error` how much steeper the spectrum of the restored frame is
    (negative where it is too smooth); `lite0` and `lpips` of three equal channels: `ornstein.pictures.lite0` where its
    package is installed, LPIPS where its network is given.
    """
    from ornstein.pictures import lite0

    found = {
        "psnr_gray": psnr_gray(truth, restored),
        "psnr_y": psnr_y(truth, restored),
        "ssim_gray": ssim_gray(truth, restored),
        "ssim_y": ssim_y(truth, restored),
        "spectrum": spectrum_distance(truth, restored),
        "spectrum_log": spectrum_distance(truth, restored, "logamp_l2"),
        "slope_error": slope(restored) - slope(truth),
    }
    colours = three_channels(truth), three_channels(restored)
    if lite0.available():
        found["lite0"] = lite0.score(*colours)
    if lpips is not None:
        found["lpips"] = lpips.score(*colours)
    return found


def pair(truth: Picture, restored: Picture) -> tuple[Array, Array]:
    """Both frames as (H, W) in float64; raises ValueError if their shapes differ or a value is not finite."""
    x, xh = _plane(truth), _plane(restored)
    if x.shape != xh.shape or x.size == 0:
        raise ValueError(f"metrics need two frames of one size, not {x.shape} and {xh.shape}")
    if not (np.isfinite(x).all() and np.isfinite(xh).all()):
        raise ValueError("metrics need finite values")
    return x, xh


def three_channels(frame: Picture) -> npt.NDArray[np.float64]:
    """(3, H, W), for networks of colour pictures such as `ornstein.pictures.lpips.Lpips`."""
    return np.repeat(_plane(frame)[None], 3, axis=0)


def _plane(frame: Picture) -> Array:
    values = as_array(frame)
    values = values[0] if values.ndim == 3 and len(values) == 1 else values
    if values.ndim != 2:
        raise ValueError(f"a frame has the shape (H, W) or (1, H, W), not {values.shape}")
    return values


def _luma(frame: Array) -> Array:
    """Y' of BT.601 in studio range of three equal channels (65.481 + 128.553 + 24.966 = 219)."""
    return 16 + 219 * frame


def _best_threshold(x: Array, hot: npt.NDArray[np.bool_]) -> float:
    """Of the quantiles of the hot pixels, the one above which the mask is best met."""
    candidates = np.quantile(x[hot], np.linspace(0, 0.95, 96))
    return float(max(candidates, key=lambda level: _iou(x >= level, hot))) - 1e-12


def _iou(found: npt.NDArray[Any], hot: npt.NDArray[Any]) -> float:
    return float((found & hot).sum() / (found | hot).sum())
