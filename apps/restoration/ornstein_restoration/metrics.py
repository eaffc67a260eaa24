"""How near a restored picture is to the true one: PSNR and SSIM, each convention under a name of its own.

Pictures are arrays or tensors (3, H, W) in [0, 1], sRGB; x is the truth, xh the restored picture. Y is the luma of
BT.601 in studio range. All is computed in float64. `ornstein_restoration.benchmarks` says who uses which.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from ornstein_restoration.colour import luma

if TYPE_CHECKING:
    from torch import Tensor

Picture: TypeAlias = "npt.NDArray[np.floating] | Tensor"
Array = npt.NDArray[np.float64]

GAUSSIAN_SIDE = 11
UNIFORM_SIDE = 7
"""Sides of the windows of SSIM; smaller pictures have none."""


def psnr_rgb(truth: Picture, restored: Picture, border: int = 0) -> float:
    """PSNR in dB over all values of the three channels, peak 1; infinite for equal pictures.

    Args:
        truth: (3, H, W).
        restored: of the same shape.
        border: pixels left out at each edge.
    """
    return psnr(*_pair(truth, restored, border), peak=1.0)


def psnr_rgb_rounded(truth: Picture, restored: Picture, border: int = 0) -> float:
    """`psnr_rgb` of the pictures as 8 bit files hold them (scikit-image on uint8)."""
    return psnr(*_pair(truth, restored, border, _bytes), peak=255.0)


def psnr_y(truth: Picture, restored: Picture, border: int = 0) -> float:
    """PSNR in dB of Y, not rounded, peak 255 although Y spans 16 to 235."""
    return psnr(*_pair(truth, restored, border, luma), peak=255.0)


def psnr_y_rounded(truth: Picture, restored: Picture, border: int = 0) -> float:
    """PSNR in dB of Y rounded to integers, of pictures rounded to 8 bits first (rgb2ycbcr of MATLAB on uint8)."""
    return psnr(*_pair(truth, restored, border, _rounded_luma), peak=255.0)


def psnr_y_capped(truth: Picture, restored: Picture, border: int = 0) -> float:
    """`psnr_y` with 1e-8 added to the mean square of Y/255, so 80 dB for equal pictures (pyiqa)."""
    x, xh = _pair(truth, restored, border, luma)
    return 10 * math.log10(1 / (float(np.mean((x - xh) ** 2)) / 255**2 + 1e-8))


def ssim_y(truth: Picture, restored: Picture, border: int = 0) -> float:
    """SSIM (Wang et al. 2004) of Y, not rounded: Gaussian window 11 x 11, sigma 1.5, whole windows only, L = 255.

    NaN for pictures with a side below 11.
    """
    return _ssim_gaussian(*_pair(truth, restored, border, luma))


def ssim_y_rounded(truth: Picture, restored: Picture, border: int = 0) -> float:
    """`ssim_y` of Y rounded to integers, of pictures that are rounded to 8 bits first (ssim_index.m on uint8)."""
    return _ssim_gaussian(*_pair(truth, restored, border, _rounded_luma))


def ssim_y_pyiqa(truth: Picture, restored: Picture, border: int = 0) -> float:
    """`ssim_y` with Y alone rounded, and negative contrast-structure terms set to 0 (pyiqa)."""
    return _ssim_gaussian(*_pair(truth, restored, border, lambda x: np.rint(luma(x))), positive=True)


def ssim_rgb_uniform(truth: Picture, restored: Picture, border: int = 0) -> float:
    """SSIM of pictures rounded to 8 bits, mean of three channels: window 7 x 7 of equal weights (scikit-image).

    Sample covariances, whole windows only. NaN for pictures with a side below 7.
    """
    from skimage.metrics import structural_similarity

    x, xh = _pair(truth, restored, border, _bytes)
    if min(x.shape[1:]) < UNIFORM_SIDE:
        return math.nan
    return float(structural_similarity(x, xh, channel_axis=0, data_range=255.0))


def ssim_rgb_volume(truth: Picture, restored: Picture, border: int = 0) -> float:
    """SSIM of the array H x W x 3 as a volume: a Gaussian of sigma 1.5 and radius 5 across the colours too, edges
    repeated (ssim of MATLAB given a colour picture).
    """
    return ssim_volume(*_pair(truth, restored, border))


def ssim_volume(x: Array, xh: Array) -> float:
    """`ssim_rgb_volume` of arrays that are checked already, of any number of dimensions."""
    return float(ssim_volume_map(x, xh).mean())


def ssim_volume_map(x: Array, xh: Array) -> Array:
    """The map, of the shape of `x`, whose mean is `ssim_volume`; L = 1."""
    from scipy.ndimage import gaussian_filter

    def smooth(values: Array) -> Array:
        return np.asarray(gaussian_filter(values, 1.5, mode="nearest", radius=5))

    return _similarity(x, xh, smooth, 1.0)


def pair(truth: Picture, restored: Picture) -> tuple[Array, Array]:
    """Both pictures as float64 arrays.

    Raises:
        ValueError: their shapes differ or are not (3, H, W), or a value is NaN or infinite.
    """
    x, xh = as_array(truth), as_array(restored)
    if x.shape != xh.shape or x.ndim != 3 or x.shape[0] != 3 or x.size == 0:
        raise ValueError(f"metrics need two pictures (3, H, W) of one size, not {x.shape} and {xh.shape}")
    if not (np.isfinite(x).all() and np.isfinite(xh).all()):
        raise ValueError("metrics need finite values")
    return x, xh


def _pair(
    truth: Picture, restored: Picture, border: int, change: Callable[[Array], Array] = lambda x: x
) -> tuple[Array, Array]:
    """Both pictures without their border, changed."""
    x, xh = pair(truth, restored)
    height, width = x.shape[1:]
    if not 0 <= 2 * border < min(height, width):
        raise ValueError(f"a border of {border} pixels leaves nothing of {height} x {width}")
    inside = (slice(None), slice(border, height - border), slice(border, width - border))
    return change(x[inside]), change(xh[inside])


def as_array(picture: Picture) -> Array:
    """A picture as a float64 array on the CPU."""
    if not isinstance(picture, np.ndarray):
        picture = picture.detach().cpu().numpy()
    return picture.astype(np.float64)


def _bytes(image: Array) -> Array:
    """Integers 0 to 255, halves rounded up as MATLAB does."""
    return np.floor(255 * image.clip(0, 1) + 0.5)


def _rounded_luma(image: Array) -> Array:
    return np.floor(luma(_bytes(image) / 255) + 0.5)


def psnr(x: Array, xh: Array, peak: float = 1.0) -> float:
    """PSNR in dB of two arrays, infinite if they are equal, NaN if they are empty."""
    error = float(np.mean((x - xh) ** 2)) if x.size else math.nan
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def _ssim_gaussian(x: Array, xh: Array, positive: bool = False) -> float:
    from scipy.ndimage import correlate1d

    if min(x.shape) < GAUSSIAN_SIDE:
        return math.nan
    radius = GAUSSIAN_SIDE // 2
    window = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def smooth(values: Array) -> Array:
        for axis in (0, 1):
            values = correlate1d(values, window, axis=axis)
        return values[radius:-radius, radius:-radius]

    return float(_similarity(x, xh, smooth, 255.0, positive).mean())


def _similarity(x: Array, xh: Array, smooth: Callable[[Array], Array], peak: float, positive: bool = False) -> Array:
    """The map of SSIM (Wang et al. 2004, eq. 13), K1 = 0.01, K2 = 0.03; `smooth` takes local means."""
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean, mean_h = smooth(x), smooth(xh)
    variances = smooth(x * x) + smooth(xh * xh) - mean**2 - mean_h**2
    structure = (2 * (smooth(x * xh) - mean * mean_h) + c2) / (variances + c2)
    if positive:
        structure = structure.clip(min=0)
    return (2 * mean * mean_h + c1) / (mean**2 + mean_h**2 + c1) * structure
