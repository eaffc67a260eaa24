"""Reading and writing photographs: float32 arrays (3, H, W) in [0, 1]. Nothing here imports torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageOps

from ornstein.errors import UserError
from ornstein.files import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP"}
"""Format by suffix."""


@dataclass(frozen=True)
class Image:
    """A picture."""

    pixels: npt.NDArray[np.float32]
    """(3, H, W), upright."""


def find(path: str | Path) -> list[Path]:
    """The picture files below the folder `path`, sorted.

    Raises:
        UserError: there are none.
    """
    path = Path(path)
    found = [p for p in path.rglob("*") if p.suffix.lower() in FORMATS and not p.name.startswith(".")]
    if not found:
        raise UserError(f"{path} holds no pictures; give a folder with {', '.join(FORMATS)} files")
    return sorted(found)


def read(path: str | Path) -> Image:
    """The picture in a file.

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
    return Image(pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255))


def write(
    path: str | Path,
    pixels: "npt.NDArray[np.floating] | Tensor",
    like: Image | None = None,
    overwrite: bool = False,
) -> None:
    """Write `pixels` (3, H, W), clipped to [0, 1] and rounded to 8 bits.

    Raises:
        UserError: the file exists, or cannot be written.
    """
    values = np.asarray(pixels, dtype=np.float32).transpose(1, 2, 0)
    with atomic_path(path, overwrite) as temporary:
        Pillow.fromarray(np.rint(values.clip(0, 1) * 255).astype(np.uint8)).save(temporary)
