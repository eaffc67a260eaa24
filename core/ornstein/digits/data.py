"""The 1797 handwritten digits of scikit-learn (Alpaydin and Kaynak 1998), split once and for all."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.errors import UserError

CLASSES = 10
TEST = 297
"""Pictures held out from every training."""


@dataclass(frozen=True)
class Digits:
    """Pictures (B, 1, 8, 8) in [-1, 1], float32, and their labels (B,)."""

    images: Tensor
    labels: Tensor


def digits(part: str = "train") -> Digits:
    """The pictures of `part`: "train" (1500) or "test" (297).

    Raises:
        UserError: scikit-learn is missing, or there is no such part.
    """
    if part not in ("train", "test"):
        raise UserError(f"the digits have no part {part!r}; use train or test")
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("the digits come with scikit-learn; install it with `pip install scikit-learn`") from None
    source = load_digits()
    images = torch.from_numpy(source.images).float()[:, None] / 8 - 1
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    chosen = order[:TEST] if part == "test" else order[TEST:]
    return Digits(images[chosen], torch.from_numpy(source.target).long()[chosen])
