"""Perceptual measures. LPIPS needs the weights of a network that no package holds; the others need nothing, or what a
package holds.

Pictures are arrays or tensors (3, H, W) in [0, 1], sRGB; x is the truth, xh the restored picture. Values outside are
clipped.
"""

import math
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein_restoration.metrics import Picture, pair

Backbone: TypeAlias = Literal["alex", "vgg"]

_PUBLISHED = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
"""The files of torchvision that LPIPS was made with."""

_MS_SSIM_SIDE, _VIF_SIDE, _HAARPSI_SIDE = 161, 41, 16


class Lpips(nn.Module):
    """LPIPS, version 0.1 (Zhang et al. 2018), by the package lpips: its heads, and a backbone from the user's file.

    Differentiable, so it is a training loss as well. Weights are frozen.

    Args:
        weights: state dict of torchvision's AlexNet or VGG-16, `.pth` or `.safetensors`.
        net: which of the two; UPSR and LOL tables use "alex", the training of UPSR "vgg".

    Raises:
        UserError: no file, the package lpips is missing, or the file holds another network.
    """

    def __init__(self, weights: str | Path | None, net: Backbone = "alex") -> None:
        super().__init__()
        if find_spec("lpips") is None:
            raise UserError("LPIPS needs the package lpips (pip install ornstein-restoration[lpips])")
        if weights is None or not Path(weights).is_file():
            missing = "" if weights is None else f"; there is no file {weights}"
            raise UserError(
                f"LPIPS needs {_PUBLISHED[net]} of torchvision, and downloads nothing: give its path{missing}"
            )
        import lpips

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # lpips asks torchvision for no weights in an old way
            self.model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        self.model.net.load_state_dict(_backbone(Path(weights), self.model.net.state_dict()))
        self.model.requires_grad_(False)

    def forward(self, truth: Tensor, restored: Tensor) -> Tensor:
        """Distance (B,) of pictures (B, 3, H, W) in [0, 1]; they are brought to [-1, 1] here."""
        return self.model(truth, restored, normalize=True).flatten()

    def score(self, truth: Picture, restored: Picture) -> float:
        """Distance of two pictures (3, H, W); NaN where a side is too small for the network."""
        x, xh = _batches(truth, restored)
        if min(x.shape[-2:]) < 32:
            return math.nan
        parameter = next(self.parameters())
        with torch.no_grad():
            return float(self(x.to(parameter.device), xh.to(parameter.device)))


def _backbone(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The convolutions of `path` under the names of lpips: features.3.weight becomes slice2.3.weight."""
    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}); give a state dict of torchvision") from None
    weights = {}
    for name, value in wanted.items():
        source = f"features.{name.partition('.')[2]}"
        given = found.get(source) if isinstance(found, Mapping) else None
        if not isinstance(given, Tensor) or given.shape != value.shape:
            shape = None if not isinstance(given, Tensor) else tuple(given.shape)
            raise UserError(
                f"{path} is another network: {source} is {shape or 'missing'}, not {tuple(value.shape)}; "
                f"give {' or '.join(_PUBLISHED.values())}"
            )
        weights[name] = given
    return weights


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
