"""NPNet: the network that turns a noise into a golden one (Zhou et al. 2025, Golden Noise for Diffusion Models)."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ornstein.errors import UserError


class SelfAttention(nn.Module):
    """Multi-head self-attention without bias in q, k and v, with the published tensor names; (B, N, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed: Tensor = self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, count, width))
        return mixed


class SVDNet(nn.Module):
    """New singular values for a noise folded to a matrix; its singular vectors stay.

    The fold of (C, H, W) is (2 H, C/2 W) as published, or (H, C W) where C is odd; signals with one axis of values are
    (1, C, L). Singular vectors have no sign, and the published network depends on the one that the machine chose:
    `fix_signs` makes the largest entry of every left vector positive; published weights need False.
    """

    def __init__(self, channels: int, height: int, width: int, fix_signs: bool = True) -> None:
        super().__init__()
        self.channels, self.height, self.width, self.fix_signs = channels, height, width, fix_signs
        self.fold = 2 if channels % 2 == 0 else 1
        rows, columns = self.fold * height, channels // self.fold * width
        rank = min(rows, columns)
        self.mlp1 = nn.Sequential(nn.Linear(rows, 64), nn.ReLU(), nn.Linear(64, rank))
        self.mlp2 = nn.Sequential(nn.Linear(columns, 64), nn.ReLU(), nn.Linear(64, rank))
        self.mlp3 = nn.Sequential(nn.Linear(rank, rank))
        self.attention = SelfAttention(rank, math.gcd(8, rank))
        self.bn = nn.BatchNorm2d(rank)  # without use, but published files hold it
        self.mlp4 = nn.Sequential(nn.Linear(rank, 1024), nn.ReLU(), nn.Linear(1024, rank))

    def forward(self, z: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W); the decomposition is made in float32 or better."""
        folded = self.folded(z)
        exact = folded.to(torch.promote_types(folded.dtype, torch.float32))
        left, values, right = torch.linalg.svd(exact, full_matrices=False)
        if self.fix_signs:
            sign = torch.where(left.gather(1, left.abs().argmax(1, keepdim=True)) < 0, -1.0, 1.0).to(left)
            left, right = left * sign, right * sign.mT
        rebuilt = self.rebuilt(left, values, right)
        shape = (self.fold, self.height, self.channels // self.fold, self.width)
        return rebuilt.reshape(len(z), *shape).transpose(2, 3).reshape(z.shape).to(z.dtype)

    def folded(self, z: Tensor) -> Tensor:
        """The matrix of a noise (B, C, H, W): (B, rows, columns)."""
        return z.unflatten(1, (self.fold, -1)).transpose(2, 3).flatten(1, 2).flatten(2)

    def rebuilt(self, left: Tensor, values: Tensor, right: Tensor) -> Tensor:
        """left diag(values + change) right, (B, rows, columns); left and right are U and V^H of the decomposition."""
        dtype = self.attention.proj.weight.dtype
        tokens = self.mlp1(left.mT.to(dtype)) + self.mlp2(right.to(dtype)) + self.mlp3(values.to(dtype))[:, None]
        changed = values + self.mlp4(self.attention(tokens).mean(1)).to(values)
        return (left * changed[:, None]) @ right


class NPNet(nn.Module):
    """z* = SVDNet(z) + (2 sigmoid(alpha) - 1) T + beta S(z + T), T the group-normalised z scaled and shifted by the
    condition; alpha and beta start at 0.

    For signals of any shape: `shape` is that of one sample without the batch, one to three axes; `condition` is the
    number of values of the embedding (0: none). S is a small convolutional network here, where the published one is a
    pretrained Swin transformer; so only the SVDNet of a published file fits (`svd.load_state_dict`).
    """

    def __init__(self, shape: tuple[int, ...], condition: int = 0, hidden: int = 32, fix_signs: bool = True) -> None:
        super().__init__()
        if not 1 <= len(shape) <= 3 or min(shape) < 1:
            raise UserError(f"NPNet needs a shape of one to three axes, got {shape}; fold the signal to (C, H, W)")
        self.shape, self.condition, self.hidden, self.fix_signs = tuple(shape), condition, hidden, fix_signs
        channels, height, width = (1,) * (3 - len(shape)) + self.shape
        self.svd = SVDNet(channels, height, width, fix_signs)
        self.norm = nn.GroupNorm(1, channels, eps=1e-6, affine=False)
        self.embedding = nn.Linear(condition, 2 * channels) if condition else None
        self.residual = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden, channels, 3, padding=1),
        )
        self.alpha, self.beta = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, z: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Golden noise, (B, *), for the unit noise `z` (B, *) and the embedding of its condition (B, *)."""
        if z.shape[1:] != self.shape or z.is_complex():
            raise UserError(
                f"this NPNet takes real noise of shape {self.shape}, got {tuple(z.shape[1:])} {z.dtype}; train another"
            )
        if (embedding is not None) != (self.embedding is not None):
            raise UserError(f"this NPNet was made for an embedding of {self.condition} values; give that (0: none)")
        image = z.reshape(len(z), self.svd.channels, self.svd.height, self.svd.width)
        shifted = self.norm(image)
        if self.embedding is not None and embedding is not None:
            flat = embedding.reshape(len(embedding), -1).to(z.dtype)
            if flat.shape != (len(z), self.condition):
                raise UserError(f"the embedding has shape {tuple(flat.shape)}, expected {(len(z), self.condition)}")
            scale, shift = self.embedding(flat)[:, :, None, None].chunk(2, 1)
            shifted = shifted * (1 + scale) + shift
        weight = 2 * self.alpha.sigmoid() - 1
        golden: Tensor = self.svd(image) + weight * shifted + self.beta * self.residual(image + shifted)
        return golden.reshape(z.shape)
