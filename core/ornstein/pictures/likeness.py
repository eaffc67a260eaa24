"""How near two pictures are, the parts that apps build their measures of: PSNR, the map of SSIM, the luma.

Everything is computed in float64.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Picture: TypeAlias = "npt.NDArray[np.floating] | Tensor"
Array = npt.NDArray[np.float64]

GAUSSIAN_SIDE = 11
"""Side of the Gaussian window of SSIM; smaller pictures have none."""


def as_array(picture: Picture) -> Array:
    """A picture as a float64 array on the CPU."""
    if not isinstance(picture, np.ndarray):
        picture = picture.detach().cpu().numpy()
    return picture.astype(np.float64)


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


def luma(image: npt.NDArray[np.floating]) -> Array:
    """Y' (H, W) of BT.601 in studio range: 16 for black, 235 for white, not rounded (rgb2ycbcr of MATLAB)."""
    return 16 + np.tensordot([65.481, 128.553, 24.966], image.astype(np.float64), axes=1)


def psnr(x: Array, xh: Array, peak: float = 1.0) -> float:
    """PSNR in dB of two arrays, infinite if they are equal, NaN if they are empty."""
    error = float(np.mean((x - xh) ** 2)) if x.size else math.nan
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def ssim_gaussian(x: Array, xh: Array, positive: bool = False) -> float:
    """SSIM (Wang et al. 2004) of levels (H, W): Gaussian window 11 x 11, sigma 1.5, whole windows only, L = 255.

    NaN for a side below 11. `positive` sets negative contrast-structure terms to 0 (pyiqa).
    """
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

    return float(similarity(x, xh, smooth, 255.0, positive).mean())


def similarity(x: Array, xh: Array, smooth: Callable[[Array], Array], peak: float, positive: bool = False) -> Array:
    """The map of SSIM (Wang et al. 2004, eq. 13), K1 = 0.01, K2 = 0.03; `smooth` takes local means."""
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean, mean_h = smooth(x), smooth(xh)
    variances = smooth(x * x) + smooth(xh * xh) - mean**2 - mean_h**2
    structure = (2 * (smooth(x * xh) - mean * mean_h) + c2) / (variances + c2)
    if positive:
        structure = structure.clip(min=0)
    return (2 * mean * mean_h + c1) / (mean**2 + mean_h**2 + c1) * structure
