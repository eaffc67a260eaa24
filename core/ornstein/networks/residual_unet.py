"""The UNet of RDDM (Liu et al. 2024, arXiv 2308.13712) and Resfusion (Shi et al. 2024, arXiv 2311.14900), with the
published tensor names.

Feature maps are (B, C, H, W), the embedding of the time is (B, E).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein.networks.conditioning import join
from ornstein.networks.ncsnpp_layers import GroupNorm
from ornstein.networks.padding import pad_to_multiple
from ornstein.networks.time_embedding import sin_cos

HEADS = 4
HEAD_CHANNELS = 32
POSITIONS = 256
"""Of a piece of the sum of linear attention."""


class ResidualUNet(nn.Module):
    """network(x, t, y, mask=mask) on cat(x, y, mask): x (B, channels, H, W) and t (B,), out (B, out_channels, H, W).

    The defaults are the published network of 36,261,187 parameters; with condition_channels 5, as Resfusion uses it for
    shadows (y and a one-hot mask in [-1, 1]), it has 36,267,459. Papers print 7.7 M parameters and 32.9 G operations:
    THOP counts no convolution with standardised weights, which are most of them.

    Sides of any length are padded inside to a multiple of 2^(levels - 1) and cropped. The attention in the middle
    looks at all positions of the smallest level at once.

    Args:
        channels: of the state.
        condition_channels: of y and the mask together: 3 for y alone, 5 with a one-hot mask of two classes, 6 with a
            mask image, 0 for generation.
        dim: channels of the first level.
        dim_mults: channels of every level, as multiples of dim; each further level halves the sides.
        groups: of the group norm; they divide the channels of every level.
        out_channels: as `channels` when None.
    """

    def __init__(
        self,
        channels: int = 3,
        condition_channels: int = 3,
        dim: int = 64,
        dim_mults: Sequence[int] = (1, 2, 4, 8),
        groups: int = 8,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        check_widths(dim, dim_mults, groups)
        self.channels, self.condition_channels, self.dim = channels, condition_channels, dim
        self.dim_mults, self.groups, self.out_channels = tuple(dim_mults), groups, out_channels
        widths = [dim, *(dim * multiple for multiple in dim_mults)]
        self.init_conv = nn.Conv2d(channels + condition_channels, dim, 7, padding=3)
        self.time_mlp = time_mlp(dim)
        self.downs = down_levels(widths, 4 * dim, groups)
        self.ups = up_levels(widths, 4 * dim, groups, skips=True)
        self.mid_block1 = ResidualBlock(widths[-1], widths[-1], 4 * dim, groups)
        self.mid_attn = Residual(PreNorm(widths[-1], Attention(widths[-1])))
        self.mid_block2 = ResidualBlock(widths[-1], widths[-1], 4 * dim, groups)
        self.final_res_block = ResidualBlock(2 * dim, dim, 4 * dim, groups)
        self.final_conv = nn.Conv2d(dim, channels if out_channels is None else out_channels, 1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Output of the network in the dtype of x.

        Raises:
            ValueError: y and mask do not have condition_channels channels, or sizes or t do not fit x.
        """
        signal = join(x, t, y, mask, self.channels, self.condition_channels)
        first = self.init_conv(pad_to_multiple(signal, 2 ** (len(self.dim_mults) - 1)))
        embedding = self.time_mlp(t)
        h, skips = encode(self.downs, first, embedding)
        h = self.mid_block2(self.mid_attn(self.mid_block1(h, embedding)), embedding)
        h = decode(self.ups, h, embedding, skips)
        h = self.final_conv(self.final_res_block(torch.cat([h, first], dim=1), embedding))
        return h[..., : x.shape[2], : x.shape[3]].to(x.dtype)


def from_published(options: Mapping[str, Any]) -> ResidualUNet:
    """The network of a published Resfusion checkpoint from its stored options, defaults as published.

    Args:
        options: flat mapping such as a checkpoint's hyper-parameters; entries that are not the network's are ignored.
    """
    channels = options.get("channels", 3)
    condition = options.get("input_condition_channels", 3) if options.get("input_condition", True) else 0
    condition += options.get("mask_condition_channels", 2) if options.get("mask_condition", False) else 0
    outputs = options.get("out_dim")
    return ResidualUNet(
        channels,
        condition,
        dim=options.get("dim", 64),
        dim_mults=options.get("dim_mults", (1, 2, 4, 8)),
        groups=options.get("resnet_block_groups", 8),
        out_channels=None if outputs == channels else outputs,
    )


