"""How near a restored picture is to the true one: PSNR and SSIM, each convention under a name of its own.

Pictures are arrays or tensors (3, H, W) in [0, 1], sRGB; x is the truth, xh the restored picture. Y is the luma of
BT.601 in studio range. All is computed in float64. `ornstein_restoration.benchmarks` says who uses which.
"""

import math
from collections.abc import Callable

import numpy as np

from ornstein.pictures.likeness import Array, Picture, luma, pair, psnr, similarity, ssim_gaussian

UNIFORM_SIDE = 7
"""Side of the window of `ssim_rgb_uniform`; smaller pictures have none."""


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
    return ssim_gaussian(*_pair(truth, restored, border, luma))


def ssim_y_rounded(truth: Picture, restored: Picture, border: int = 0) -> float:
    """`ssim_y` of Y rounded to integers, of pictures that are rounded to 8 bits first (ssim_index.m on uint8)."""
    return ssim_gaussian(*_pair(truth, restored, border, _rounded_luma))


def ssim_y_pyiqa(truth: Picture, restored: Picture, border: int = 0) -> float:
    """`ssim_y` with Y alone rounded, and negative contrast-structure terms set to 0 (pyiqa)."""
    return ssim_gaussian(*_pair(truth, restored, border, lambda x: np.rint(luma(x))), positive=True)


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

    return similarity(x, xh, smooth, 1.0)


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


def _bytes(image: Array) -> Array:
    """Integers 0 to 255, halves rounded up as MATLAB does."""
    return np.floor(255 * image.clip(0, 1) + 0.5)


def _rounded_luma(image: Array) -> Array:
    return np.floor(luma(_bytes(image) / 255) + 0.5)
