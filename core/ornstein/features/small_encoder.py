"""A small convolutional encoder, trained on the run's own pictures: to take noise away and to say how strong it was."""

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.checkpoint import load
from ornstein.errors import UserError
from ornstein.features.base import FeatureExtractor

WIDTHS = (32, 64, 128, 128)
GROUPS = 8


class SmallEncoder(nn.Module):
    """Four stages of a convolution with stride 2, group norm and SiLU: 32, 64, 128 and 128 channels.

    Called with pictures (B, C, H, W) in [-1, 1] it gives the output of every stage, the sides halved each time.
    """

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, width, 3, stride=2, padding=1), nn.GroupNorm(GROUPS, width), nn.SiLU())
            for inputs, width in zip((channels, *WIDTHS[:-1]), WIDTHS, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class EncoderWithHeads(nn.Module):
    """What `SmallEncoder` is trained in: it gives the clean picture, and from the last stage the strength of the noise.

    Called as a network of `Denoiser`, with a noisy picture and a time that says nothing here, it gives the picture
    alone.
    """

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.encoder = SmallEncoder(channels)
        self.lateral = nn.ModuleList(nn.Conv2d(width, WIDTHS[0], 1) for width in WIDTHS)
        self.picture = nn.Sequential(
            nn.GroupNorm(GROUPS, WIDTHS[0]), nn.SiLU(), nn.Conv2d(WIDTHS[0], 4 * channels, 3, padding=1)
        )
        self.strength = nn.Linear(WIDTHS[-1], 1)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The clean picture (B, C, H, W) and the strength of the noise (B,) that are seen in `x` (B, C, H, W)."""
        features = self.encoder(x)
        h = self.lateral[-1](features[-1])
        for lateral, feature in zip(list(self.lateral)[-2::-1], features[-2::-1], strict=True):
            h = lateral(feature) + F.interpolate(h, feature.shape[-2:], mode="nearest")
        clean = F.pixel_shuffle(self.picture(h), 2)[..., : x.shape[-2], : x.shape[-1]]
        return clean, self.strength(features[-1].mean((2, 3)))[:, 0]

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        return self.both(x)[0]


class SmallEncoderFeatures(FeatureExtractor):
    """The four stages of a trained `SmallEncoder`: features of the pictures themselves, for runs without downloads.

    Args:
        weights: a .safetensors file that `export` wrote of its training.

    Raises:
        UserError: there is no such file, or it holds another network.
    """

    def __init__(self, weights: Path | None) -> None:
        super().__init__()
        if weights is None:
            raise UserError("the small encoder needs weights; train it on your pictures and give the exported file")
        network = load(weights).denoiser.network
        if not isinstance(network, EncoderWithHeads):
            raise UserError(f"{weights} holds a {type(network).__name__}; give the file of a trained small encoder")
        self.weights = weights
        self.encoder = network.encoder
        self.name, self.channels, self.minimum = "small encoder", network.channels, 16
        self.weights_source = str(weights)
        self.freeze()

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.encoder(x))
