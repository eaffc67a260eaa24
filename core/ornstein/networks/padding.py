"""Sides that a network cannot halve often enough are padded at the right and the bottom, and cropped afterwards."""

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """`x` (B, C, H, W) with H and W rounded up to multiples, mirrored without the edge where a side is long enough for
    that and its last value repeated where not."""
    height, width = x.shape[2:]
    for missing, side, columns in ((-height % multiple, height, False), (-width % multiple, width, True)):
        if missing:
            edges = (0, missing, 0, 0) if columns else (0, 0, 0, missing)
            x = F.pad(x, edges, mode="reflect" if missing < side else "replicate")
    return x
