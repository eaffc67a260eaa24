"""The Swin-UNet of ResShift (Yue et al. 2023, arXiv 2307.12348), DifIISR (arXiv 2503.01187) and UPSR (Zhang et al.
2025, arXiv 2503.18512), with the published tensor names.

Feature maps are (B, C, H, W), the embedding of the time is (B, E).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein.networks.conditioning import join
from ornstein.networks.ncsnpp_layers import GroupNorm
from ornstein.networks.padding import pad_to_multiple
from ornstein.networks.resampling import Up
from ornstein.networks.time_embedding import cos_sin
from ornstein.networks.window_attention import relative_position_index, window_attention


class SwinUNet(nn.Module):
    """network(x, t, y) on cat(x, y): x (B, in_channels, H, W), y (B, condition_channels, H, W) and t (B,).

    The defaults are ResShift's network on latents of 3 channels (118,593,583 parameters): the output is (B,
    out_channels, H, W). A y that is larger than x by a whole factor is unshuffled into that many more channels, a
    smaller one is repeated.

    UPSR's network (119,418,319 parameters) is in_channels 48, condition_channels 96 and num_feat 128. It works on pixel
    unshuffled signals, and its output is the full picture, (B, 3, 4H, 4W), not unshuffled:

        x  PixelUnshuffle(4) of the state of 3 channels: 48
        y  PixelUnshuffle(4) of cat(estimate of the predictor, bicubic upscaling): 96

    Sides of any length are padded inside, by default to multiples of 64, and cropped.

    Args:
        in_channels: of the state.
        condition_channels: of y.
        out_channels: of the output.
        model_channels: channels of the first level, a multiple of 32.
        channel_mult: channels of every level, as multiples of model_channels; each further level halves the sides.
        num_res_blocks: per level on the way down (one more on the way up).
        attention_resolutions: sides whose level gets a Swin layer, after its first block, for maps of side image_size;
            the middle has it always.
        image_size: places the Swin layers and says how large their windows are: a layer for a side that is no larger
            than the window takes the side as window and does not shift, whatever the size of the map.
        num_head_channels: channels of one head.
        swin_depth: Swin blocks per layer.
        swin_embed_dim: channels in the Swin layers, a multiple of 32.
        window_size: side of a window.
        mlp_ratio: hidden channels of the perceptrons over swin_embed_dim.
        num_feat: channels of a head that enlarges four times; None for the plain head.
        dropout: in the residual blocks.
    """

    def __init__(
        self,
        in_channels: int = 3,
        condition_channels: int = 3,
        out_channels: int = 3,
        model_channels: int = 160,
        channel_mult: Sequence[int] = (1, 2, 2, 4),
        num_res_blocks: Sequence[int] = (2, 2, 2, 2),
        attention_resolutions: Sequence[int] = (64, 32, 16, 8),
        image_size: int = 64,
        num_head_channels: int = 32,
        swin_depth: int = 2,
        swin_embed_dim: int = 192,
        window_size: int = 8,
        mlp_ratio: float = 4,
        num_feat: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(channel_mult) != len(num_res_blocks) or min(*channel_mult, *num_res_blocks, window_size) < 1:
            raise UserError(
                "channel_mult and num_res_blocks of a SwinUNet need one entry of at least 1 per level, window_size at "
                f"least 1; got {list(channel_mult)}, {list(num_res_blocks)} and {window_size}"
            )
        if model_channels % 32 or swin_embed_dim % 32 or swin_embed_dim % num_head_channels:
            raise UserError(
                f"model_channels {model_channels} and swin_embed_dim {swin_embed_dim} of a SwinUNet must be multiples "
                f"of 32, swin_embed_dim also of num_head_channels {num_head_channels}"
            )
        self.in_channels, self.condition_channels, self.out_channels = in_channels, condition_channels, out_channels
        self.model_channels, self.channel_mult = model_channels, tuple(channel_mult)
        self.num_res_blocks, self.attention_resolutions = tuple(num_res_blocks), tuple(attention_resolutions)
        self.image_size, self.num_head_channels, self.swin_depth = image_size, num_head_channels, swin_depth
        self.swin_embed_dim, self.window_size, self.mlp_ratio = swin_embed_dim, window_size, mlp_ratio
        self.num_feat, self.dropout = num_feat, dropout

        size, levels = 4 * model_channels, len(channel_mult)
        units = [2 ** (levels - 1)]

        def block(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, size, dropout)

        def swin(channels: int, level: int) -> SwinLayer:
            side = image_size // 2**level
            heads = swin_embed_dim // num_head_channels
            layer = SwinLayer(channels, swin_embed_dim, heads, swin_depth, side, window_size, mlp_ratio)
            units.append(layer.window * 2**level)
            return layer

        self.time_embed = nn.Sequential(nn.Linear(model_channels, size), nn.SiLU(), nn.Linear(size, size))
        channels = model_channels
        first = nn.Conv2d(in_channels + condition_channels, channels, 3, padding=1)
        self.input_blocks = nn.ModuleList([Stage([first])])
        skips = [channels]
        for level, multiple in enumerate(channel_mult):
            for index in range(num_res_blocks[level]):
                layers: list[nn.Module] = [block(channels, model_channels * multiple)]
                channels = model_channels * multiple
                if index == 0 and image_size // 2**level in self.attention_resolutions:
                    layers.append(swin(channels, level))
                self.input_blocks.append(Stage(layers))
                skips.append(channels)
            if level < levels - 1:
                self.input_blocks.append(Stage([Down(channels)]))
                skips.append(channels)
        self.middle_block = Stage([block(channels, channels), swin(channels, levels - 1), block(channels, channels)])
        self.output_blocks = nn.ModuleList()
        for level in range(levels - 1, -1, -1):
            for index in range(num_res_blocks[level] + 1):
                layers = [block(channels + skips.pop(), model_channels * channel_mult[level])]
                channels = model_channels * channel_mult[level]
                if index == 0 and image_size // 2**level in self.attention_resolutions:
                    layers.append(swin(channels, level))
                if level and index == num_res_blocks[level]:
                    layers.append(Up(channels))
                self.output_blocks.append(Stage(layers))
        if num_feat is None:
            self.out = nn.Sequential(
                GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
            )
        else:
            self.conv_before_upsample = nn.Sequential(nn.Conv2d(channels, num_feat, 3, padding=1), nn.LeakyReLU(0.01))
            self.conv_up1 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
            self.conv_up2 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
            self.conv_hr = nn.Conv2d(num_feat, num_feat, 3, padding=1)
            self.conv_last = nn.Conv2d(num_feat, out_channels, 3, padding=1)
        self._unit = math.lcm(*units)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Output of the network in the dtype of x.

        Raises:
            ValueError: sizes or channels that do not fit.
        """
        observed = None if y is None else _resized(y, x)
        signal = join(x, t, observed, None, self.in_channels, self.condition_channels)
        embedding = F.silu(self.time_embed(cos_sin(t, self.model_channels)))
        h = pad_to_multiple(signal, self._unit)
        skips = []
        for stage in self.input_blocks:
            h = stage(h, embedding)
            skips.append(h)
        h = self.middle_block(h, embedding)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), embedding)
        if self.num_feat is None:
            return self.out(h)[..., : x.shape[2], : x.shape[3]].to(x.dtype)
        h = self.conv_before_upsample(h)
        for layer in (self.conv_up1, self.conv_up2):
            h = F.leaky_relu(layer(F.interpolate(h, scale_factor=2.0)), 0.2)
        h = self.conv_last(F.leaky_relu(self.conv_hr(h), 0.2))
        return h[..., : 4 * x.shape[2], : 4 * x.shape[3]].to(x.dtype)


