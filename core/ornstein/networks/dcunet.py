"""Deep complex U-Net of the first score-based speech enhancer, with the published state-dict layout.

Sources: Welker, Richter, Gerkmann 2022 (Interspeech, arXiv 2203.17004) for DilDCUNet-v2 with time embedding; Choi et
al. 2019 (arXiv 1903.03107) for DCUNet-10, 16 and 20.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from math import prod
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein.networks.complex_layers import (
    ComplexConv2d,
    ComplexConvTranspose2d,
    ComplexFeatureMap,
    ComplexLinear,
    Pair,
    SplitBatchNorm2d,
)
from ornstein.networks.ncsnpp_layers import FourierEmbedding

EncoderLayer = tuple[int, Pair, Pair, Pair]
"""Output channels; kernel, stride and dilation, each along bins and along frames."""
TimeEmbedding = Literal["gfp", "ds", "none"]
Activation = Literal["leaky_relu", "relu", "silu"]

_ONE: Pair = (1, 1)
_BOTH: Pair = (2, 2)
_BINS: Pair = (2, 1)
ARCHITECTURES: dict[str, tuple[EncoderLayer, ...]] = {
    "DCUNet-10": (
        (32, (7, 5), _BOTH, _ONE),
        (64, (7, 5), _BOTH, _ONE),
        (64, (5, 3), _BOTH, _ONE),
        (64, (5, 3), _BOTH, _ONE),
        (64, (5, 3), _BINS, _ONE),
    ),
    "DCUNet-16": (
        (32, (7, 5), _BOTH, _ONE),
        (32, (7, 5), _BINS, _ONE),
        (64, (7, 5), _BOTH, _ONE),
        *((64, (5, 3), stride, _ONE) for stride in (_BINS, _BOTH, _BINS, _BOTH, _BINS)),
    ),
    "DCUNet-20": (
        (32, (7, 1), _ONE, _ONE),
        (32, (1, 7), _ONE, _ONE),
        (64, (7, 5), _BOTH, _ONE),
        (64, (7, 5), _BINS, _ONE),
        *((64, (5, 3), stride, _ONE) for stride in (_BOTH, _BINS, _BOTH, _BINS, _BOTH)),
        (90, (5, 3), _BINS, _ONE),
    ),
    "DilDCUNet-v2": (
        *((32, (4, 4), _ONE, _ONE) for _ in range(3)),
        (64, (4, 4), _BINS, (2, 1)),
        (128, (4, 4), _BOTH, (4, 1)),
        (256, (4, 4), _BOTH, (8, 1)),
    ),
}
"""The encoders by published name; the decoders mirror them."""

_ACTIVATIONS: dict[str, type[nn.Module]] = {"leaky_relu": nn.LeakyReLU, "relu": nn.ReLU, "silu": nn.SiLU}


class DCUNet(nn.Module):
    """Complex convolutions down and up again, told the time in every layer, on a spectrogram x and its observation y.

    The defaults are the network of the 2022 paper (3,531,970 parameters); its score is minus the output.

    Args:
        architecture: one of `ARCHITECTURES`, or encoder layers of your own.
        time_embedding: of t itself: Gaussian Fourier features (`gfp`), DiffWave's frequencies (`ds`), or `none`.
        embed_dim: width E of the time embedding, even.
        temb_layers_global: layers that all blocks share.
        temb_layers_local: layers of each block.
        temb_activation: after each of these layers.
        activation: after each block.

    Raises:
        UserError: an option outside these.
    """

    def __init__(
        self,
        architecture: str | Sequence[EncoderLayer] = "DilDCUNet-v2",
        time_embedding: TimeEmbedding = "gfp",
        embed_dim: int = 128,
        temb_layers_global: int = 1,
        temb_layers_local: int = 1,
        temb_activation: Activation = "silu",
        activation: Activation = "leaky_relu",
    ):
        super().__init__()
        for name, value, choices in (
            ("time_embedding", time_embedding, TimeEmbedding),
            ("temb_activation", temb_activation, Activation),
            ("activation", activation, Activation),
        ):
            if value not in get_args(choices):
                raise UserError(
                    f"{name} is {value!r}, which is not built; choose one of {', '.join(get_args(choices))}"
                )
        if embed_dim < 4 or embed_dim % 2 or temb_layers_global < 0 or temb_layers_local < 1:
            raise UserError(
                "embed_dim must be even and at least 4, temb_layers_global at least 0, temb_layers_local at least 1; "
                f"got {embed_dim}, {temb_layers_global} and {temb_layers_local}"
            )
        layers = _encoder_layers(architecture)
        self.architecture = architecture if isinstance(architecture, str) else layers
        self.time_embedding = time_embedding
        self.embed_dim = embed_dim
        self.temb_layers_global = temb_layers_global
        self.temb_layers_local = temb_layers_local
        self.temb_activation = temb_activation
        self.activation = activation
        self._strides = tuple(prod(layer[2][axis] for layer in layers) for axis in (0, 1))

        self.embed = nn.Sequential(*self._time_layers())
        self.encoders = nn.ModuleList()
        self.decoders = nn.ModuleList()
        inputs = [2, *(layer[0] for layer in layers[:-1])]  # x and y are one complex channel each
        last = len(layers) - 1
        for channels, layer in zip(inputs, layers, strict=True):
            self.encoders.append(Encoder(channels, layer, self._local_layers(layer[0]), activation))
        for level in range(last, 0, -1):
            outputs = inputs[level]
            decoder = Decoder(layers[level], level < last, outputs, self._local_layers(outputs), activation)
            self.decoders.append(decoder)
        self.output_layer = ComplexConvTranspose2d(layers[0][0] * (1 if last == 0 else 2), 1, *layers[0][1:], bias=True)

    def _time_layers(self) -> list[nn.Module]:
        layers: list[nn.Module]
        match self.time_embedding:
            case "none":
                return []
            case "gfp":
                layers = [FourierEmbedding(self.embed_dim // 2, 16.0)]
            case "ds":
                layers = [StepEmbedding(self.embed_dim // 2)]
        for _ in range(self.temb_layers_global):
            layers.extend([ComplexLinear(self.embed_dim, self.embed_dim), _ACTIVATIONS[self.temb_activation]()])
        return layers

    def _local_layers(self, channels: int) -> nn.Sequential | None:
        if self.time_embedding == "none":
            return None
        layers: list[nn.Module] = []
        for _ in range(self.temb_layers_local - 1):
            layers.extend([ComplexLinear(self.embed_dim, self.embed_dim), _ACTIVATIONS[self.temb_activation]()])
        return nn.Sequential(*layers, ComplexFeatureMap(self.embed_dim, channels), _ACTIVATIONS[self.temb_activation]())

    def forward(self, x: Tensor, t: Tensor | None, y: Tensor) -> Tensor:
        """Raw output of the network.

        Args:
            x: state, complex (B, 1, F, T); F - 1 a multiple of the strides along bins (8 in DilDCUNet-v2). Frames are
                filled up with zeros inside, to T - 1 a multiple of the strides along frames, and cut again.
            t: time per item, (B,); None where there is no time embedding.
            y: observation, as x.

        Returns:
            complex (B, 1, F, T), in the dtype of x also under autocast.

        Raises:
            ValueError: shapes, dtypes or arguments that do not fit this network.
            UserError: a number of bins that does not fit.
        """
        signal = self._parts(x, y)
        embedding = None
        if self.time_embedding != "none":
            if t is None or t.shape != x.shape[:1]:
                raise ValueError(f"t must have shape ({x.shape[0]},), got {None if t is None else tuple(t.shape)}")
            with torch.autocast(signal.device.type, enabled=False):  # the angles are hundreds of radians: no bf16 here
                features = self.embed[0](t.to(device=signal.device, dtype=signal.dtype))
                embedding = torch.stack([features, torch.zeros_like(features)], 1)
                for layer in list(self.embed)[1:]:
                    embedding = layer(embedding)

        h = F.pad(signal, (0, -(x.shape[3] - 1) % self._strides[1]))
        size = _size(h)
        skips: list[Tensor] = []
        for encoder in self.encoders:
            h = encoder(h, embedding)
            skips.append(h)
        skips.pop()
        for decoder in self.decoders:
            skip = skips.pop()
            h = torch.cat([decoder(h, embedding, _size(skip)), skip], 2)
        out = self.output_layer(h, size)[..., : x.shape[3]].to(signal.dtype)
        return torch.complex(out[:, 0].contiguous(), out[:, 1].contiguous())

    def _parts(self, x: Tensor, y: Tensor) -> Tensor:
        """x and y as (B, 2, 2, F, T), parts first, after checking that they fit."""
        if x.ndim != 4 or x.shape[1] != 1:
            raise ValueError(f"x must have shape (batch, 1, bins, frames), got {tuple(x.shape)}")
        if y is None or y.shape != x.shape:
            raise ValueError(f"y of shape {None if y is None else tuple(y.shape)} does not fit x {tuple(x.shape)}")
        for name, signal in (("x", x), ("y", y)):
            if not signal.is_complex():
                raise ValueError(f"{name} must be complex, got {signal.dtype}")
        if (x.shape[2] - 1) % self._strides[0]:
            raise UserError(
                f"{x.shape[2]} bins do not fit DCUNet: bins - 1 must be a multiple of {self._strides[0]}; "
                "set n_fft to 512 (257 bins)"
            )
        norm = cast(Encoder, self.encoders[0]).norm
        weights = norm.re_module.weight.dtype  # not of a convolution: those may be kept in low precision for speed
        channels = torch.cat([x, y], 1)
        if channels.real.dtype != weights:
            raise ValueError(
                f"the parts of x and y are {channels.real.dtype}, the weights are {weights}; convert one of them"
            )
        return torch.stack([channels.real, channels.imag], 1)


class Encoder(nn.Module):
    """activation(norm(conv(x) + time))."""

    def __init__(self, inputs: int, layer: EncoderLayer, embed_layer: nn.Sequential | None, activation: str):
        super().__init__()
        self.conv = ComplexConv2d(inputs, *layer)
        self.norm = SplitBatchNorm2d(layer[0])
        self.activation = _ACTIVATIONS[activation]()
        self.embed_layer = embed_layer

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        h = self.conv(x)
        if self.embed_layer is not None:
            h = h + self.embed_layer(embedding)
        return self.activation(self.norm(h))


class Decoder(nn.Module):
    """activation(norm(transposed conv(x) + time)), which undoes the encoder `layer`; with a `skip` x has twice its
    channels."""

    def __init__(
        self, layer: EncoderLayer, skip: bool, outputs: int, embed_layer: nn.Sequential | None, activation: str
    ):
        super().__init__()
        self.deconv = ComplexConvTranspose2d(layer[0] * (2 if skip else 1), outputs, *layer[1:])
        self.norm = SplitBatchNorm2d(outputs)
        self.activation = _ACTIVATIONS[activation]()
        self.embed_layer = embed_layer

    def forward(self, x: Tensor, embedding: Tensor | None, size: Pair) -> Tensor:
        h = self.deconv(x, size)
        if self.embed_layer is not None:
            h = h + self.embed_layer(embedding)
        return self.activation(self.norm(h))


class StepEmbedding(nn.Module):
    """[sin, cos](10^(4 j/(n - 1)) u) for j = 0 .. n - 1 (Kong et al. 2021, DiffWave): (B,) -> (B, 2 `size`)."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, u: Tensor) -> Tensor:
        frequencies = 10 ** (4 * torch.arange(self.size, device=u.device, dtype=u.dtype) / (self.size - 1))
        angle = u[:, None] * frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=1)


