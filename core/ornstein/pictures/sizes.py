"""Sizes of pictures: enlarged as published code does, and padded."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Padding = Literal["reflect", "replicate"]


def upscale(small: Tensor, scale: int) -> Tensor:
    """`small` (B, C, h, w) enlarged by torch's bicubic kernel (a = -0.75) without aligned corners, as published."""
    if scale == 1:
        return small
    return F.interpolate(small, scale_factor=float(scale), mode="bicubic", align_corners=False)


def pad_to_multiple(picture: Tensor, multiple: int, padding: Padding = "reflect") -> Tensor:
    """Extend (..., h, w) on the right and at the bottom; reflection needs a side longer than what it adds, else
    the last line is repeated."""
    for dim in (-1, -2):
        side = picture.shape[dim]
        index = torch.arange(side + (-side % multiple), device=picture.device)
        if padding == "reflect" and len(index) - side < side:
            index = torch.where(index < side, index, 2 * (side - 1) - index)
        picture = picture.index_select(dim, index.clamp(max=side - 1))
    return picture
