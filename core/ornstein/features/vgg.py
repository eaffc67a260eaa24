"""Layers of torchvision's VGG-16 with the user's weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ornstein.checkpoint import fill
from ornstein.errors import UserError
from ornstein.features.base import FeatureExtractor, standardized
from ornstein.features.weight_files import read

LAYERS = {
    "relu1_1": 1, "relu1_2": 3, "relu2_1": 6, "relu2_2": 8, "relu3_1": 11, "relu3_2": 13, "relu3_3": 15,
    "relu4_1": 18, "relu4_2": 20, "relu4_3": 22, "relu5_1": 25, "relu5_2": 27, "relu5_3": 29,
}  # fmt: skip
"""Their places in `features` of the network (Simonyan and Zisserman 2015, arXiv 1409.1556, configuration D)."""

POOLS = (4, 9, 16, 23, 30)

WANTED = "torchvision's vgg16-397923af.pth"


class VGG16Features(FeatureExtractor):
    """Activations of VGG-16, trained on ImageNet.

    Args:
        weights: state dict of torchvision's VGG-16, .pth or .safetensors.
        layers: names such as relu1_2, in rising order. What DifIISR takes has not been seen.

    Raises:
        UserError: torchvision is not installed, no such layers, or the file is missing or of another network.
    """

    def __init__(
        self, weights: Path | None, layers: Sequence[str] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    ) -> None:
        super().__init__()
        if not layers or list(layers) != [layer for layer in LAYERS if layer in layers]:
            raise UserError(f"layers of VGG-16 are {', '.join(LAYERS)}, in this order; got {list(layers)}")
        try:
            from torchvision.models.vgg import cfgs, make_layers
        except ImportError as error:
            raise UserError("features of VGG-16 need torchvision; pip install 'ornstein[features]'") from error
        self.weights, self.layers = weights, tuple(layers)
        self.name = f"vgg16 {' '.join(self.layers)}"
        self.channels, self.weights_source = 3, str(weights)
        last = max(LAYERS[layer] for layer in layers)
        self.minimum = 2 ** sum(pool < last for pool in POOLS)
        state = read(weights, WANTED)
        with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away
            whole: Any = make_layers(cfgs["D"], batch_norm=False)
        self.features = whole[: last + 1]
        kept = {name: tensor for name, tensor in state.items() if name in self.state_dict()}
        fill(self, kept, Path(str(weights)), f"VGG-16 ({WANTED})")
        self.freeze()

    def forward(self, x: Tensor) -> list[Tensor]:
        h = standardized(x, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        places, found = {LAYERS[layer] for layer in self.layers}, []
        for place, layer in enumerate(self.features):
            h = layer(h)
            if place in places:
                found.append(h)
        return found
