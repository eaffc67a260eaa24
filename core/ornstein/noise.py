"""Sources of unit noise for samplers."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Noise = Callable[[Tensor], Tensor]
"""Gives unit noise shaped and typed like its argument (complex: E|z|^2 = 1)."""


class SampleNoise:
    """One generator a sample: sample i draws the same bits whatever the batch around it.

    `seeds` holds one whole number a sample; calls continue the streams.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, like: Tensor) -> Tensor:
        """Unit noise like `like`, of shape (len(seeds), *)."""
        if len(like) != len(self.generators):
            raise ValueError(f"{len(self.generators)} seeds for a batch of {len(like)}")
        draws = [torch.randn(like.shape[1:], generator=g, dtype=like.dtype, device=g.device) for g in self.generators]
        return torch.stack(draws).to(like.device)
