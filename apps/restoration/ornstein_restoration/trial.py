"""What an evaluation does with the pictures of a test set."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ornstein.errors import UserError
from ornstein.pictures.scoring import Scores
from ornstein_restoration.benchmarks import Protocol, score

if TYPE_CHECKING:
    from ornstein.pictures.lpips import Lpips
    from ornstein_restoration.datasets import Pictures
    from ornstein_restoration.restorer import Restorer

Array = npt.NDArray[np.floating[Any]]


def enlarged(picture: Array, size: tuple[int, int]) -> Array:
    """The input as the systems are compared with it: MATLAB's bicubic enlargement to `size`, or the picture itself."""
    from ornstein.pictures.resizing import imresize

    if picture.shape[1:] == size:
        return picture
    return np.asarray(imresize(picture, size=size), np.float32).clip(0, 1)


class PictureTrial:
    """The pictures, scored by `protocol`, with LPIPS where there are weights for it."""

    def __init__(self, pictures: "Pictures", protocol: Protocol = "default", lpips: Path | None = None) -> None:
        self.pictures, self.protocol, self.lpips = pictures, protocol, lpips
        self.score = score_with

    def name(self, index: int) -> str:
        return self.pictures.pairs[index].name

    def item(self, index: int) -> dict[str, Any]:
        item = self.pictures[index]
        if "gt" not in item:
            raise UserError(f"{item['name']} has no reference; only pictures with one can be scored")
        return item

    def start(self, item: dict[str, Any]) -> Array:
        return enlarged(item["lq"].numpy(), tuple(item["gt"].shape[1:]))

    def restore(self, restorer: "Restorer", item: dict[str, Any], seed: int) -> Array:
        masked = restorer.model.representation.mask != "none" and "mask" in item
        result: Array = restorer(item["lq"], item["mask"] if masked else None, seed=seed).numpy()
        return result

    def shape(self, item: dict[str, Any]) -> tuple[int, ...]:
        return tuple(item["lq"].shape)

    def arguments(self, item: dict[str, Any]) -> tuple[Any, ...]:
        return item["gt"].numpy(), item["mask"].numpy() if "mask" in item else None, self.protocol, self.lpips


def score_with(estimate: Array, truth: Array, mask: Array | None, protocol: Protocol, lpips: Path | None) -> Scores:
    """`benchmarks.score`, with LPIPS of the weights in a file."""
    return score(truth, estimate, protocol, mask, None if lpips is None else _lpips(lpips))


@cache
def _lpips(weights: Path) -> "Lpips":
    from ornstein.pictures.lpips import Lpips

    return Lpips(weights)
