"""Numbers out of the files of `ornstein_infrared.thermal`, in the type that they have there."""

import io
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ornstein.errors import UserError
from ornstein.pictures import damage
from ornstein.pictures.exif import ORIENTATION, kept, texts
from ornstein_infrared import flir
from ornstein_infrared.encoding import KEPT_TAGS, MEANING_TAG, MEANING_TEXT, NODATA_TAG, TEXT_TAGS, About, Meaning, Tag
from ornstein_infrared.planck import Planck

if TYPE_CHECKING:
    from PIL import Image as PIL
    from tifffile import TiffFile, TiffPage

_FORMATS = ("PNG", "JPEG", "BMP")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TYPES = ("uint8", "uint16", "int16", "float16", "float32", "float64")
_LONGEST_HEAD = 8


@dataclass(frozen=True)
class Decoded:
    """What a file has: numbers (H, W[, channels]), and what it says of them."""

    values: npt.NDArray[Any]
    planck: Planck | None = None
    """Constants that make temperatures of the numbers."""
    meaning: Meaning | None = None
    """What a file of this program says of its numbers."""
    orientation: int = 1
    nodata: float | None = None
    about: About = field(default_factory=About)
    notes: tuple[str, ...] = ()


def told(path: Path) -> AbstractContextManager[None]:
    """Whatever a decoder raises on a damaged file, in a line."""
    unknown = "is no frame that can be read; give PNG, JPEG, TIFF, BMP, FFF or SEQ"
    return damage.told(path, "has more pixels than any camera; cut it into parts", unknown)


def pages(path: Path) -> int:
    """How many frames there are."""
    head = _head(path)
    if head[:4] in flir.MAGIC:
        return len(flir.spans(path))
    if head[:4] in _TIFF:
        import tifffile

        with tifffile.TiffFile(path) as file:
            return len(_full_pages(file))
    with _opened(path) as picture:
        return _frames(picture)


def decode(path: Path, page: int | None, constants: bool = True) -> Decoded:
    """Read one frame, radiometric ones with the constants that make temperatures or without.

    Raises:
        UserError: several pages and none chosen, one that is not there, or a type that no camera writes. Damaged files
            raise what their decoder raises.
    """
    head = _head(path)
    if head[:4] in flir.MAGIC:
        spans = flir.spans(path)
        begin, end = spans[_chosen(path, len(spans), page)]
        with path.open("rb") as file:
            file.seek(begin)
            return _radiometric(flir.parse(file.read(end - begin), path, constants), About(), constants)
    if head[:4] in _TIFF:
        return _tiff(path, page)
    with _opened(path) as picture:
        return _picture(path, picture, page, constants)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LONGEST_HEAD)


@contextmanager
def _opened(path: Path) -> "Iterator[PIL.Image]":
    from PIL import Image as PIL

    with path.open("rb") as file:
        picture = PIL.open(file, formats=_FORMATS)
        _check_size(path, *picture.size)
        yield picture


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > flir.LARGEST:
        raise UserError(f"{path} has {width} x {height} pixels, more than any camera; cut it into parts")


def _chosen(path: Path, count: int, page: int | None) -> int:
    if page is None:
        if count > 1:
            raise UserError(f"{path} has {count} pages; choose one with --page, from 0 to {count - 1}")
        return 0
    if not 0 <= page < count:
        raise UserError(f"{path} has no page {page}; its pages are 0 to {count - 1}")
    return page


def _radiometric(frame: flir.RawFrame, about: About, constants: bool) -> Decoded:
    notes = () if frame.planck or not constants else ("the file has no constants to make temperatures of its counts",)
    return Decoded(frame.counts, frame.planck, about=about, notes=notes)


def _frames(picture: "PIL.Image") -> int:
    # the further pictures of a camera's MPO are previews
    return 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)


def _picture(path: Path, picture: "PIL.Image", page: int | None, constants: bool) -> Decoded:
    chosen = _chosen(path, _frames(picture), page)
    exif = picture.getexif()
    orientation = exif.get(ORIENTATION, 1)
    about = About(texts=texts(exif), exif=kept(exif, picture.format))
    if picture.format in ("JPEG", "MPO"):
        block = flir.block_of_jpeg(path.read_bytes())
        if block is not None:  # the raw picture is not turned by the orientation of the other one
            return _radiometric(flir.parse(block, path, constants), about, constants)
    if chosen:
        picture.seek(chosen)
    if picture.format == "PNG":
        data = path.read_bytes()
        picture.load()  # checks what follows: imagecodecs takes a file without its end
        said = {str(key): str(value) for key, value in getattr(picture, "text", {}).items()}
        meaning = _meaning(said.pop(MEANING_TEXT, None))
        about = About(about.texts, about.exif, png=tuple(said.items()))
        if data[24] == 16:  # the bit depth, in the header that opens every PNG
            import imagecodecs

            values = np.asarray(imagecodecs.png_decode(data))
            return Decoded(values, meaning=meaning, orientation=orientation, about=about)
        return Decoded(_eight_bits(path, picture), meaning=meaning, orientation=orientation, about=about)
    return Decoded(_eight_bits(path, picture), orientation=orientation, about=about)


