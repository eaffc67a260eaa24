"""Networks of timm with the user's weights, the image encoder of SAM among them."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ornstein.checkpoint import fill
from ornstein.errors import UserError
from ornstein.features.base import FeatureExtractor, standardized
from ornstein.features.weight_files import read
from ornstein.pictures.sizes import pad_to_multiple


class TimmFeatures(FeatureExtractor):
    """Features of a network of timm.

    The image encoder of SAM (Kirillov et al. 2023, arXiv 2304.02643) is `model="samvit_base_patch16"` with
    sam_vit_b_01ec64.pth as published, and its embedding the only layer.

    Args:
        model: timm's name of the architecture.
        weights: its state dict, .pth or .safetensors, in timm's layout or one that timm's model converts.
        layers: numbers of the stages or blocks whose outputs are features; None for what comes before the head alone.
        size: the side that pictures are enlarged or shrunk to (bilinear), for networks of one size; None leaves them.
        options: further arguments of `timm.create_model`.

    Raises:
        UserError: timm is not installed or knows no such model, or the file is missing or of another network.
    """

    def __init__(
        self,
        model: str,
        weights: Path | None,
        layers: Sequence[int] | None = None,
        size: int | None = None,
        options: Mapping[str, bool | int | float | str | Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise UserError("features of timm's networks need timm; pip install 'ornstein[features]'") from error
        if not timm.is_model(model):
            near = ", ".join(timm.list_models(f"*{model[:6]}*")[:5])
            raise UserError(f"timm has no model {model!r}" + (f"; there is {near}" if near else "; check its name"))
        self.model, self.weights = model, weights
        self.layers = None if layers is None else tuple(layers)
        self.size, self.options = size, options
        shown = "" if layers is None else f" {' '.join(map(str, layers))}"
        self.name, self.weights_source = f"timm {model}{shown}", str(weights)
        given: dict[str, Any] = dict(options or {})
        state = read(weights, f"a state dict of {model}")
        try:
            with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away
                network: Any = timm.create_model(model, pretrained=False, num_classes=0, **given)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"timm does not make {model} with {given}: {error}") from error
        self.network = network
        config = network.pretrained_cfg
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        self.channels, self.minimum = int(config["input_size"][0]), 1 if size else 32
        patches = getattr(getattr(network, "patch_embed", None), "patch_size", (1,))
        self._multiple = max(patches) if isinstance(patches, tuple) else int(patches)
        wanted = network.state_dict()
        if not wanted.keys() <= state.keys():
            convert = getattr(sys.modules[type(self.network).__module__], "checkpoint_filter_fn", None)
            state = state if convert is None else convert(state, self.network)
        fill(
            self.network,
            {name: tensor for name, tensor in state.items() if name in wanted},  # heads are left away
            Path(str(weights)),
            f"timm's {model}",
        )
        self.freeze()

    def forward(self, x: Tensor) -> list[Tensor]:
        network: Any = self.network
        x = standardized(x, self.mean, self.std)
        if self.size is not None:
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False, antialias=True)
        x = pad_to_multiple(x, self._multiple, "replicate")  # whole patches
        try:
            if self.layers is None:
                return [network.forward_features(x)]
            return list(network.forward_intermediates(x, indices=list(self.layers), intermediates_only=True))
        except AssertionError as error:  # how timm refuses sizes and layers
            raise UserError(f"{self.name} refuses a picture of {tuple(x.shape[-2:])} ({error}); give size") from error
