"""Building blocks of NCSN++ (Song et al. 2021, arXiv 2011.13456, appendix H), with the published tensor names.

Feature maps are (B, C, F, T), the time embedding is (B, E).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import UserError

NEARLY_ZERO = 1e-10  # published scale of layers that start as zero; exactly zero would give them a zero gradient


def fan_average_(weight: Tensor, fan_in: int, fan_out: int, scale: float = 1.0) -> None:
    """Fill `weight` from U(-r, r) of variance `scale` / mean(fan_in, fan_out)."""
    bound = math.sqrt(3.0 * scale / (0.5 * (fan_in + fan_out)))
    nn.init.uniform_(weight, -bound, bound)


def conv(inputs: int, outputs: int, size: int, scale: float = 1.0) -> nn.Conv2d:
    """Convolution that keeps the F x T size, with the published initialisation."""
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    fan_average_(layer.weight, inputs * size**2, outputs * size**2, scale)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Linear layer with the published initialisation."""
    layer = nn.Linear(inputs, outputs)
    fan_average_(layer.weight, inputs, outputs)
    nn.init.zeros_(layer.bias)
    return layer


def group_norm(channels: int) -> "GroupNorm":
    """Group norm of min(C // 4, 32) groups.

    Raises:
        UserError: that number does not divide C.
    """
    groups = min(channels // 4, 32)
    if groups == 0 or channels % groups:
        raise UserError(
            f"NCSN++ cannot normalise {channels} channels in {groups} groups; "
            "choose another nf or ch_mult (nf 32, 64, 96 and 128 work)"
        )
    return GroupNorm(groups, channels, eps=1e-6)


class FourierEmbedding(nn.Module):
    """[sin, cos](2 pi W u) of one number u per item: (B,) -> (B, 2 `size`). W is fixed, drawn from N(0, `scale`^2)."""

    def __init__(self, size: int, scale: float):
        super().__init__()
        self.W = nn.Parameter(
            torch.randn(size) * scale, requires_grad=False
        )  # a parameter: published EMA lists hold it

    def forward(self, u: Tensor) -> Tensor:
        angle = 2 * math.pi * u[:, None] * self.W
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class GroupNorm(nn.GroupNorm):
    """Group norm, in float32 whatever the type of its input.

    Compiled, the statistics are taken per channel and then joined: with channels last a group is a few bytes out of
    every pixel, while whole rows of channels stream at the speed of memory, forward and backward.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return super().forward(x)
        x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)  # (B, C)
        groups = (len(x), self.num_groups, -1)
        group_mean = mean.view(groups).mean(-1, keepdim=True)
        spread = variance.view(groups) + (mean.view(groups) - group_mean).square()
        scale = self.weight.view(groups[1:]) * torch.rsqrt(spread.mean(-1, keepdim=True) + self.eps)
        shift = self.bias.view(groups[1:]) - group_mean * scale
        return x * scale.reshape(*mean.shape, 1, 1) + shift.reshape(*mean.shape, 1, 1)


class _LowPassDown(torch.autograd.Function):
    """(1, 3, 3, 1)/8 per axis, every second value. Its adjoint is the low-pass up, over 4."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():  # (1, 3, 3, 1)/8 is three means of two: three kernels
            x = F.avg_pool2d(x, 2, stride=1, padding=1)
            return F.avg_pool2d(F.avg_pool2d(x, 2, stride=1), 2)
        x = F.pad(x, (1, 1, 1, 1))  # shifted sums: compilers make one kernel of them
        x = (x[..., :-2:2] + 3 * (x[..., 1:-1:2] + x[..., 2::2]) + x[..., 3::2]) / 8
        return (x[..., :-2:2, :] + 3 * (x[..., 1:-1:2, :] + x[..., 2::2, :]) + x[..., 3::2, :]) / 8

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _LowPassUp.apply(gradient) / 4


class _LowPassUp(torch.autograd.Function):
    """Zeros between the values, then (1, 3, 3, 1)/4 per axis. Its adjoint is 4 times the low-pass down."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():  # that is linear interpolation, with zeros beyond the ends
            padded = F.pad(x, (1, 1, 1, 1))
            return F.interpolate(padded, scale_factor=2, mode="bilinear", align_corners=False)[..., 2:-2, 2:-2]
        x = x.permute(0, 2, 3, 1)  # channels innermost: compilers then read and write whole rows of them
        for axis in (1, 2):
            size = x.shape[axis]
            padded = F.pad(x, (0, 0, 1, 1) if axis == 2 else (0, 0, 0, 0, 1, 1))
            earlier, later = padded.narrow(axis, 0, size), padded.narrow(axis, 2, size)
            x = torch.stack([earlier + 3 * x, 3 * x + later], dim=axis + 1).flatten(axis, axis + 1) / 4
        return x.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 4 * _LowPassDown.apply(gradient)


class Down(nn.Module):
    """Low-pass with (1, 3, 3, 1)/8 per axis and keep every second bin and frame: (B, C, F, T) -> (B, C, F/2, T/2)."""

    def forward(self, x: Tensor) -> Tensor:
        return _LowPassDown.apply(x)


class Up(nn.Module):
    """Put zeros between bins and frames and low-pass with (1, 3, 3, 1)/4 per axis: (B, C, F, T) -> (B, C, 2F, 2T).

    Even outputs are (x[i-1] + 3 x[i])/4, odd ones (3 x[i] + x[i+1])/4, with zeros beyond the ends.
    """

    def forward(self, x: Tensor) -> Tensor:
        return _LowPassUp.apply(x)


class ResidualBlock(nn.Module):
    """BigGAN residual block: (skip(x) + body(x, embedding)) / sqrt 2, both resampled when `resample` is Down or Up."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        dropout: float,
        resample: Down | Up | None = None,
        timed: bool = True,
    ):
        super().__init__()
        self.resample = resample
        self.GroupNorm_0 = group_norm(inputs)
        self.Conv_0 = conv(inputs, outputs, 3)
        self.Dense_0 = linear(embedding, outputs)
        if not timed:
            self.Dense_0.requires_grad_(False)  # part of the published layout, but never called
        self.GroupNorm_1 = group_norm(outputs)
        self.dropout = nn.Dropout(dropout)
        self.Conv_1 = conv(outputs, outputs, 3, NEARLY_ZERO)
        self.Conv_2 = conv(inputs, outputs, 1) if inputs != outputs or resample is not None else None

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        h = F.silu(self.GroupNorm_0(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.Conv_0(h)
        if embedding is not None:
            h = h + self.Dense_0(F.silu(embedding))[:, :, None, None]
        h = self.Conv_1(self.dropout(F.silu(self.GroupNorm_1(h))))
        if self.Conv_2 is not None:
            x = self.Conv_2(x)
        return (x + h) / math.sqrt(2)


class NIN(nn.Module):
    """Linear map of the last axis ("network in network"); its weight is stored as (in, out)."""

    def __init__(self, channels: int, scale: float):
        super().__init__()
        self.W = nn.Parameter(torch.empty(channels, channels))
        self.b = nn.Parameter(torch.zeros(channels))
        fan_average_(self.W, channels, channels, scale)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.W.t(), self.b)


class AttentionBlock(nn.Module):
    """Residual self-attention of one head over all F*T positions."""

    def __init__(self, channels: int):
        super().__init__()
        self.GroupNorm_0 = group_norm(channels)
        self.NIN_0 = NIN(channels, 0.1)  # query
        self.NIN_1 = NIN(channels, 0.1)  # key
        self.NIN_2 = NIN(channels, 0.1)  # value
        self.NIN_3 = NIN(channels, NEARLY_ZERO)  # projection

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x).flatten(2).transpose(1, 2)[:, None]  # (B, one head, F*T, C)
        h = F.scaled_dot_product_attention(self.NIN_0(h), self.NIN_1(h), self.NIN_2(h))
        h = self.NIN_3(h)[:, 0].transpose(1, 2).unflatten(2, x.shape[2:])
        return (x + h) / math.sqrt(2)


class Combine(nn.Module):
    """Add the low-passed network input, mapped to the C channels of h, to h."""

    def __init__(self, inputs: int, channels: int):
        super().__init__()
        self.Conv_0 = conv(inputs, channels, 1)

    def forward(self, pyramid: Tensor, h: Tensor) -> Tensor:
        return h + self.Conv_0(pyramid)
