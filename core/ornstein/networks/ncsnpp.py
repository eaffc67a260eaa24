"""NCSN++ for complex spectrograms, with the published state-dict layout.

Sources: Song et al. 2021 (arXiv 2011.13456); Richter et al. 2023 (arXiv 2208.05830) for spectrograms; Lemercier et al.
2023 (arXiv 2212.11851) for NCSN++M and the one-shot predictor.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein.networks.ncsnpp_layers import (
    NEARLY_ZERO,
    AttentionBlock,
    Combine,
    Down,
    FourierEmbedding,
    ResidualBlock,
    Up,
    conv,
    group_norm,
    linear,
)

TimeDivision = Literal["none", "pyramid", "output"]
Progressive = Literal["none", "output_skip"]
ProgressiveInput = Literal["none", "input_skip"]


class NCSNpp(nn.Module):
    """Noise-conditional U-Net on a complex spectrogram x and its observation y.

    The defaults are the published full network (65.6 M parameters) of the variant `ncsnpp_v2`; `from_published` gives
    the others.

    Args:
        nf: channels of the first level.
        ch_mult: channels of every level, as multiples of nf; each further level halves bins and frames.
        num_res_blocks: residual blocks per level on the way down (one more on the way up).
        attn_resolutions: numbers of bins whose level gets attention; the level in the middle always has it.
        image_size: number of bins F of the input. It only matters when a level has attention, and is then required.
        input_channels: real input channels: 4 for x and y, 2 for x alone, 6 for x and a y of two complex channels.
        fourier_scale: standard deviation of the frequencies that embed log t.
        dropout: probability, inside the residual blocks.
        progressive: "output_skip" sums an output from every level, "none" takes the last level's only.
        progressive_input: "input_skip" feeds the low-passed input to every level, "none" to the first only.
        time_conditioned: whether the blocks see t; a one-shot predictor does not.
        time_division: what is divided by t: "pyramid" what enters the last 1x1 convolution, "output" what leaves it, or
            "none".
        centered: whether the input is taken as it is, or mapped to 2x - 1 (checkpoints before November 2022).

    Raises:
        UserError: an option outside these, or channel numbers that group norm cannot divide.
    """

    def __init__(
        self,
        nf: int = 128,
        ch_mult: Sequence[int] = (1, 1, 2, 2, 2, 2, 2),
        num_res_blocks: int = 2,
        attn_resolutions: Sequence[int] = (16,),
        image_size: int = 256,
        input_channels: int = 4,
        fourier_scale: float = 16.0,
        dropout: float = 0.0,
        progressive: Progressive = "output_skip",
        progressive_input: ProgressiveInput = "input_skip",
        time_conditioned: bool = True,
        time_division: TimeDivision = "none",
        centered: bool = True,
    ):
        super().__init__()
        _check_choice("progressive", progressive, Progressive)
        _check_choice("progressive_input", progressive_input, ProgressiveInput)
        _check_choice("time_division", time_division, TimeDivision)
        if min(nf, num_res_blocks, image_size, len(ch_mult), *ch_mult) < 1:
            raise UserError(
                "nf, num_res_blocks, image_size and every entry of ch_mult must be at least 1; ch_mult needs an entry"
            )
        if input_channels < 2 or input_channels % 2:
            raise UserError(f"input_channels is {input_channels}; a complex channel takes two, so choose 2, 4 or 6")
        if time_division != "none" and not time_conditioned:
            raise UserError(
                f'time_division "{time_division}" needs t; choose time_division "none" or time_conditioned true'
            )
        self.nf = nf
        self.ch_mult = tuple(ch_mult)
        self.num_res_blocks = num_res_blocks
        self.attn_resolutions = tuple(attn_resolutions)
        self.image_size = image_size
        self.input_channels = input_channels
        self.fourier_scale = fourier_scale
        self.dropout = dropout
        self.progressive = progressive
        self.progressive_input = progressive_input
        self.time_conditioned = time_conditioned
        self.time_division = time_division
        self.centered = centered

        self._attention = tuple(image_size // 2**level in self.attn_resolutions for level in range(len(self.ch_mult)))
        self.output_layer = conv(input_channels, 2, 1)  # registered first: the published order
        self.all_modules = self._layers()
        self.pyramid_down = Down()
        self.pyramid_up = Up()

    def _layers(self) -> nn.ModuleList:
        """The layers in the published order, which is the order in which `forward` takes them."""
        nf, signal = self.nf, self.input_channels
        last = len(self.ch_mult) - 1

        def block(inputs: int, outputs: int, resample: Down | Up | None = None) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, 4 * nf, self.dropout, resample, self.time_conditioned)

        def output(channels: int) -> list[nn.Module]:
            return [group_norm(channels), conv(channels, signal, 3, NEARLY_ZERO)]

        layers = nn.ModuleList([FourierEmbedding(nf, self.fourier_scale)])  # published even where t is not used
        if self.time_conditioned:
            layers.extend([linear(2 * nf, 4 * nf), linear(4 * nf, 4 * nf)])

        layers.append(conv(signal, nf, 3))
        channels = nf
        skips = [nf]
        for level, multiple in enumerate(self.ch_mult):
            for _ in range(self.num_res_blocks):
                layers.append(block(channels, nf * multiple))
                channels = nf * multiple
                if self._attention[level]:
                    layers.append(AttentionBlock(channels))
                skips.append(channels)
            if level < last:
                layers.append(block(channels, channels, Down()))
                if self.progressive_input == "input_skip":
                    layers.append(Combine(signal, channels))
                skips.append(channels)

        layers.extend([block(channels, channels), AttentionBlock(channels), block(channels, channels)])

        for level in range(last, -1, -1):
            for _ in range(self.num_res_blocks + 1):
                layers.append(block(channels + skips.pop(), nf * self.ch_mult[level]))
                channels = nf * self.ch_mult[level]
            if self._attention[level]:
                layers.append(AttentionBlock(channels))
            if self.progressive == "output_skip":
                layers.extend(output(channels))
            if level > 0:
                layers.append(block(channels, channels, Up()))
        if self.progressive == "none":
            layers.extend(output(channels))
        return layers

    def forward(self, x: Tensor, t: Tensor | None, y: Tensor | None = None) -> Tensor:
        """Raw output of the network.

        Args:
            x: state, complex (B, 1, F, T); F and T multiples of 2^(levels - 1).
            t: time per item, (B,), greater than 0; None if the network is not time-conditioned.
            y: observation, complex (B, C, F, T) with 1 + C = input_channels / 2; None for C = 0.

        Returns:
            complex (B, 1, F, T), in the dtype of x also under autocast.

        Raises:
            ValueError: shapes, dtypes or arguments that do not fit this network.
        """
        signal = self._real_channels(x, y)
        layers = iter(self.all_modules)
        last = len(self.ch_mult) - 1

        embed = next(layers)
        embedding = None
        if self.time_conditioned:
            if t is None or t.shape != x.shape[:1]:
                raise ValueError(f"t must have shape ({x.shape[0]},), got {None if t is None else tuple(t.shape)}")
            t = t.to(device=signal.device, dtype=signal.dtype)
            with torch.autocast(signal.device.type, enabled=False):  # the angles are hundreds of radians: no bf16 here
                embedding = next(layers)(embed(t.log()))
                embedding = next(layers)(F.silu(embedding))

        h = next(layers)(signal)
        pyramid = signal
        skips = [h]
        for level, attention in enumerate(self._attention):
            for _ in range(self.num_res_blocks):
                h = next(layers)(h, embedding)
                if attention:
                    h = next(layers)(h)
                skips.append(h)
            if level < last:
                h = next(layers)(h, embedding)
                if self.progressive_input == "input_skip":
                    pyramid = self.pyramid_down(pyramid)
                    h = next(layers)(pyramid, h)
                skips.append(h)

        h = next(layers)(h, embedding)
        h = next(layers)(h)
        h = next(layers)(h, embedding)

        output = None
        for level in range(last, -1, -1):
            for _ in range(self.num_res_blocks + 1):
                h = next(layers)(torch.cat([h, skips.pop()], dim=1), embedding)
            if self._attention[level]:
                h = next(layers)(h)
            if self.progressive == "output_skip":
                part = next(layers)(h)
                part = next(layers)(F.silu(part))
                output = part if output is None else self.pyramid_up(output) + part
            if level > 0:
                h = next(layers)(h, embedding)
        if output is None:
            h = next(layers)(h)
            output = next(layers)(F.silu(h))

        if self.time_division == "pyramid" and t is not None:
            output = output / t[:, None, None, None]
        output = self.output_layer(output).to(signal.dtype)
        if self.time_division == "output" and t is not None:
            output = output / t[:, None, None, None]
        return torch.complex(output[:, :1], output[:, 1:])

    def _real_channels(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Re x, Im x, Re y, Im y, ... as (B, input_channels, F, T), after checking that x and y fit."""
        if x.ndim != 4 or x.shape[1] != 1:
            raise ValueError(f"x must have shape (batch, 1, bins, frames), got {tuple(x.shape)}")
        if y is not None and (y.ndim != 4 or y.shape[0] != x.shape[0] or y.shape[2:] != x.shape[2:]):
            raise ValueError(f"y of shape {tuple(y.shape)} does not fit x of shape {tuple(x.shape)}")
        for name, signal in (("x", x), ("y", y)):
            if signal is not None and not signal.is_complex():
                raise ValueError(f"{name} must be complex, got {signal.dtype}")
        complex_channels = x.shape[1] + (0 if y is None else y.shape[1])
        if 2 * complex_channels != self.input_channels:
            raise ValueError(
                f"x and y have {complex_channels} complex channels; this network takes {self.input_channels // 2}"
            )
        bins, frames = x.shape[2:]
        factor = 2 ** (len(self.ch_mult) - 1)
        if bins % factor or frames % factor:
            raise UserError(
                f"{bins} bins and {frames} frames must both be multiples of {factor}; pad the spectrogram, or in a "
                "recipe choose n_fft and data.samples accordingly (n_fft 510 and 256 hops give 256 bins and frames)"
            )
        if any(self._attention) and bins != self.image_size:
            raise UserError(f"this network has attention placed for {self.image_size} bins, got {bins}")

        channels = x if y is None else torch.cat([x, y], dim=1)
        real = torch.view_as_real(channels).permute(0, 1, 4, 2, 3).flatten(1, 2)
        weights = cast(
            FourierEmbedding, self.all_modules[0]
        ).W.dtype  # not of a convolution: those may be kept in low precision for speed
        if real.dtype != weights:
            raise ValueError(f"the parts of x and y are {real.dtype}, the weights are {weights}; convert one of them")
        return real if self.centered else 2 * real - 1