def from_published(options: Mapping[str, Any]) -> SwinUNet:
    """The network of a published UPSR, ResShift or DifIISR checkpoint from its options.

    Args:
        options: flat mapping under the published names; with `num_feat` it is UPSR's, whose `in_channels` are those of
            the state alone. Where `cond_lq` is set, `in_channels` equal to `out_channels` are those of the state alone,
            too, and 3 are added (ResShift's newer options). Entries that are not the network's are ignored.

    Raises:
        UserError: such options with `lq_size` other than `image_size`, whose network has further layers for y.
    """
    names = (
        "out_channels model_channels channel_mult num_res_blocks attention_resolutions image_size num_head_channels "
        "swin_depth swin_embed_dim window_size mlp_ratio num_feat dropout"
    )
    arguments = {name: options[name] for name in names.split() if name in options}
    outputs, inputs = options.get("out_channels", 3), options.get("in_channels", 6)
    shown = inputs - outputs
    if inputs == outputs and options.get("cond_lq"):
        sizes = [options.get(name, 64) for name in ("lq_size", "image_size")]
        if sizes[0] != sizes[1]:
            raise UserError(
                f"lq_size {sizes[0]} is not image_size {sizes[1]}: this network has layers for the small picture that "
                "are not known; give one of scale 4"
            )
        shown = 3
    state, condition = (inputs, 2 * inputs) if options.get("num_feat") else (outputs, shown)
    return SwinUNet(state, condition, **arguments)


