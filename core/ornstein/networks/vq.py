"""The vector-quantised autoencoder of latent diffusion (Esser et al. 2021, arXiv 2012.09841; Rombach et al. 2022, arXiv
2112.10752), with the published tensor names.

Pictures x are (B, C, H, W), latents z (B, D, H/f, W/f); f is 2 to the number of levels less one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein.networks.ncsnpp_layers import GroupNorm
from ornstein.networks.resampling import Down, Up

DISTANCES = 2**26
"""Distances between latents and codes that are held at once."""


class Quantized(NamedTuple):
    """The codes nearest to latents."""

    codes: Tensor
    """q, like the latents (B, D, h, w), in float32; the gradient goes to the codebook."""
    indices: Tensor
    """Their numbers, (B, h, w)."""


class VQAutoencoder(nn.Module):
    """Pictures to latents and back through a codebook; the network is called with x and gives its reconstruction.

    The defaults are vq-f4 (55,322,782 parameters), which ResShift, SinSR and DifIISR run on. `encode` does not
    quantise, `decode` does: the process runs on continuous latents.

    Args:
        in_channels: C of the picture.
        ch: channels of the finest level, a multiple of 32.
        ch_mult: channels of every level, as multiples of ch; each further level halves the sides.
        num_res_blocks: per level of the encoder (one more in the decoder).
        z_channels: between encoder and codebook.
        embed_dim: D, the length of a code.
        n_embed: codes in the book.
        dropout: in the residual blocks.
        attn_resolutions: sides whose level has attention after every block, for pictures of side `resolution`; vq-f4
            has it in the middle only, as all do.
        resolution: places the attention, whatever the size of the picture.

    Raises:
        UserError: sizes that no network can have.
    """

    def __init__(
        self,
        in_channels: int = 3,
        ch: int = 128,
        ch_mult: Sequence[int] = (1, 2, 4),
        num_res_blocks: int = 2,
        z_channels: int = 3,
        embed_dim: int = 3,
        n_embed: int = 8192,
        dropout: float = 0.0,
        attn_resolutions: Sequence[int] = (),
        resolution: int = 256,
    ) -> None:
        super().__init__()
        if not ch_mult or min(*ch_mult, in_channels, ch, num_res_blocks, z_channels, embed_dim, n_embed) < 1 or ch % 32:
            raise UserError(
                "a VQAutoencoder needs ch, a multiple of 32, and ch_mult, num_res_blocks, channels and n_embed of at "
                f"least 1, got ch {ch}, ch_mult {list(ch_mult)}, num_res_blocks {num_res_blocks}, in_channels "
                f"{in_channels}, z_channels {z_channels}, embed_dim {embed_dim} and n_embed {n_embed}"
            )
        self.in_channels, self.ch, self.ch_mult = in_channels, ch, tuple(ch_mult)
        self.num_res_blocks, self.z_channels, self.embed_dim = num_res_blocks, z_channels, embed_dim
        self.n_embed, self.dropout = n_embed, dropout
        self.attn_resolutions, self.resolution = tuple(attn_resolutions), resolution
        attentive = tuple(resolution // 2**level in self.attn_resolutions for level in range(len(self.ch_mult)))
        self.encoder = Encoder(in_channels, ch, self.ch_mult, num_res_blocks, z_channels, dropout, attentive)
        self.decoder = Decoder(in_channels, ch, self.ch_mult, num_res_blocks, z_channels, dropout, attentive)
        self.quantize = Codebook(n_embed, embed_dim)
        self.quant_conv = nn.Conv2d(z_channels, embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, z_channels, 1)

    @property
    def factor(self) -> int:
        """f, how many times shorter the sides of latents are."""
        return 2 ** (len(self.ch_mult) - 1)

    def encode(self, x: Tensor) -> Tensor:
        """z (B, D, H/f, W/f) of `x` (B, C, H, W), usually in [-1, 1]; not quantised.

        Raises:
            ValueError: other channels, or sides that are no multiples of f.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels or x.shape[2] % self.factor or x.shape[3] % self.factor:
            raise ValueError(
                f"this autoencoder takes (B, {self.in_channels}, H, W) with sides that are multiples of "
                f"{self.factor}, got {tuple(x.shape)}"
            )
        return self.quant_conv(self.encoder(x))

    def decode(self, z: Tensor, quantize: bool = True) -> Tensor:
        """The picture (B, C, f h, f w) of latents `z` (B, D, h, w).

        With `quantize` they become their nearest codes first, and the gradient passes straight through to z (van den
        Oord et al. 2017, arXiv 1711.00937, section 3.2).
        """
        if quantize:
            z = straight_through(z, self.quantize(z).codes)
        return self.decoder(self.post_quant_conv(z))

    def vq_loss(self, z: Tensor) -> Tensor:
        """The loss of the codes that are nearest to `z`, a scalar: `code_loss`."""
        return code_loss(z, self.quantize(z).codes)

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """The reconstruction of `x`; `t` is what a denoiser tells its network, and says nothing here."""
        return self.decode(self.encode(x))


def straight_through(z: Tensor, codes: Tensor) -> Tensor:
    """`codes`, with the gradient of `z`."""
    return z + (codes - z).detach()


def code_loss(z: Tensor, codes: Tensor, commitment: float = 0.25) -> Tensor:
    """mean (sg[q] - z)^2 + commitment mean (q - sg[z])^2, in float32.

    The published code puts the factor on the second term, which moves the codes, and not on the first, which the paper
    calls commitment (van den Oord et al. 2017, equation 3).
    """
    z, codes = z.float(), codes.float()
    return (codes.detach() - z).square().mean() + commitment * (codes - z.detach()).square().mean()


