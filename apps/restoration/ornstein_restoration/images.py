"""Picture files: reading to float32 RGB in [0, 1], writing, and finding them in a folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageOps
from torch import Tensor

from ornstein.errors import UserError
from ornstein.files import atomic_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Image:
    """A picture file in memory."""

    pixels: Tensor
    """(3, H, W), float32 in [0, 1]."""


def read(path: str | Path) -> Image:
    """The picture in the file `path`, upright.

    Raises:
        UserError: no such file, or not a readable picture.
    """
    try:
        with Pillow.open(path) as file:
            pixels = np.array(ImageOps.exif_transpose(file).convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; check the name") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"cannot read {path} as a picture: {error}; replace the file") from None
    return Image(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)


def write(path: str | Path, pixels: Tensor, like: Image | None = None, overwrite: bool = False) -> None:
    """Write `pixels` (3, H, W) in [0, 1], rounded to 8 bits.

    Raises:
        UserError: the file exists, or cannot be written.
    """
    rounded = (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    with atomic_path(path, overwrite) as temporary:
        Pillow.fromarray(rounded).save(temporary)


def find(path: str | Path) -> list[Path]:
    """The picture files below the folder `path`, sorted."""
    return sorted(p for p in Path(path).rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
