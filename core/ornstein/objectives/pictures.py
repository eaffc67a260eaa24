"""Losses on the restored picture: its error, and what a perceptual network sees of it (UPSR)."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.latent import LatentDenoiser
from ornstein.objectives.denoising import DenoisingObjective, Objective
from ornstein.objectives.outputs import with_outputs
from ornstein.objectives.time_sampling import UniformLevels
from ornstein.uncertainty import UncertaintyGuided

PUBLISHED = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
"""The files of torchvision that LPIPS was made with."""


class LPIPS(nn.Module):
    """Learned perceptual distance (Zhang et al. 2018, arXiv 1801.03924; package `lpips`), with the user's backbone.

    Called with two batches of pictures (B, 3, H, W) in [-1, 1]; gives (B,). The linear weights come with the
    package, the backbone does not.

    Args:
        backbone: file with the weights of torchvision's ImageNet network (`features.0.weight` and so on).
        network: `vgg` (VGG-16, what UPSR trains with) or `alex`.

    Raises:
        UserError: the package is not installed, or the file is missing, unreadable or of another network.
    """

    def __init__(self, backbone: Path, network: Literal["vgg", "alex"] = "vgg") -> None:
        super().__init__()
        try:
            import lpips
        except ImportError as error:
            raise UserError("LPIPS needs the package lpips; pip install 'ornstein[perceptual]'") from error
        self.backbone = Path(backbone)
        self.network = network
        if not self.backbone.is_file():
            raise UserError(f"there are no weights at {backbone}; LPIPS needs torchvision's {PUBLISHED[network]}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision's old argument names
            self.distance = lpips.LPIPS(net=network, pnet_rand=True, verbose=False)
        weights = _weights(self.backbone)
        with torch.no_grad():
            for name, parameter in self.distance.net.named_parameters():
                key = f"features.{name.partition('.')[2]}"  # slice2.7.weight
                if key not in weights or weights[key].shape != parameter.shape:
                    has = "none" if key not in weights else tuple(weights[key].shape)
                    raise UserError(
                        f"{self.backbone} does not fit {network}: {key} should be {tuple(parameter.shape)}, "
                        f"it has {has}; give torchvision's {PUBLISHED[network]}"
                    )
                parameter.copy_(weights[key])
        self.requires_grad_(False).eval()

    def forward(self, picture: Tensor, other: Tensor) -> Tensor:
        distance: Tensor = self.distance(picture, other)
        return distance.flatten(1).mean(1)


def _weights(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the damage causes
        raise UserError(f"{path} cannot be read as weights; give a state dict (.pth or .safetensors)") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path} holds no state dict; give a file of named weights")
    return loaded


@dataclass(frozen=True)
class PictureObjective(Objective):
    """|x0hat - x0|^2 + weight * perceptual(clip(x0hat), x0) (UPSR, Zhang et al. 2025, arXiv 2503.18512, and its code).

    The time is uniform over the levels and nothing weights it. `x0` and the Estimate are in [-1, 1], as the process has
    them: unshuffled for `UncertaintyGuided`, whose pictures the perceptual network sees at full size; latents for
    `LatentDenoiser`, which the perceptual network sees decoded (ResShift's journal version, with `weight` 1).
    """

    perceptual: nn.Module | None = None
    """Called with two batches of pictures in [-1, 1], gives a distance: `LPIPS`. None leaves the second term out."""
    weight: float = 0.5
    published_range: bool = False
    """Give the perceptual network 2 x - 1, in [-3, 1], of pictures that are in [-1, 1] already, as the published code
    does."""
    denoising: DenoisingObjective = DenoisingObjective(compare="x0", time_sampling=UniformLevels())

    def __call__(
        self,
        denoiser: DenoiserLike,
        x0: Tensor,
        y: Tensor | None = None,
        *,
        generator: torch.Generator,
        **condition: Tensor,
    ) -> dict[str, Tensor]:
        denoiser, y, seen = with_outputs(denoiser).prepare(y)
        found, truth = self.denoising.corrupt_and_estimate(denoiser, x0, y, generator=generator, **seen, **condition)
        squared = self.denoising.compare_with(found, truth)
        if self.perceptual is None:
            return {"loss": squared}
        if isinstance(denoiser, LatentDenoiser):
            pictures = [denoiser.pictures(found.x0).clamp(-1, 1), denoiser.pictures(truth.x0).clamp(-1, 1)]
        else:
            pictures = [found.x0.clamp(-1, 1), truth.x0]
        if isinstance(denoiser, UncertaintyGuided):
            pictures = [denoiser.shuffled(picture) for picture in pictures]
        if self.published_range:
            pictures = [2 * picture - 1 for picture in pictures]
        with torch.autocast(x0.device.type, enabled=False):
            distance = self.perceptual.to(x0.device)(*(picture.float() for picture in pictures)).mean()
        return {"loss": squared + self.weight * distance, "squared": squared, "perceptual": distance}