def _resized(y: Tensor, x: Tensor) -> Tensor:
    """`y` (B, C, H', W') at the size of `x`: pixels moved into channels, or repeated."""
    (height, width), (own_height, own_width) = x.shape[2:], y.shape[2:]
    if (height, width) == (own_height, own_width):
        return y
    factor = max(own_height // height, height // own_height, 1)
    if (own_height, own_width) == (factor * height, factor * width):
        return F.pixel_unshuffle(y, factor)
    if (height, width) == (factor * own_height, factor * own_width):
        return F.interpolate(y, scale_factor=float(factor))
    raise ValueError(f"y of {own_height} x {own_width} does not fit x of {height} x {width}: no whole factor between")


class Stage(nn.ModuleList):
    """Layers in a row, of which the residual blocks see the embedding."""

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        for layer in self:
            h = layer(h, embedding) if isinstance(layer, ResidualBlock) else layer(h)
        return h


class ResidualBlock(nn.Module):
    """Two convolutions, the embedding (B, `size`), after SiLU, as scale and shift of the second norm."""

    def __init__(self, inputs: int, outputs: int, size: int, dropout: float) -> None:
        super().__init__()
        first, second = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        nn.init.zeros_(second.weight)
        nn.init.zeros_(second.bias)  # type: ignore[arg-type]
        self.in_layers = nn.Sequential(GroupNorm(32, inputs), nn.SiLU(), first)
        self.emb_layers = nn.Sequential(nn.Identity(), nn.Linear(size, 2 * outputs))
        self.out_layers = nn.Sequential(GroupNorm(32, outputs), nn.SiLU(), nn.Dropout(dropout), second)
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.emb_layers(embedding)[:, :, None, None].chunk(2, dim=1)
        norm, *rest = self.out_layers
        h = norm(self.in_layers(x)) * (1 + scale) + shift
        for layer in rest:
            h = layer(h)
        return self.skip_connection(x) + h


class Down(nn.Module):
    """Halve the sides by a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class SwinLayer(nn.Module):
    """1x1 convolution to `size` channels, Swin blocks, every second shifted, and back; no residual around."""

    def __init__(
        self, channels: int, size: int, heads: int, depth: int, side: int, window: int, mlp_ratio: float
    ) -> None:
        super().__init__()
        self.window = min(side, window)
        self.patch_embed = Projection(channels, size)
        self.patch_unembed = Projection(size, channels)
        shifts = [self.window // 2 if index % 2 and side > window else 0 for index in range(depth)]
        self.blocks = nn.ModuleList(SwinBlock(size, heads, side, self.window, shift, mlp_ratio) for shift in shifts)

    def forward(self, x: Tensor) -> Tensor:
        h = self.patch_embed(x)
        for block in self.blocks:
            h = block(h)
        return self.patch_unembed(h)


class Projection(nn.Module):
    """1x1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class SwinBlock(nn.Module):
    """Window attention and a perceptron, each after group norm and with a residual."""

    def __init__(self, size: int, heads: int, side: int, window: int, shift: int, mlp_ratio: float) -> None:
        super().__init__()
        self.side, self.shift = side, shift
        self.norm1 = GroupNorm(32, size)
        self.attn = WindowAttention(size, heads, window)
        self.norm2 = GroupNorm(32, size)
        self.mlp = Perceptron(size, int(size * mlp_ratio))
        self.mask: Tensor | None
        self.register_buffer("mask", published_mask(side, side, window, shift) if shift else None, persistent=False)
        self.register_load_state_dict_pre_hook(_drop_computed)

    def forward(self, x: Tensor) -> Tensor:
        mask = self.mask
        if self.shift and x.shape[2:] != (self.side, self.side):
            mask = published_mask(x.shape[2], x.shape[3], self.attn.window, self.shift, x.device)
        x = x + self.attn(self.norm1(x), self.shift, mask)
        return x + self.mlp(self.norm2(x))


def published_mask(height: int, width: int, window: int, shift: int, device: torch.device | None = None) -> Tensor:
    """-100 for pairs that may not see each other, 0 for others: (windows, window^2, window^2), float32.

    Published code, and so every published weight, does not keep apart what the shift brought together (as `shift_mask`
    does): in the windows at the bottom it parts the last `shift` columns from the others, elsewhere nothing.
    """
    right = torch.arange(window**2, device=device) % window >= window - shift
    across, count = width // window, (height // window) * (width // window)
    bottom = torch.arange(count, device=device) >= count - across
    return -100.0 * (bottom[:, None, None] & (right[:, None] != right[None, :])).float()


class WindowAttention(nn.Module):
    """Attention inside windows with a bias for every relative position."""

    def __init__(self, size: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.index: Tensor
        self.register_buffer("index", relative_position_index(window), persistent=False)
        self.qkv = nn.Linear(size, 3 * size)
        self.proj = nn.Linear(size, size)
        self.register_load_state_dict_pre_hook(_drop_computed)

    def forward(self, x: Tensor, shift: int, mask: Tensor | None) -> Tensor:
        bias = self.relative_position_bias_table[self.index].permute(2, 0, 1)
        h = window_attention(self.qkv(x.permute(0, 2, 3, 1)), self.heads, self.window, shift, bias, mask)
        return self.proj(h).permute(0, 3, 1, 2)


class Perceptron(nn.Module):
    """Two 1x1 convolutions with GELU between."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(size, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, size, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def _drop_computed(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    """Published checkpoints hold the masks and indices of one size; they are worked out here."""
    for name in ("attn_mask", "relative_position_index"):
        state.pop(prefix + name, None)
