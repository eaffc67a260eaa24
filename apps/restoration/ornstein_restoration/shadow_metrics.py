"""Scores of shadow removal by region, as they are computed on ISTD (Wang et al. 2018), and over the true region.

A region is the shadow, its complement, or all. The published PSNR and SSIM set everything outside the region to zero
and then average over the whole picture: the PSNR comes out too high by 10 log10(all pixels / pixels of the region) dB.
`psnr_region` and `ssim_region` average over the region alone.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ornstein.pictures.resizing import imresize, imresize_rounded
from ornstein_restoration.colour import White, lab
from ornstein_restoration.metrics import Array, Picture, pair, psnr, ssim_volume, ssim_volume_map

Mask = npt.NDArray[np.bool_]

REGIONS = ("all", "shadow", "nonshadow")


class RegionError(NamedTuple):
    """Sum of |dL*| + |da*| + |db*| over a region and the number of its pixels."""

    total: float
    pixels: int

    @property
    def mean(self) -> float:
        """The "MAE" (in some tables "RMSE") of one picture; NaN for an empty region."""
        return self.total / self.pixels if self.pixels else math.nan


def lab_errors(truth: Picture, restored: Picture, mask: Picture, white: White = "D50") -> dict[str, RegionError]:
    """|dL*| + |da*| + |db*| by region; `mask` (H, W) or (1, H, W) is shadow wherever it is not 0."""
    x, xh = pair(truth, restored)
    difference = np.abs(lab(x, white) - lab(xh, white)).sum(0)
    return {
        name: RegionError(float(difference[region].sum()), int(region.sum()))
        for name, region in _regions(mask, x).items()
    }


def psnr_zeroed(truth: Picture, restored: Picture, mask: Picture) -> dict[str, float]:
    """PSNR of RGB in dB by region: the rest set to 0 in both pictures, the mean over the whole picture."""
    x, xh = pair(truth, restored)
    return {name: psnr(x * region, xh * region) for name, region in _regions(mask, x).items()}


def psnr_region(truth: Picture, restored: Picture, mask: Picture) -> dict[str, float]:
    """PSNR of RGB in dB over the pixels of each region; NaN for an empty one."""
    x, xh = pair(truth, restored)
    return {name: psnr(x[:, region], xh[:, region]) for name, region in _regions(mask, x).items()}


def ssim_zeroed(truth: Picture, restored: Picture, mask: Picture) -> dict[str, float]:
    """`metrics.ssim_rgb_volume` by region: the rest set to 0 in both pictures, the mean over the whole picture."""
    x, xh = pair(truth, restored)
    return {name: ssim_volume(x * region, xh * region) for name, region in _regions(mask, x).items()}


def ssim_region(truth: Picture, restored: Picture, mask: Picture) -> dict[str, float]:
    """Mean of the map of `metrics.ssim_rgb_volume` over the pixels of each region; NaN for an empty one."""
    x, xh = pair(truth, restored)
    similarity = ssim_volume_map(x, xh)
    return {
        name: float(similarity[:, region].mean()) if region.any() else math.nan
        for name, region in _regions(mask, x).items()
    }


def istd(
    truth: Picture, restored: Picture, mask: Picture, size: tuple[int, int] | None = (256, 256)
) -> tuple[dict[str, float], dict[str, RegionError]]:
    """PSNR, SSIM and errors in L*a*b* of the ISTD protocol, by region.

    Args:
        truth: (3, H, W), rounded to 8 bits here, as the protocol reads files.
        restored: of the same shape, rounded likewise.
        mask: (H, W) or (1, H, W) in [0, 1]; shadow wherever it is not 0 after the resize.
        size: height and width that all are brought to by `imresize`; None keeps the size.

    PSNR and SSIM are those of pictures resized in floating point, the errors those of pictures resized in 8 bits.

    Returns:
        "psnr_REGION" and "ssim_REGION" (zeroed), and the `RegionError` of each region.
    """
    x, xh = (np.floor(255 * image.clip(0, 1) + 0.5) / 255 for image in pair(truth, restored))
    shadow = _mask(mask)
    if size is None:
        fine, coarse = (x, xh), (x, xh)
    else:
        fine = imresize(x, size=size), imresize(xh, size=size)
        coarse = imresize_rounded(x, size=size), imresize_rounded(xh, size=size)
        shadow = imresize_rounded(shadow, size=size)
    scores = {f"psnr_{name}": value for name, value in psnr_zeroed(*fine, shadow).items()}
    scores |= {f"ssim_{name}": value for name, value in ssim_zeroed(*fine, shadow).items()}
    return scores, lab_errors(*coarse, shadow)


def _mask(mask: Picture) -> Array:
    values = np.asarray(mask if isinstance(mask, np.ndarray) else mask.detach().cpu(), dtype=np.float64)
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"a mask has the shape (H, W) or (1, H, W) and finite values, not {values.shape}")
    return values


def _regions(mask: Picture, image: Array) -> dict[str, Mask]:
    shadow = _mask(mask) != 0
    if shadow.shape != image.shape[1:]:
        raise ValueError(f"the mask {shadow.shape} does not fit the picture {image.shape[1:]}")
    return dict(zip(REGIONS, (np.ones_like(shadow), shadow, ~shadow), strict=True))
