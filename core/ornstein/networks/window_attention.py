"""Attention inside windows of a feature map (Liu et al. 2021, arXiv 2103.14030), with the published tensor layout."""

import torch
import torch.nn.functional as F
from torch import Tensor


def relative_position_index(window: int) -> Tensor:
    """Row of the bias table for every pair of positions in a window: (window^2, window^2), int64."""
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    down = rows[:, None] - rows[None, :] + window - 1
    right = columns[:, None] - columns[None, :] + window - 1
    return down * (2 * window - 1) + right


def shift_mask(height: int, width: int, window: int, shift: int, device: torch.device | None = None) -> Tensor:
    """0 for pairs that were neighbours before the shift and -100 for others: (windows, window^2, window^2), float32.

    Made on `device` from shapes alone, so that a CUDA graph can hold it.
    """

    def regions(side: int) -> Tensor:
        place = torch.arange(side, device=device)
        return (place >= side - window).int() + (place >= side - shift).int()

    region = 3 * regions(height)[:, None] + regions(width)[None, :]
    region = region.view(height // window, window, width // window, window).transpose(1, 2).reshape(-1, window**2)
    return -100.0 * (region[:, :, None] != region[:, None, :]).float()


def window_attention(
    qkv: Tensor, heads: int, window: int, shift: int, bias: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Attention of every window of the map shifted up and left by `shift`.

    Args:
        qkv: query, key and value of every position, (B, H, W, 3C); H and W multiples of `window`.
        heads: C is divided among them.
        window: side of a window.
        shift: 0 for none, and then `mask` is None.
        bias: added to the logits, (heads, window^2, window^2).
        mask: `shift_mask`, added likewise.

    Returns:
        (B, H, W, C), not shifted.
    """
    batch, height, width, channels = qkv.shape
    size, down, right = channels // 3 // heads, height // window, width // window
    if shift:
        qkv = torch.roll(qkv, (-shift, -shift), dims=(1, 2))
    parts = qkv.reshape(batch, down, window, right, window, 3, heads, size).permute(5, 0, 1, 3, 6, 2, 4, 7)
    logits = bias[None]
    if mask is None:
        parts = parts.reshape(3, -1, heads, window**2, size)
    else:  # windows count as heads: one mask then serves the whole batch
        logits = (bias[None] + mask[:, None]).flatten(0, 1)[None]
        parts = parts.reshape(3, batch, -1, window**2, size)
    query, key, value = parts.unbind(0)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=logits.to(query.dtype))
    out = out.reshape(batch, down, right, heads, window, window, size).permute(0, 1, 4, 2, 5, 3, 6)
    out = out.reshape(batch, height, width, heads * size)
    return torch.roll(out, (shift, shift), dims=(1, 2)) if shift else out
