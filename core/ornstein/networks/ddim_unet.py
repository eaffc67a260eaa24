"""The UNet of DDPM and DDIM (Ho et al. 2020, arXiv 2006.11239; Song et al. 2021, arXiv 2010.02502) for CIFAR-10, with
the published tensor names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein.networks.conditioning import join
from ornstein.networks.ncsnpp_layers import GroupNorm
from ornstein.networks.padding import pad_to_multiple
from ornstein.networks.resampling import Down, Up
from ornstein.networks.time_embedding import sin_cos


class DDIMUNet(nn.Module):
    """network(x, t, y) on cat(x, y): x (B, in_channels, H, W) and t (B,), out (B, in_channels, H, W).

    The defaults are the published CIFAR-10 network of 35,746,307 parameters. Sides of any length are padded inside to a
    multiple of 2^(levels - 1) and cropped.

    Args:
        in_channels: of the state.
        condition_channels: of y, 0 for generation.
        ch: channels of the first level, a multiple of 32 as those of all levels.
        ch_mult: channels of every level, as multiples of ch; each further level halves the sides.
        num_res_blocks: per level on the way down (one more on the way up).
        attn_resolutions: sides whose level gets attention, for pictures of side image_size; the middle has it always.
        image_size: only places the attention.
        dropout: in the residual blocks.
    """

    def __init__(
        self,
        in_channels: int = 3,
        condition_channels: int = 0,
        ch: int = 128,
        ch_mult: Sequence[int] = (1, 2, 2, 2),
        num_res_blocks: int = 2,
        attn_resolutions: Sequence[int] = (16,),
        image_size: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if ch < 32 or ch % 32 or not ch_mult or min(num_res_blocks, *ch_mult) < 1:
            raise UserError(
                "a DDIM UNet needs ch a multiple of 32, num_res_blocks and ch_mult of at least 1; "
                f"got {ch}, {num_res_blocks} and {list(ch_mult)}"
            )
        self.in_channels, self.condition_channels, self.ch = in_channels, condition_channels, ch
        self.ch_mult, self.num_res_blocks = tuple(ch_mult), num_res_blocks
        self.attn_resolutions, self.image_size, self.dropout = tuple(attn_resolutions), image_size, dropout

        def attention(channels: int, level: int, blocks: int) -> list[AttentionBlock]:
            wanted = image_size // 2**level in self.attn_resolutions
            return [AttentionBlock(channels) for _ in range(blocks)] if wanted else []

        size, last = 4 * ch, len(ch_mult) - 1
        self.temb = TimeEmbedding(ch)
        self.conv_in = nn.Conv2d(in_channels + condition_channels, ch, 3, padding=1)
        channels, skips = ch, [ch]
        self.down = nn.ModuleList()
        for level, multiple in enumerate(ch_mult):
            blocks = []
            for _ in range(num_res_blocks):
                blocks.append(ResidualBlock(channels, ch * multiple, size, dropout))
                channels = ch * multiple
                skips.append(channels)
            shrink = Down(channels) if level < last else None
            self.down.append(Level(blocks, attention(channels, level, len(blocks)), downsample=shrink))
            if level < last:
                skips.append(channels)
        self.mid = Middle(channels, size, dropout)
        up = []
        for level in range(last, -1, -1):
            blocks = []
            for _ in range(num_res_blocks + 1):
                blocks.append(ResidualBlock(channels + skips.pop(), ch * ch_mult[level], size, dropout))
                channels = ch * ch_mult[level]
            grow = Up(channels) if level else None
            up.append(Level(blocks, attention(channels, level, len(blocks)), upsample=grow))
        self.up = nn.ModuleList(reversed(up))
        self.norm_out = GroupNorm(32, channels, eps=1e-6)
        self.conv_out = nn.Conv2d(channels, in_channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Output of the network in the dtype of x.

        Raises:
            ValueError: sizes or channels that do not fit.
        """
        signal = join(x, t, y, None, self.in_channels, self.condition_channels)
        embedding = F.silu(self.temb(t))
        h = self.conv_in(pad_to_multiple(signal, 2 ** (len(self.ch_mult) - 1)))
        skips = [h]
        for stage in cast(Iterable[Level], self.down):
            for index in range(self.num_res_blocks):
                h = stage(index, h, embedding)
                skips.append(h)
            if stage.downsample is not None:
                h = stage.downsample(h)
                skips.append(h)
        h = self.mid(h, embedding)
        for stage in reversed(list(cast(Iterable[Level], self.up))):
            for index in range(self.num_res_blocks + 1):
                h = stage(index, torch.cat([h, skips.pop()], dim=1), embedding)
            if stage.upsample is not None:
                h = stage.upsample(h)
        return self.conv_out(F.silu(self.norm_out(h)))[..., : x.shape[2], : x.shape[3]].to(x.dtype)


def from_published(options: Mapping[str, Any]) -> DDIMUNet:
    """The network of a published DDIM or Resfusion generation checkpoint from its options, defaults as published.

    Args:
        options: flat mapping under the published names; entries that are not the network's are ignored.

    Raises:
        UserError: an option value that is not built.
    """
    if not options.get("resamp_with_conv", True) or options.get("out_ch", 3) != options.get("in_channels", 3):
        raise UserError("a DDIM UNet is built with resamp_with_conv and as many output as input channels only")
    names = ("in_channels", "ch", "ch_mult", "num_res_blocks", "attn_resolutions", "image_size", "dropout")
    condition = options.get("input_condition_channels", 3) if options.get("input_condition", False) else 0
    return DDIMUNet(condition_channels=condition, **{name: options[name] for name in names if name in options})


class TimeEmbedding(nn.Module):
    """Times (B,) to embeddings (B, 4 `size`)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.dense = nn.ModuleList([nn.Linear(size, 4 * size), nn.Linear(4 * size, 4 * size)])

    def forward(self, t: Tensor) -> Tensor:
        return self.dense[1](F.silu(self.dense[0](sin_cos(t, self.size))))


class Middle(nn.Module):
    """Block, attention, block."""

    def __init__(self, channels: int, size: int, dropout: float) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, size, dropout)
        self.attn_1 = AttentionBlock(channels)
        self.block_2 = ResidualBlock(channels, channels, size, dropout)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x, embedding)), embedding)


class Level(nn.Module):
    """The residual blocks of one resolution, each followed by attention or not, and the way to the next."""

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        attention: Sequence[nn.Module],
        downsample: nn.Module | None = None,
        upsample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.attn = nn.ModuleList(attention)
        self.downsample = downsample
        self.upsample = upsample

    def forward(self, index: int, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.block[index](x, embedding)
        return self.attn[index](h) if len(self.attn) else h


class ResidualBlock(nn.Module):
    """Two convolutions with the embedding (B, `size`), after SiLU, added between them."""

    def __init__(self, inputs: int, outputs: int, size: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = GroupNorm(32, inputs, eps=1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.temb_proj = nn.Linear(size, outputs)
        self.norm2 = GroupNorm(32, outputs, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.temb_proj(embedding)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class AttentionBlock(nn.Module):
    """Residual self-attention of one head over all positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(32, channels, eps=1e-6)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        query, key, value = (layer(h).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(query, key, value)[:, 0].transpose(1, 2)
        return x + self.proj_out(out.reshape(x.shape))
