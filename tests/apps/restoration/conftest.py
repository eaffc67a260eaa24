"""Small pieces of two photographs (scikit-learn's china and flower, CC BY) as files.

Makes `restoration_degradations` importable, too.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sklearn
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

PHOTOS = Path(sklearn.__file__).parent / "datasets/images"

Photo = Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def photo() -> Photo:
    """photo(i, height, width): a piece of a photograph, uint8 (height, width, 3); another one for every i."""
    whole = [np.asarray(Image.open(PHOTOS / name).convert("RGB")) for name in ("china.jpg", "flower.jpg")]

    def piece(i: int, height: int = 48, width: int = 48) -> np.ndarray:
        picture = whole[i % 2]
        top, left = (97 * i) % (picture.shape[0] - height), (61 * i) % (picture.shape[1] - width)
        return picture[top : top + height, left : left + width]

    return piece


@pytest.fixture(scope="session")
def save() -> Callable[[Path, np.ndarray], Path]:
    """save(path, array): write a picture and its folders."""

    def write(path: Path, array: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        return path

    return write


@pytest.fixture
def picture(photo: Photo) -> Tensor:
    """(3, 16, 24) in [0, 1]."""
    return torch.from_numpy(photo(0, 16, 24).copy()).permute(2, 0, 1).float() / 255