def from_published(options: Mapping[str, Any]) -> VQAutoencoder:
    """The network of published options: `embed_dim`, `n_embed` and the mapping `ddconfig`.

    Raises:
        UserError: two sets of latents, or outputs other than the inputs: no vector-quantised one has them.
    """
    inner = dict(options.get("ddconfig", {}))
    if inner.get("double_z") or inner.get("out_ch") != inner.get("in_channels"):
        raise UserError(
            "this autoencoder has double_z, or out_ch other than in_channels; only vector-quantised ones are known"
        )
    names = [
        "in_channels",
        "ch",
        "ch_mult",
        "num_res_blocks",
        "z_channels",
        "dropout",
        "attn_resolutions",
        "resolution",
    ]
    arguments = {name: inner[name] for name in names if name in inner}
    arguments |= {name: options[name] for name in ("embed_dim", "n_embed") if name in options}
    return VQAutoencoder(**arguments)


class Codebook(nn.Module):
    """Codes (n_embed, D); called with latents it gives the nearest ones."""

    def __init__(self, n_embed: int, embed_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_embed, embed_dim)
        nn.init.uniform_(self.embedding.weight, -1 / n_embed, 1 / n_embed)

    def forward(self, z: Tensor) -> Quantized:
        """The codes nearest to `z` (B, D, h, w)."""
        with torch.autocast(z.device.type, enabled=False):  # in half precision other codes would be the nearest
            book = self.embedding.weight.float()
            latents = z.detach().float().permute(0, 2, 3, 1)
            rows = latents.reshape(-1, latents.shape[-1])
            found = [
                torch.cdist(part, book.detach(), compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
                for part in rows.split(max(1, DISTANCES // len(book)))
            ]
            indices = torch.cat(found).reshape(latents.shape[:-1])
            return Quantized(F.embedding(indices, book).permute(0, 3, 1, 2), indices)


class Encoder(nn.Module):
    """From the picture down to z_channels."""

    def __init__(
        self,
        in_channels: int,
        ch: int,
        ch_mult: tuple[int, ...],
        blocks: int,
        z_channels: int,
        dropout: float,
        attentive: tuple[bool, ...],
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, ch, 3, padding=1)
        self.down = nn.ModuleList()
        channels = ch
        for level, multiple in enumerate(ch_mult):
            resample = None if level == len(ch_mult) - 1 else "downsample"
            self.down.append(Level(channels, ch * multiple, blocks, dropout, attentive[level], resample))
            channels = ch * multiple
        self.mid = Middle(channels, dropout)
        self.norm_out = _norm(channels)
        self.conv_out = nn.Conv2d(channels, z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    """From z_channels up to the picture; `up[0]` is the finest level."""

    def __init__(
        self,
        out_channels: int,
        ch: int,
        ch_mult: tuple[int, ...],
        blocks: int,
        z_channels: int,
        dropout: float,
        attentive: tuple[bool, ...],
    ) -> None:
        super().__init__()
        channels = ch * ch_mult[-1]
        self.conv_in = nn.Conv2d(z_channels, channels, 3, padding=1)
        self.mid = Middle(channels, dropout)
        levels = []
        for level in range(len(ch_mult) - 1, -1, -1):
            resample = "upsample" if level else None
            levels.append(Level(channels, ch * ch_mult[level], blocks + 1, dropout, attentive[level], resample))
            channels = ch * ch_mult[level]
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = _norm(channels)
        self.conv_out = nn.Conv2d(channels, out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for level in reversed(list(self.up)):
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class Level(nn.Module):
    """Residual blocks, each perhaps with attention, then half or double the sides by the module called `resample`."""

    def __init__(
        self, inputs: int, outputs: int, blocks: int, dropout: float, attentive: bool, resample: str | None
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            ResidualBlock(inputs if index == 0 else outputs, outputs, dropout) for index in range(blocks)
        )
        self.attn = nn.ModuleList(Attention(outputs) for _ in range(blocks if attentive else 0))
        self.downsample = Down(outputs) if resample == "downsample" else None
        self.upsample = Up(outputs) if resample == "upsample" else None

    def forward(self, h: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            h = block(h)
            if len(self.attn):
                h = self.attn[index](h)
        for resample in (self.downsample, self.upsample):
            h = h if resample is None else resample(h)
        return h


class Middle(nn.Module):
    """Attention between two residual blocks."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, dropout)
        self.attn_1 = Attention(channels)
        self.block_2 = ResidualBlock(channels, channels, dropout)

    def forward(self, h: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(h)))


class ResidualBlock(nn.Module):
    """Two convolutions, each after group norm and swish."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = _norm(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.nin_shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return (x if self.nin_shortcut is None else self.nin_shortcut(x)) + h


class Attention(nn.Module):
    """One head over all pixels, with a residual.

    With `in_float16` set the pairs of pixels are compared in float16, which is most of the time for large pictures:
    normalised features are far from its bounds.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.in_float16 = False
        self.norm = _norm(channels)
        self.q, self.k, self.v = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (part(h).flatten(2).transpose(1, 2).contiguous() for part in (self.q, self.k, self.v))
        # one head as an axis of its own: only so do the kernels that never hold all pairs of pixels take it
        dtype = torch.float16 if self.in_float16 else q.dtype
        h = F.scaled_dot_product_attention(*(part[:, None].to(dtype) for part in (q, k, v)))[:, 0].to(q.dtype)
        return x + self.proj_out(h.transpose(1, 2).reshape(x.shape))


def _norm(channels: int) -> GroupNorm:
    return GroupNorm(32, channels, eps=1e-6)