def _check_choice(name: str, value: str, choices: Any) -> None:
    if value not in get_args(choices):
        raise UserError(f"{name} is {value!r}, which is not built; choose one of {', '.join(get_args(choices))}")


_ONLY_BUILT = {  # published options of which one value is built; the others raise upstream or were never released
    "nonlinearity": "swish",
    "resblock_type": "biggan",
    "embedding_type": "fourier",
    "progressive_combine": "sum",
    "fir": True,
    "fir_kernel": [1, 3, 3, 1],
    "skip_rescale": True,
}
_SAME_NAME = (
    "nf",
    "ch_mult",
    "num_res_blocks",
    "attn_resolutions",
    "image_size",
    "fourier_scale",
    "dropout",
    "progressive",
    "progressive_input",
)


def from_published(backbone: str, options: Mapping[str, Any]) -> NCSNpp:
    """Build the network of a published checkpoint from its stored options.

    Options that are absent take the default of the published code. The network returns what the published one returned:
    for `ncsnpp` and `ncsnpp_48k` the score is minus that.

    Args:
        backbone: "ncsnpp_v2", "ncsnpp_48k" or "ncsnpp"; the last is SGMSE+, or StoRM if the option `discriminative` or
            `input_channels` is there.
        options: flat mapping such as a checkpoint's hyper-parameters; entries that are not the network's are ignored.

    Raises:
        UserError: an unknown backbone, or an option value that is not built.
    """
    if backbone not in ("ncsnpp", "ncsnpp_v2", "ncsnpp_48k"):
        raise UserError(f"backbone {backbone!r} is not built; ncsnpp, ncsnpp_v2 and ncsnpp_48k are")
    for name, built in _ONLY_BUILT.items():
        value = options.get(name, built)
        if (list(value) if isinstance(value, tuple) else value) != built:
            raise UserError(f"{backbone} with {name} = {value!r} is not built; only {built!r} is")

    arguments = {name: options[name] for name in _SAME_NAME if name in options}
    if backbone == "ncsnpp_48k":
        arguments = {"attn_resolutions": (), "progressive": "none", "progressive_input": "none"} | arguments
    if backbone == "ncsnpp_v2":
        return NCSNpp(**arguments)  # it knows neither `centered` nor `scale_by_sigma`

    storm = "discriminative" in options or "input_channels" in options
    if storm:
        arguments = {"attn_resolutions": (0,), "input_channels": options.get("input_channels", 4)} | arguments
    predictor = options.get("discriminative", False)
    if predictor:
        arguments["input_channels"] = 2
    timed = options.get("conditional", True) and not predictor
    divided = options.get("scale_by_sigma", True) and not predictor
    return NCSNpp(
        **arguments,
        time_conditioned=timed,
        time_division=("output" if backbone == "ncsnpp_48k" else "pyramid") if divided else "none",
        centered=options.get("centered", not storm),
    )