def _eight_bits(path: Path, picture: "PIL.Image") -> npt.NDArray[np.uint8]:
    mode, transparent = picture.mode, "transparency" in picture.info
    if mode in ("1", "L"):
        target = "L"
    elif mode in ("LA", "La"):
        target = "LA"
    elif mode in ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"):
        target = "RGBA" if transparent or mode in ("PA", "RGBA", "RGBa") else "RGB"
    else:
        raise UserError(f"{path} has the colour mode {mode}; convert it to grey with 8 or 16 bits")
    return np.asarray(picture if mode == target else picture.convert(target))


def _full_pages(file: "TiffFile") -> "list[TiffPage]":
    """The pages, without thumbnails and masks."""
    full = [page for page in file.pages if not (page.aspage().is_reduced or page.aspage().is_mask)]
    return [page.aspage() for page in full or file.pages]


def _tiff(path: Path, page: int | None) -> Decoded:
    import tifffile

    with tifffile.TiffFile(path) as file:
        found = _full_pages(file)
        one = found[_chosen(path, len(found), page)]
        if str(one.dtype) not in _TYPES:
            raise UserError(f"{path} holds {one.dtype}; convert it to 8 or 16 bits or to float")
        _check_size(path, one.imagewidth, one.imagelength)
        if one.samplesperpixel > 4 or one.imagedepth > 1:
            raise UserError(f"{path} holds {one.samplesperpixel} channels; give a frame with one")
        values = one.asarray()
        colours = tifffile.PHOTOMETRIC(one.photometric).name
        if colours == "PALETTE":
            table = np.moveaxis(np.asarray(one.colormap), 0, -1) >> 8
            values = table.astype(np.uint8)[values]
        elif colours == "MINISWHITE" and values.dtype.kind == "u":
            values = np.iinfo(values.dtype).max - values
        elif colours not in ("MINISBLACK", "MINISWHITE", "RGB"):
            raise UserError(f"{path} holds {colours}; convert it to grey with 8 or 16 bits or to float")
        if values.ndim == 3 and one.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            values = np.moveaxis(values, 0, -1)
        about, orientation = _about_tiff(one), one.tags.get("Orientation")
        nodata, meaning = one.tags.get(NODATA_TAG), one.tags.get(MEANING_TAG)
        return Decoded(
            values.astype(np.float32) if values.dtype == np.float16 else values,
            meaning=_meaning(None if meaning is None else str(meaning.value)),
            orientation=1 if orientation is None else int(orientation.value),
            nodata=None if nodata is None else _number(str(nodata.value)),
            about=about,
        )


def _about_tiff(page: "TiffPage") -> About:
    said, tags = {}, []
    for tag in page.tags.values():
        if tag.code in TEXT_TAGS:
            if not str(tag.value).startswith('{"shape":'):  # what tifffile says of the array, of which no other is true
                said[tag.code] = str(tag.value)
        elif tag.code in KEPT_TAGS:
            tags.append(Tag(tag.code, int(tag.dtype), int(tag.count), tag.value))
    resolution = None
    if "XResolution" in page.tags and "YResolution" in page.tags:
        unit = page.tags.get("ResolutionUnit")
        x, y = (page.tags[name].value for name in ("XResolution", "YResolution"))
        if x[1] and y[1]:
            resolution = (x[0] / x[1], y[0] / y[1], 2 if unit is None else int(unit.value))
    return About(said, tags=tuple(tags), resolution=resolution)


def _number(text: str) -> float | None:
    try:
        return float(text.strip("\0 "))
    except ValueError:
        return None


def _meaning(text: str | None) -> Meaning | None:
    """What `encoding` wrote, or None where somebody else used its place."""
    if text is None:
        return None
    try:
        said = json.load(io.StringIO(text))
        constants = said["planck"]
        return Meaning(
            float(said["gain"]),
            float(said["offset"]),
            str(said["unit"]),
            None if constants is None else Planck.from_dict(constants),
        )
    except (ValueError, KeyError, TypeError):
        return None
