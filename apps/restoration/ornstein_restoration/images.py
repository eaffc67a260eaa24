"""Reading and writing photographs.

Pixels are float32 arrays of shape (3, H, W) in [0, 1], in the colour space of the file. Pillow reads and writes all
that has 8 bits; imagecodecs and tifffile do the pictures with 16 bits, which Pillow would cut to 8 where they have
colours. Nothing here imports torch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ornstein import finding
from ornstein.errors import UserError
from ornstein.pictures.damage import told
from ornstein.pictures.exif import ORIENTATION, for_size, kept, upright
from ornstein_restoration.codecs import eight_bits, from_cmyk, save, sixteen_bits

if TYPE_CHECKING:
    from PIL import Image as PIL
    from torch import Tensor

Array = npt.NDArray[np.float32]

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".bmp": "BMP",
}
"""Format by suffix, for writing and for finding files; a file is read by its content."""

_NAMES = {"WEBP": "WebP"}
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}


@dataclass(frozen=True)
class Image:
    """A picture and what is needed to write one like it.

    Attributes:
        pixels: (3, H, W), upright: the orientation that EXIF tells is applied.
        depth: bits per value of the file, 8 or 16.
        grey: the file has one colour channel; the three of `pixels` are equal.
        alpha: opacity (H, W) in [0, 1], None where the file has none. `pixels` are not multiplied by it.
        icc: colour profile of `pixels`; None means sRGB.
        exif: EXIF data, its orientation set to upright.
    """

    pixels: Array
    depth: int = 8
    grey: bool = False
    alpha: Array | None = None
    icc: bytes | None = None
    exif: bytes | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[1], self.pixels.shape[2]


def find(path: str | Path) -> list[Path]:
    """The picture files of a folder and the folders in it, sorted by relative path with `/`; hidden names are left
    out. A file is its own list.

    Raises:
        UserError: there is no such path, or no picture in the folder.
    """
    return finding.find(path, FORMATS, "pictures")


def size(path: str | Path) -> tuple[int, int]:
    """Height and width of the upright picture, from the header alone.

    Raises:
        UserError: the file cannot be read.
    """
    with _opened(Path(path)) as picture:
        width, height = picture.size
        turned = picture.format != "TIFF" and picture.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        return (width, height) if turned else (height, width)


def read(path: str | Path) -> Image:
    """Read a PNG, JPEG, TIFF, WebP or BMP file. Palettes are resolved; CMYK becomes sRGB by the profile of the file.

    Raises:
        UserError: no such file, not a picture, truncated or damaged, several frames or pages, more than 179 million
            pixels, values that are not 8 or 16 bit integers.
    """
    path = Path(path)
    with _opened(path) as picture:
        icc, exif = picture.info.get("icc_profile") or None, picture.getexif()
        orientation = exif.get(ORIENTATION, 1)
        form = picture.format
        values: npt.NDArray[Any] | None = sixteen_bits(path, picture)
        if values is None:
            if picture.mode == "CMYK":
                picture, icc = from_cmyk(path, picture, icc), None
            values = eight_bits(path, picture)
            if form == "TIFF":
                orientation = 1  # Pillow turned it while loading
        return replace(_image(upright(values, orientation)), icc=icc, exif=kept(exif, form))


def write(
    path: str | Path,
    pixels: "npt.NDArray[np.floating] | Tensor",
    like: Image | None = None,
    overwrite: bool = False,
    depth: int | None = None,
    quality: int = 95,
) -> None:
    """Write pixels (3, H, W) in the format that the suffix tells; values are clipped to [0, 1] and rounded.

    Args:
        path: where to.
        pixels: of any size; the opacity of `like` is brought to it.
        like: depth, grey (the mean of the channels), opacity, profile and EXIF; default: an RGB picture with 8 bits. A
            TIFF with 16 bits keeps the texts of EXIF only.
        overwrite: replace an existing file.
        depth: 8 or 16 bits; default: that of `like`.
        quality: of JPEG (4:4:4) and WebP.

    Raises:
        UserError: NaN or infinite pixels, an unknown suffix, or something the format cannot hold: 16 bits, opacity, a
            profile, EXIF, that many pixels.
    """
    path, like = Path(path), like or Image(np.zeros((3, 1, 1), np.float32))
    values = np.asarray(pixels if isinstance(pixels, np.ndarray) else pixels.detach().cpu(), dtype=np.float32)
    if values.ndim != 3 or values.shape[0] != 3 or values.size == 0:
        raise ValueError(f"pixels have the shape (3, H, W), not {values.shape}")
    if not np.isfinite(values).all():
        raise UserError(f"{path} is not written: the picture has values that are NaN or infinite; use float32")
    depth = like.depth if depth is None else depth
    form = _form(path, values.shape[1:], like, depth)
    layers = [values.mean(0, keepdims=True)] if like.grey else [values]
    if like.alpha is not None:
        layers.append(_resized(like.alpha, values.shape[1:])[None])
    top = 2**depth - 1
    integers = np.rint(np.concatenate(layers).clip(0, 1) * top).astype(np.uint8 if depth == 8 else np.uint16)
    exif = None if like.exif is None else for_size(like.exif, values.shape[1:])
    save(path, np.moveaxis(integers, 0, -1), form, like.icc, exif, overwrite, quality)


@contextmanager
def _opened(path: Path) -> "Iterator[PIL.Image]":
    """The file in Pillow, its header read; whatever goes wrong inside is told in a line."""
    from PIL import Image as PIL

    finding.existing(path, "picture")
    unknown = "is not a picture that can be read; give PNG, JPEG, TIFF, WebP or BMP"
    # By a file, not by its name: Pillow maps the file of a name into memory, and then turns grey TIFF wrongly.
    with told(path, "has more than 179 million pixels; cut it into parts", unknown), path.open("rb") as file:
        picture = PIL.open(file, formats=tuple(dict.fromkeys(FORMATS.values())))
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and picture.format != "MPO":  # the further pictures of a camera's MPO are previews
            raise UserError(f"{path} holds {frames} frames or pages; give a file with one picture")
        yield picture


def _image(values: npt.NDArray[Any]) -> Image:
    depth = 8 * values.dtype.itemsize
    layers = np.atleast_3d(values).transpose(2, 0, 1).astype(np.float32) / (2**depth - 1)
    grey = len(layers) < 3
    colours = 1 if grey else 3
    pixels = np.array(np.broadcast_to(layers[:colours], (3, *layers.shape[1:])), order="C")  # can be written to
    alpha = np.ascontiguousarray(layers[colours]) if len(layers) > colours else None
    return Image(pixels, depth, grey, alpha)


def check(path: Path, like: Image, size: tuple[int, int]) -> None:
    """Raise UserError if a picture of `size` (H, W) with the depth, opacity, profile and EXIF of `like` cannot be
    written under the name `path`."""
    _form(path, size, like, like.depth)


def _form(path: Path, size: tuple[int, ...], like: Image, depth: int) -> str:
    """The format of `path`; raises UserError if it cannot hold the picture."""
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise UserError(f"{path} has no suffix of a format that can be written; use one of {', '.join(FORMATS)}")
    name = _NAMES.get(form, form)
    if depth not in (8, 16):
        raise UserError(f"{depth} bits cannot be written; choose 8 or 16")
    if depth == 16 and form not in ("PNG", "TIFF"):
        raise UserError(f"{path}: {name} holds 8 bits and the picture has 16; write .png or .tif, or choose 8 bits")
    if like.alpha is not None and form in ("JPEG", "BMP"):
        raise UserError(f"{path}: {name} holds no transparency and the picture has it; write .png, .tif or .webp")
    if depth == 16 and like.grey and like.alpha is not None and form == "TIFF":  # Pillow cannot open such a file
        raise UserError(f"{path}: no TIFF of 16 bit grey with transparency can be written; write .png")
    if form == "BMP" and (like.icc or like.exif):
        raise UserError(f"{path}: BMP holds no colour profile and no EXIF, and the picture has one; write .png")
    longest = _LONGEST_SIDE.get(form, max(size))
    if max(size) > longest:
        raise UserError(f"{path}: {name} holds {longest} pixels a side and the picture has {max(size)}; write .png")
    return form


def _resized(alpha: Array, size: tuple[int, ...]) -> Array:
    from PIL import Image as PIL

    if alpha.shape == tuple(size):
        return alpha
    return np.asarray(PIL.fromarray(alpha).resize((size[1], size[0]), PIL.Resampling.BICUBIC), dtype=np.float32)
