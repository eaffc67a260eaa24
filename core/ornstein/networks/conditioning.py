"""What a network is told beside the state, joined with it along the channels."""

import torch
from torch import Tensor


def join(x: Tensor, t: Tensor, y: Tensor | None, mask: Tensor | None, channels: int, condition_channels: int) -> Tensor:
    """cat(x, y, mask), (B, channels + condition_channels, H, W), in the dtype of `x`.

    Raises:
        ValueError: x has not `channels` channels, y and mask together not `condition_channels`, their sizes differ, or
            the times `t` are not (B,).
    """
    given = [part for part in (y, mask) if part is not None]
    if x.ndim != 4 or x.shape[1] != channels or t.shape != x.shape[:1]:
        raise ValueError(
            f"x must be (B, {channels}, H, W) and t (B,); got shapes {tuple(x.shape)} and {tuple(t.shape)}"
        )
    if any(part.shape[0] != x.shape[0] or part.shape[2:] != x.shape[2:] for part in given):
        raise ValueError(f"x of shape {tuple(x.shape)} has conditions of shapes {[tuple(p.shape) for p in given]}")
    if sum(part.shape[1] for part in given) != condition_channels:
        raise ValueError(
            f"this network takes {condition_channels} channels of y and mask, got {[p.shape[1] for p in given]}"
        )
    return torch.cat([x, *(part.to(x.dtype) for part in given)], dim=1)
