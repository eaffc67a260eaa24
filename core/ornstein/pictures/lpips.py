"""LPIPS as a score of pictures in [0, 1], with the user's weights."""

import math
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein.objectives.pictures import LPIPS, PUBLISHED
from ornstein.pictures.likeness import Picture, pair

Backbone: TypeAlias = Literal["alex", "vgg"]


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
        x, xh = (torch.from_numpy(image).float().clamp(0, 1)[None] for image in pair(truth, restored))
        if min(x.shape[-2:]) < 32:
            return math.nan
        parameter = next(self.parameters())
        with torch.no_grad():
            return float(self(x.to(parameter.device), xh.to(parameter.device)))