def _encoder_layers(architecture: str | Sequence[EncoderLayer]) -> tuple[EncoderLayer, ...]:
    if isinstance(architecture, str):
        if architecture not in ARCHITECTURES:
            raise UserError(f"architecture {architecture!r} is not built; {', '.join(ARCHITECTURES)} are")
        return ARCHITECTURES[architecture]
    layers = tuple(
        (outputs, _pair(kernel), _pair(stride), _pair(dilation)) for outputs, kernel, stride, dilation in architecture
    )
    if not layers or min(number for outputs, *shape in layers for number in (outputs, *chain(*shape))) < 1:
        raise UserError("an architecture is a list of (channels, kernel, stride, dilation), all at least 1")
    return layers


def _pair(values: Sequence[int]) -> Pair:
    along_bins, along_frames = values
    return (along_bins, along_frames)


def _size(x: Tensor) -> Pair:
    return (x.shape[-2], x.shape[-1])


_SAME_MEANING = {  # our argument: the published option and its default
    "architecture": ("dcunet_architecture", "DilDCUNet-v2"),
    "time_embedding": ("dcunet_time_embedding", "gfp"),
    "embed_dim": ("embed_dim", 128),
    "temb_layers_global": ("dcunet_temb_layers_global", 2),
    "temb_layers_local": ("dcunet_temb_layers_local", 1),
    "temb_activation": ("dcunet_temb_activation", "silu"),
    "activation": ("dcunet_activation", "relu"),
}
_ONLY_BUILT = {  # published options of which one value is built
    "dcunet_time_embedding_complex": False,
    "dcunet_fix_length": "pad",
    "dcunet_mask_bound": "none",
    "dcunet_norm_type": "bN",
}


def from_published(options: Mapping[str, Any]) -> DCUNet:
    """Build the network of a published checkpoint from its stored options.

    Options that are absent take the default of the published class, which differs from that of its command line (2
    global layers, relu); files hold all of them.

    Args:
        options: flat mapping such as a checkpoint's hyper-parameters; entries that are not the network's are ignored.

    Raises:
        UserError: an option value that is not built.
    """
    for name, built in _ONLY_BUILT.items():
        if options.get(name, built) != built:
            raise UserError(f"dcunet with {name} = {options[name]!r} is not built; only {built!r} is")
    return DCUNet(**{ours: options.get(theirs, default) for ours, (theirs, default) in _SAME_MEANING.items()})


def published_options(network: DCUNet) -> dict[str, Any]:
    """The options from which `from_published` builds `network` again."""
    return {theirs: getattr(network, ours) for ours, (theirs, _) in _SAME_MEANING.items()} | _ONLY_BUILT
