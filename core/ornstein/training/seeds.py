"""Seeds derived from what a draw is for, so that no generator state has to be saved."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) that depends on every part and on nothing else; neighbouring parts give unrelated seeds.

    A run that is resumed at step n draws what an uninterrupted run draws there, because both ask for
    derive_seed(seed, "train", n, ...).
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def item_generator(seed: int, epoch: int, index: int) -> "torch.Generator":
    """The CPU generator of one item of a data set, the same whatever process loads it."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, "item", epoch, index))
