"""Window attention against attention of all positions with the forbidden pairs left out."""

import pytest
import torch
from torch import Tensor

from ornstein.networks.window_attention import relative_position_index, shift_mask, window_attention


def plain(qkv: Tensor, heads: int, window: int, shift: int, table: Tensor) -> Tensor:
    """Of every pair of positions in one window of the grid that starts at -shift."""
    batch, height, width, channels = qkv.shape
    size = channels // 3 // heads
    query, key, value = qkv.reshape(batch, height * width, 3, heads, size).permute(2, 0, 3, 1, 4)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    start = (window - shift) % window
    cells = ((rows + start) // window) * 1000 + (columns + start) // window
    together = cells[:, None] == cells[None, :]
    down = (rows[:, None] - rows[None, :]).clamp(1 - window, window - 1) + window - 1
    right = (columns[:, None] - columns[None, :]).clamp(1 - window, window - 1) + window - 1
    logits = query @ key.transpose(2, 3) * size**-0.5 + table[down * (2 * window - 1) + right].permute(2, 0, 1)
    out = logits.masked_fill(~together, -torch.inf).softmax(dim=3) @ value
    return out.permute(0, 2, 1, 3).reshape(batch, height, width, -1)


@pytest.mark.parametrize(
    ("height", "width", "window", "shift"), [(8, 8, 4, 0), (8, 12, 4, 2), (12, 8, 4, 1), (4, 4, 4, 2), (6, 9, 3, 1)]
)
def test_only_positions_of_one_window_see_each_other(height: int, width: int, window: int, shift: int) -> None:
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(2, height, width, 3 * 2 * 5, dtype=torch.float64, generator=generator)
    table = torch.randn((2 * window - 1) ** 2, 2, dtype=torch.float64, generator=generator)
    bias = table[relative_position_index(window)].permute(2, 0, 1)
    mask = shift_mask(height, width, window, shift) if shift else None
    out = window_attention(qkv, 2, window, shift, bias, mask)
    torch.testing.assert_close(out, plain(qkv, 2, window, shift, table), rtol=1e-10, atol=1e-12)
