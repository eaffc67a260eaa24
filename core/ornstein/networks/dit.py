"""Diffusion transformer (Peebles and Xie 2023, arXiv 2212.09748) on the state and its condition, with the published
tensor names of Resfusion's (Shi et al. 2024, arXiv 2311.14900), which knows no classes.

Tokens are (B, N, E), the embedding of the time is (B, E).
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein.networks.conditioning import join
from ornstein.networks.time_embedding import cos_sin

FREQUENCIES = 256


class DiT(nn.Module):
    """network(x, t, y, mask=mask) on cat(x, y, mask): x (B, channels, input_size, input_size) and t (B,), out as x.

    The defaults are DiT-B/8 on pictures of 256 x 256, with 130,739,136 parameters, the fixed positions among them.
    DiT-S is hidden_size 384, depth 12, num_heads 6; DiT-L is 1024, 24, 16.

    Args:
        input_size: side of the pictures, which are square and have this size only.
        patch_size: side of a token, divides input_size.
        channels: of the state.
        condition_channels: of y and the mask together.
        hidden_size: E, a multiple of 4 and of num_heads.
        depth: blocks.
        num_heads: of the attention.
        mlp_ratio: hidden width of the perceptrons over E.
    """

    def __init__(
        self,
        input_size: int = 256,
        patch_size: int = 8,
        channels: int = 3,
        condition_channels: int = 3,
        hidden_size: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        if input_size < 1 or patch_size < 1 or input_size % patch_size:
            raise UserError(f"input_size {input_size} of a DiT must be a multiple of patch_size {patch_size}")
        if num_heads < 1 or hidden_size % num_heads or hidden_size % 4:
            raise UserError(f"hidden_size {hidden_size} must be a multiple of 4 and of num_heads {num_heads}")
        self.input_size, self.patch_size, self.channels = input_size, patch_size, channels
        self.condition_channels, self.hidden_size, self.depth = condition_channels, hidden_size, depth
        self.num_heads, self.mlp_ratio = num_heads, mlp_ratio
        self.x_embedder = PatchEmbedding(channels + condition_channels, hidden_size, patch_size)
        self.t_embedder = TimeEmbedding(hidden_size)
        fixed = positions(hidden_size, input_size // patch_size)
        self.pos_embed = nn.Parameter(fixed, requires_grad=False)  # a parameter: published counts and lists hold it
        self.register_load_state_dict_pre_hook(_keep_positions)
        self.blocks = nn.ModuleList(Block(hidden_size, num_heads, mlp_ratio) for _ in range(depth))
        self.final_layer = FinalLayer(hidden_size, patch_size**2 * channels)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Output of the network in the dtype of x.

        Raises:
            ValueError: a picture of another size, or y and mask without condition_channels channels.
        """
        signal = join(x, t, y, mask, self.channels, self.condition_channels)
        if signal.shape[2:] != (self.input_size, self.input_size):
            raise ValueError(f"this DiT takes pictures of side {self.input_size}, got {tuple(x.shape)}")
        tokens = self.x_embedder(signal) + self.pos_embed
        condition = F.silu(self.t_embedder(t))
        for block in self.blocks:
            tokens = block(tokens, condition)
        side, patch = self.input_size // self.patch_size, self.patch_size
        out = self.final_layer(tokens, condition).reshape(-1, side, side, patch, patch, self.channels)
        return out.permute(0, 5, 1, 3, 2, 4).reshape(x.shape).to(x.dtype)


def from_published(options: Mapping[str, Any]) -> DiT:
    """The network of a published Resfusion checkpoint from its options, defaults as published.

    Args:
        options: flat mapping under the published names; entries that are not the network's are ignored.
    """
    names = ("input_size", "patch_size", "channels", "hidden_size", "depth", "num_heads", "mlp_ratio")
    condition = options.get("input_condition_channels", 3) if options.get("input_condition", True) else 0
    condition += options.get("mask_condition_channels", 2) if options.get("mask_condition", False) else 0
    return DiT(condition_channels=condition, **{name: options[name] for name in names if name in options})


def positions(size: int, side: int) -> Tensor:
    """Fixed embedding of a `side` x `side` grid, row by row: [sin, cos] of the column, then of the row; (1, side^2,
    `size`), worked out in float64."""
    rates = 1e4 ** (-torch.arange(size // 4, dtype=torch.float64) / (size // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * rates
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns, rows = axis[None].expand(side, -1, -1), axis[:, None].expand(-1, side, -1)
    return torch.cat([columns, rows], dim=2).reshape(1, side**2, size).float()


def _keep_positions(network: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """The positions are fixed: a checkpoint may lack them, and does not change them."""
    state[prefix + "pos_embed"] = network.pos_embed


class PatchEmbedding(nn.Module):
    """Pictures (B, C, H, W) to tokens, row by row."""

    def __init__(self, channels: int, size: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, size, patch, stride=patch)
        nn.init.xavier_uniform_(self.proj.weight.view(size, -1))
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class TimeEmbedding(nn.Module):
    """Times (B,) to (B, `size`)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        first, second = nn.Linear(FREQUENCIES, size), nn.Linear(size, size)
        for layer in (first, second):
            nn.init.normal_(layer.weight, std=0.02)
        self.mlp = nn.Sequential(first, nn.SiLU(), second)

    def forward(self, t: Tensor) -> Tensor:
        return self.mlp(cos_sin(t, FREQUENCIES))


class Attention(nn.Module):
    """Attention of all tokens to all."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = linear(size, 3 * size)
        self.proj = linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(query, key, value)
        return self.proj(out.transpose(1, 2).flatten(2))


class Perceptron(nn.Module):
    """One hidden layer with the tanh form of GELU."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = linear(size, hidden)
        self.fc2 = linear(hidden, size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """Attention and perceptron, each shifted, scaled and gated by the condition; all gates start closed."""

    def __init__(self, size: int, heads: int, ratio: float) -> None:
        super().__init__()
        self.attn = Attention(size, heads)
        self.mlp = Perceptron(size, int(size * ratio))
        self.adaLN_modulation = nn.Sequential(nn.Identity(), zero(nn.Linear(size, 6 * size)))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self.adaLN_modulation(condition)[:, None].chunk(6, dim=2)
        x = x + gate * self.attn(modulated_norm(x, shift, scale))
        return x + gate2 * self.mlp(modulated_norm(x, shift2, scale2))


class FinalLayer(nn.Module):
    """Tokens to the values of their patches, which start as zero."""

    def __init__(self, size: int, outputs: int) -> None:
        super().__init__()
        self.linear = zero(nn.Linear(size, outputs))
        self.adaLN_modulation = nn.Sequential(nn.Identity(), zero(nn.Linear(size, 2 * size)))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition)[:, None].chunk(2, dim=2)
        return self.linear(modulated_norm(x, shift, scale))


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without weights, in float32 or better, times 1 + `scale` plus `shift`."""
    x = x if x.dtype == torch.float64 else x.float()
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Linear layer with the published initialisation."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def zero(layer: nn.Linear) -> nn.Linear:
    """`layer` that starts as zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