def check_widths(dim: int, dim_mults: Sequence[int], groups: int) -> None:
    """Raise UserError unless every level can be normalised in `groups` groups."""
    if dim < 4 or dim % 2 or not dim_mults or min(dim_mults) < 1 or groups < 1 or dim % groups:
        raise UserError(
            "a residual UNet needs an even dim of at least 4 that its groups divide, and dim_mults of at least 1; "
            f"got dim {dim}, dim_mults {list(dim_mults)} and {groups} groups"
        )


def time_mlp(dim: int) -> nn.Sequential:
    """Times (B,) to embeddings (B, 4 `dim`)."""
    return nn.Sequential(SinusoidalEmbedding(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, 4 * dim))


def down_levels(widths: Sequence[int], embedding: int, groups: int) -> nn.ModuleList:
    """Two blocks, linear attention and the convolution to the next width, for every level."""
    levels = nn.ModuleList()
    for level, (own, following) in enumerate(pairwise(widths)):
        last = level == len(widths) - 2
        levels.append(
            nn.ModuleList(
                [
                    ResidualBlock(own, own, embedding, groups),
                    ResidualBlock(own, own, embedding, groups),
                    Residual(PreNorm(own, LinearAttention(own))),
                    nn.Conv2d(own, following, 3, padding=1) if last else nn.Conv2d(own, following, 4, 2, 1),
                ]
            )
        )
    return levels


def up_levels(widths: Sequence[int], embedding: int, groups: int, skips: bool) -> nn.ModuleList:
    """Two blocks, on features joined with skips or not, linear attention and the convolution to the previous width, for
    every level from the smallest."""
    levels = nn.ModuleList()
    for level in range(len(widths) - 2, -1, -1):
        before, own = widths[level], widths[level + 1]
        inputs = own + before if skips else own
        convolution = nn.Conv2d(own, before, 3, padding=1)
        levels.append(
            nn.ModuleList(
                [
                    ResidualBlock(inputs, own, embedding, groups),
                    ResidualBlock(inputs, own, embedding, groups),
                    Residual(PreNorm(own, LinearAttention(own))),
                    nn.Sequential(nn.Upsample(scale_factor=2.0), convolution) if level else convolution,
                ]
            )
        )
    return levels


def encode(levels: nn.ModuleList, h: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The features after all `down_levels`, and two skips of every level."""
    skips = []
    for level in levels:
        block1, block2, attention, shrink = cast(nn.ModuleList, level)
        h = block1(h, embedding)
        skips.append(h)
        h = attention(block2(h, embedding))
        skips.append(h)
        h = shrink(h)
    return h, skips


def decode(levels: nn.ModuleList, h: Tensor, embedding: Tensor, skips: Sequence[Tensor] = ()) -> Tensor:
    """The features after all `up_levels`, which were made for `skips` or for none."""
    rest = list(skips)
    for level in levels:
        block1, block2, attention, grow = cast(nn.ModuleList, level)
        h = block1(torch.cat([h, rest.pop()], dim=1) if rest else h, embedding)
        h = block2(torch.cat([h, rest.pop()], dim=1) if rest else h, embedding)
        h = grow(attention(h))
    return h


class SinusoidalEmbedding(nn.Module):
    """`sin_cos` of `size` numbers, as a layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, t: Tensor) -> Tensor:
        return sin_cos(t, self.size)


class WeightStandardizedConv2d(nn.Conv2d):
    """Convolution whose weights have mean 0 and variance 1 per output channel (Qiao et al. 2019, arXiv 1903.10520).

    They are standardised in float32 or better and with eps 1e-5 in every precision; published code takes 1e-3 in half
    precision, which is more than the variance of most layers.
    """

    def standardized(self) -> Tensor:
        """The weights of the convolution, in float32 or better."""
        weight = precise(self.weight)
        variance, mean = torch.var_mean(weight, dim=(1, 2, 3), correction=0, keepdim=True)
        return (weight - mean) * (variance + 1e-5).rsqrt()

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.standardized().to(self.weight.dtype), self.bias)

    def folded(self) -> nn.Conv2d:
        """The plain convolution that this one is while its weights stay."""
        weight = self.standardized().detach()
        plain = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,  # type: ignore[arg-type]
            padding=self.padding,  # type: ignore[arg-type]
            bias=self.bias is not None,
            device="meta",
        )
        plain.load_state_dict(self.state_dict() | {"weight": weight}, assign=True)
        return plain


