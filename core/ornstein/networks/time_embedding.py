"""Sinusoids that tell a network the time, in the two published forms. Both work in float32 or better."""

import math

import torch
from torch import Tensor


def cos_sin(t: Tensor, size: int) -> Tensor:
    """[cos, sin](t w_i), w_i = 1e4^(-i/half), half = `size`/2 (Dhariwal and Nichol 2021): (B,) -> (B, `size`)."""
    half = size // 2
    angles = _angles(t, half, half)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def sin_cos(t: Tensor, size: int) -> Tensor:
    """[sin, cos](t w_i), w_i = 1e4^(-i/(half - 1)), half = `size`/2 (Ho et al. 2020): (B,) -> (B, `size`)."""
    half = size // 2
    angles = _angles(t, half, half - 1)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _angles(t: Tensor, count: int, span: int) -> Tensor:
    t = t if t.dtype == torch.float64 else t.float()  # bf16 has no 257
    rates = torch.exp(-math.log(1e4) / span * torch.arange(count, dtype=t.dtype, device=t.device))
    return t[:, None] * rates
