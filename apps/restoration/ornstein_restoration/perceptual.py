"""Perceptual measures that need nothing but a package; LPIPS is in `ornstein.pictures.lpips`.

Pictures are arrays or tensors (3, H, W) in [0, 1], sRGB; x is the truth, xh the restored picture. Values outside are
clipped.
"""

import math

import torch
from torch import Tensor

from ornstein.pictures.likeness import Picture, pair

_MS_SSIM_SIDE, _VIF_SIDE, _HAARPSI_SIDE = 161, 41, 16


def ms_ssim_rgb(truth: Picture, restored: Picture) -> float:
    """Multi-scale SSIM (Wang et al. 2003) of RGB, five scales, by piq; NaN for a side below 161."""
    import piq

    x, xh = _batches(truth, restored)
    return float(piq.multi_scale_ssim(xh, x, data_range=1.0)) if min(x.shape[-2:]) >= _MS_SSIM_SIDE else math.nan


def gmsd(truth: Picture, restored: Picture) -> float:
    """Gradient magnitude similarity deviation (Xue et al. 2014), by piq: 0 for equal pictures, lower is better."""
    import piq

    x, xh = _batches(truth, restored)
    return float(piq.gmsd(xh, x, data_range=1.0))


def haarpsi(truth: Picture, restored: Picture) -> float:
    """Haar wavelet perceptual similarity (Reisenhofer et al. 2018), by piq: up to 1; NaN for a side below 16."""
    import piq

    x, xh = _batches(truth, restored)
    return float(piq.haarpsi(xh, x, data_range=1.0)) if min(x.shape[-2:]) >= _HAARPSI_SIDE else math.nan


def vif_pixel(truth: Picture, restored: Picture) -> float:
    """Visual information fidelity in the pixel domain (Sheikh & Bovik 2006), by piq; NaN for a side below 41."""
    import piq

    x, xh = _batches(truth, restored)
    return float(piq.vif_p(xh, x, data_range=1.0)) if min(x.shape[-2:]) >= _VIF_SIDE else math.nan


def _batches(truth: Picture, restored: Picture) -> tuple[Tensor, Tensor]:
    """As batches of one, in float32: convolutions in float64 are slow."""
    x, xh = (torch.from_numpy(image).float().clamp(0, 1)[None] for image in pair(truth, restored))
    return x, xh
