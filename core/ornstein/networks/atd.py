"""Adaptive token dictionary (Zhang et al. 2024, arXiv 2401.08209): the super-resolution network that UPSR asks for its
first estimate, with the published tensor names.

Features are tokens (B, H, W, C), the dictionary of a group is (B, M, C).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein.networks.window_attention import relative_position_index, shift_mask, window_attention


class ATD(nn.Module):
    """network(x): pictures (B, channels, H, W) in [0, 1] to (B, channels, upscale H, upscale W), not clamped.

    The defaults are the light network of UPSR (2,532,360 parameters). UPSR's estimate in [-1, 1] of a picture in
    [-1, 1] is 2 network((x + 1)/2) - 1. Sides of any length are extended inside by mirrored copies to multiples of
    window_size, and cropped. Tokens are sorted by category with a stable sort, so that the result does not depend on
    the device.

    Args:
        channels: of the pictures.
        upscale: how many times larger the output is.
        embed_dim: C.
        depths: layers of every group.
        num_heads: of the attention, as many entries as depths.
        window_size: side of a window; every second layer shifts them by half of it.
        category_size: tokens that attend to each other after sorting.
        num_tokens: M, entries of a dictionary.
        reducted_dim: features in which tokens and dictionary are compared.
        convffn_kernel_size: of the depthwise convolution, odd.
        mlp_ratio: hidden features over C.
    """

    def __init__(
        self,
        channels: int = 3,
        upscale: int = 4,
        embed_dim: int = 96,
        depths: Sequence[int] = (6, 6, 6, 6),
        num_heads: Sequence[int] = (4, 4, 4, 4),
        window_size: int = 16,
        category_size: int = 128,
        num_tokens: int = 64,
        reducted_dim: int = 8,
        convffn_kernel_size: int = 7,
        mlp_ratio: float = 1.0,
    ) -> None:
        super().__init__()
        if len(depths) != len(num_heads) or min(*depths, *num_heads, window_size, category_size, num_tokens) < 1:
            raise UserError(
                "depths and num_heads of an ATD need one entry of at least 1 per group, and window_size, category_size "
                "and num_tokens must be at least 1"
            )
        if any(embed_dim % heads for heads in num_heads) or convffn_kernel_size % 2 == 0:
            raise UserError(
                f"embed_dim {embed_dim} of an ATD must be a multiple of every entry of num_heads {list(num_heads)}, "
                f"and convffn_kernel_size {convffn_kernel_size} odd"
            )
        self.channels, self.upscale, self.embed_dim, self.depths = channels, upscale, embed_dim, tuple(depths)
        self.num_heads, self.window_size, self.category_size = tuple(num_heads), window_size, category_size
        self.num_tokens, self.reducted_dim = num_tokens, reducted_dim
        self.convffn_kernel_size, self.mlp_ratio = convffn_kernel_size, mlp_ratio
        self.index: Tensor
        self.register_buffer("index", relative_position_index(window_size), persistent=False)
        self.register_load_state_dict_pre_hook(_drop_index)
        self.conv_first = nn.Conv2d(channels, embed_dim, 3, padding=1)
        self.patch_embed = Norm(embed_dim)
        self.layers = nn.ModuleList(
            Group(
                [
                    Layer(
                        embed_dim,
                        heads,
                        window_size,
                        window_size // 2 if index % 2 else 0,
                        category_size,
                        num_tokens,
                        reducted_dim,
                        convffn_kernel_size,
                        mlp_ratio,
                        last=index == depth - 1,
                    )
                    for index in range(depth)
                ],
                embed_dim,
                num_tokens,
            )
            for depth, heads in zip(depths, num_heads, strict=True)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = nn.Conv2d(embed_dim, embed_dim, 3, padding=1)
        self.upsample = nn.Sequential(
            nn.Conv2d(embed_dim, channels * upscale**2, 3, padding=1), nn.PixelShuffle(upscale)
        )

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """The enlarged pictures in the dtype of x; a time is not looked at.

        Raises:
            ValueError: x is no batch of pictures with these channels.
        """
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"x must be (B, {self.channels}, H, W), got {tuple(x.shape)}")
        first = self.conv_first(2 * _mirrored(x, self.window_size) - 1)
        mask = shift_mask(first.shape[2], first.shape[3], self.window_size, self.window_size // 2, x.device)
        tokens = self.patch_embed(first.permute(0, 2, 3, 1))
        for group in self.layers:
            tokens = group(tokens, self.index, mask)
        h = first + self.conv_after_body(self.norm(tokens).permute(0, 3, 1, 2))
        out = (self.upsample(h) + 1) / 2
        return out[..., : self.upscale * x.shape[2], : self.upscale * x.shape[3]].to(x.dtype)


def from_published(options: Mapping[str, Any]) -> ATD:
    """The network of a published checkpoint from its options; what is absent is that of UPSR's light network.

    Args:
        options: flat mapping under the published names; entries that are not the network's are ignored.

    Raises:
        UserError: an option value that is not built.
    """
    for name, built in (("upsampler", "pixelshuffledirect"), ("resi_connection", "1conv"), ("img_range", 1.0)):
        if options.get(name, built) != built:
            raise UserError(f"an ATD with {name} = {options[name]!r} is not built; only {built!r} is")
    names = (
        "upscale embed_dim depths num_heads window_size category_size num_tokens reducted_dim convffn_kernel_size "
        "mlp_ratio"
    )
    arguments = {name: options[name] for name in names.split() if name in options}
    return ATD(channels=options.get("in_chans", 3), **arguments)


def _mirrored(x: Tensor, multiple: int) -> Tensor:
    """`x` (B, C, H, W) continued by mirrored copies, edge included, up to multiples of both sides."""
    for axis in (2, 3):
        side = x.shape[axis]
        size = -(-side // multiple) * multiple
        pair = torch.cat([x, x.flip(axis)], dim=axis)
        x = torch.cat([pair] * -(-size // (2 * side)), dim=axis).narrow(axis, 0, size)
    return x


def _drop_index(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    """Published checkpoints hold the index of relative positions; it is worked out here."""
    state.pop(prefix + "relative_position_index_SA", None)


class Norm(nn.Module):
    """Layer norm under its published name."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class Layers(nn.Module):
    """Layers that share one dictionary, which each refines for the next."""

    def __init__(self, layers: Sequence[nn.Module], size: int, tokens: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.td = nn.Parameter(torch.randn(tokens, size))

    def forward(self, x: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        dictionary = self.td.expand(len(x), -1, -1)
        for layer in self.layers:
            x, dictionary = layer(x, dictionary, index, mask)
        return x


class Group(nn.Module):
    """Layers, a convolution and a residual."""

    def __init__(self, layers: Sequence[nn.Module], size: int, tokens: int) -> None:
        super().__init__()
        self.patch_embed = Norm(size)
        self.residual_group = Layers(layers, size, tokens)
        self.conv = nn.Conv2d(size, size, 3, padding=1)

    def forward(self, x: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        h = self.residual_group(x, index, mask)
        return x + self.patch_embed(self.conv(h.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class Layer(nn.Module):
    """The sum of three attentions over sqrt 3 and a perceptron, each after layer norm and with a residual."""

    def __init__(
        self,
        size: int,
        heads: int,
        window: int,
        shift: int,
        category_size: int,
        tokens: int,
        reduced: int,
        kernel: int,
        mlp_ratio: float,
        last: bool,
    ) -> None:
        super().__init__()
        self.shift, self.last = shift, last
        self.norm1 = nn.LayerNorm(size)
        self.norm2 = nn.LayerNorm(size)
        if not last:
            self.norm3 = nn.InstanceNorm1d(tokens, affine=True)
            self.sigma = nn.Parameter(torch.zeros(tokens, 1))
        self.wqkv = nn.Linear(size, 3 * size)
        self.attn_win = WindowAttention(size, heads, window)
        self.attn_atd = DictionaryAttention(size, tokens, reduced)
        self.attn_aca = CategoryAttention(size, heads, category_size)
        self.convffn = Perceptron(size, int(size * mlp_ratio), kernel)

    def forward(self, x: Tensor, dictionary: Tensor, index: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        dictionary = F.normalize(dictionary, dim=2)
        h = self.norm1(x)
        qkv = self.wqkv(h)
        seen, similarity = self.attn_atd(h.flatten(1, 2), dictionary)
        alike = self.attn_aca(qkv.flatten(1, 2), similarity)
        near = self.attn_win(qkv, self.shift, index, mask if self.shift else None)
        x = x + (near + (seen + alike).reshape(x.shape)) / math.sqrt(3)
        x = x + self.convffn(self.norm2(x))
        if not self.last:
            keep = self.sigma.sigmoid()
            weights = self.norm3(similarity.transpose(1, 2)).softmax(dim=2)
            dictionary = keep * dictionary + (1 - keep) * (weights @ x.flatten(1, 2))
        return x, dictionary


class WindowAttention(nn.Module):
    """Attention inside windows, from query, key and value (B, H, W, 3C)."""

    def __init__(self, size: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.proj = nn.Linear(size, size)

    def forward(self, qkv: Tensor, shift: int, index: Tensor, mask: Tensor | None) -> Tensor:
        bias = self.relative_position_bias_table[index].permute(2, 0, 1)
        return self.proj(window_attention(qkv, self.heads, self.window, shift, bias, mask))


class DictionaryAttention(nn.Module):
    """Cross-attention of tokens (B, N, C) to the dictionary (B, M, C); gives (B, N, C) and its map (B, N, M)."""

    def __init__(self, size: int, tokens: int, reduced: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.scale = nn.Parameter(0.5 * torch.ones(tokens))
        self.wq = nn.Linear(size, reduced)
        self.wk = nn.Linear(size, reduced)
        self.wv = nn.Linear(size, size)

    def forward(self, x: Tensor, dictionary: Tensor) -> tuple[Tensor, Tensor]:
        query, key = self.wq(x), self.wk(dictionary)
        with torch.autocast(x.device.type, enabled=False):  # the category is an argmax: half precision makes ties
            if query.dtype != torch.float64:
                query, key = query.float(), key.float()
            cosine = F.normalize(query, dim=2) @ F.normalize(key, dim=2).transpose(1, 2)
            similarity = (cosine * (1 + self.scale.clamp(0, 1) * math.log(self.tokens))).softmax(dim=2)
        return similarity @ self.wv(dictionary), similarity


def category_order(similarity: Tensor) -> Tensor:
    """Tokens by category, the entry that each is most like, and in their own order within one: (B, N, M) -> (B, N).

    Published code sorts without a promise about equal categories, so its order, and with it the output, depends on the
    device and the version of the library.
    """
    return similarity.argmax(dim=2).sort(dim=1, stable=True).indices


class CategoryAttention(nn.Module):
    """Attention among tokens that the same entry of the dictionary describes best: sorted by it and cut in pieces."""

    def __init__(self, size: int, heads: int, category_size: int) -> None:
        super().__init__()
        self.heads, self.category_size = heads, category_size
        self.logit_scale = nn.Parameter(torch.full((1, 1), math.log(10)))
        self.proj = nn.Linear(size, size)

    def forward(self, qkv: Tensor, similarity: Tensor) -> Tensor:
        count = qkv.shape[1]
        order = category_order(similarity)
        numbers = torch.arange(count, device=order.device).expand_as(order)
        place = torch.empty_like(order).scatter_(1, order, numbers)[:, :, None]  # where each token went
        piece = min(count, self.category_size)
        missing = -count % piece
        h = qkv.gather(1, order[:, :, None].expand_as(qkv))
        h = torch.cat([h, h[:, count - missing :].flip(1)], dim=1)
        h = h.unflatten(2, (3, self.heads, -1)).unflatten(1, (-1, piece)).permute(3, 0, 1, 4, 2, 5)
        query, key, value = h.flatten(1, 2).unbind(0)  # (B pieces, heads, piece, C / heads)
        query = query * self.logit_scale.clamp(max=math.log(100)).exp().to(query.dtype)
        h = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        h = h.transpose(1, 2).reshape(len(qkv), -1, qkv.shape[2] // 3)
        return self.proj(h.gather(1, place.expand(-1, -1, h.shape[2])))


class Perceptron(nn.Module):
    """One hidden layer whose features also see their neighbours."""

    def __init__(self, size: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size, hidden)
        self.dwconv = nn.Module()
        self.dwconv.depthwise_conv = nn.Sequential(
            nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden), nn.GELU()
        )
        self.fc2 = nn.Linear(hidden, size)

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(self.fc1(x))
        neighbours: Tensor = self.dwconv.depthwise_conv(h.permute(0, 3, 1, 2))  # type: ignore[operator]
        return self.fc2(h + neighbours.permute(0, 2, 3, 1))