class ChannelNorm(nn.Module):
    """Layer norm over the channels of every position, in float32 or better, with a gain only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = precise(x)
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        return (x - mean) * (variance + 1e-5).rsqrt() * self.g


class PreNorm(nn.Module):
    """fn(norm(x))."""

    def __init__(self, channels: int, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn
        self.norm = ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.norm(x))


class Residual(nn.Module):
    """x + fn(x)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn(x)


class Block(nn.Module):
    """Convolution, group norm, scale and shift, SiLU."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.proj = WeightStandardizedConv2d(inputs, outputs, 3, padding=1)
        self.norm = GroupNorm(groups, outputs)

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        h = self.norm(self.proj(x))
        if scale is not None and shift is not None:
            h = h * (scale + 1) + shift
        return F.silu(h)


class ResidualBlock(nn.Module):
    """Two blocks, the first with scale and shift from the embedding (B, `embedding`), and a skip."""

    def __init__(self, inputs: int, outputs: int, embedding: int, groups: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * outputs))
        self.block1 = Block(inputs, outputs, groups)
        self.block2 = Block(outputs, outputs, groups)
        self.res_conv = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.mlp(embedding)[:, :, None, None].chunk(2, dim=1)
        return self.block2(self.block1(x, scale, shift)) + self.res_conv(x)


class LinearAttention(nn.Module):
    """Attention whose cost is linear in the positions: softmax of queries over features, of keys over positions.

    The sum over positions is divided by the sum of the keys afterwards, so that half precision, which would round
    keys near 1/(HW) away, can be multiplied as it is.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = HEADS * HEAD_CHANNELS
        self.to_qkv = nn.Conv2d(channels, 3 * inner, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(inner, channels, 1), ChannelNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = _heads(precise(self.to_qkv(x)))
        query = query.softmax(dim=2) * HEAD_CHANNELS**-0.5
        key = (key - key.amax(dim=3, keepdim=True)).exp()
        context = precise(over_positions(key, value)) / key.sum(dim=3, keepdim=True)
        out = (context.transpose(2, 3) @ query).reshape(len(x), -1, *x.shape[2:])
        convolution, norm = cast(nn.Conv2d, self.to_out[0]), self.to_out[1]
        # the published division of the values by HW, after the convolution: before it, half precision underflows
        out = precise(F.conv2d(out.to(convolution.weight.dtype), convolution.weight)) / (x.shape[2] * x.shape[3])
        return norm(out + cast(Tensor, convolution.bias)[:, None, None])


def over_positions(key: Tensor, value: Tensor) -> Tensor:
    """Sum over positions of key value^T, (B, heads, features, features), of two (B, heads, features, positions).

    In pieces, which are added: one sum over so many positions occupies a small part of a GPU, and is less precise.
    """
    pieces, rest = divmod(key.shape[3], POSITIONS)
    if not pieces:
        return key @ value.transpose(2, 3)
    parts = [part[..., : pieces * POSITIONS].unflatten(3, (pieces, POSITIONS)).transpose(2, 3) for part in (key, value)]
    whole = precise(parts[0] @ parts[1].transpose(3, 4)).sum(dim=2)
    return whole + key[..., -rest:] @ value[..., -rest:].transpose(2, 3) if rest else whole


class Attention(nn.Module):
    """Attention of all positions to all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = HEADS * HEAD_CHANNELS
        self.to_qkv = nn.Conv2d(channels, 3 * inner, 1, bias=False)
        self.to_out = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part.transpose(2, 3) for part in _heads(self.to_qkv(x)))
        out = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(out.transpose(2, 3).reshape(len(x), -1, *x.shape[2:]))


def precise(x: Tensor) -> Tensor:
    """`x` in float32, or float64 if it is."""
    return x if x.dtype == torch.float64 else x.float()


def _heads(qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, (B, heads, features, positions)."""
    query, key, value = qkv.flatten(2).unflatten(1, (3, HEADS, HEAD_CHANNELS)).unbind(1)
    return query, key, value
