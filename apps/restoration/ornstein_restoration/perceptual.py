"""Perceptual measures. LPIPS needs the weights of a network that no package holds; the others need nothing, or what a
package holds.

Pictures are arrays or tensors (3, H, W) in [0, 1], sRGB; x is the truth, xh the restored picture. Values outside are
clipped.
"""

import math
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein.objectives.pictures import LPIPS, PUBLISHED
from ornstein_restoration.metrics import Picture, pair

Backbone: TypeAlias = Literal["alex", "vgg"]

_MS_SSIM_SIDE, _VIF_SIDE, _HAARPSI_SIDE = 161, 41, 16


class Lpips(nn.Module):
    """`ornstein.objectives.pictures.LPIPS` (version 0.1, Zhang et al. 2018) of pictures in [0, 1], and as a score.

    Args:
        weights: state dict of torchvision's AlexNet or VGG-16, `.pth` or `.safetensors`.
        net: which of the two; UPSR and LOL tables use "alex", the training of UPSR "vgg".

    Raises:
        UserError: no file, the package lpips is missing, or the file holds another network.
    """

    def __init__(self, weights: str | Path | None, net: Backbone = "alex") -> None:
        super().__init__()
        if weights is None:
            raise UserError(f"LPIPS needs {PUBLISHED[net]} of torchvision, and downloads nothing: give its path")
        self.model = LPIPS(Path(weights), net)

    def forward(self, truth: Tensor, restored: Tensor) -> Tensor:
        """Distance (B,) of pictures (B, 3, H, W) in [0, 1]; they are brought to [-1, 1] here."""
        return self.model(2 * truth - 1, 2 * restored - 1)

    def score(self, truth: Picture, restored: Picture) -> float:
        """Distance of two pictures (3, H, W); NaN where a side is too small for the network."""
        x, xh = _batches(truth, restored)
        if min(x.shape[-2:]) < 32:
            return math.nan
        parameter = next(self.parameters())
        with torch.no_grad():
            return float(self(x.to(parameter.device), xh.to(parameter.device)))


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
