"""Numbers into files, with what the file that they come from said of itself."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ornstein.files import atomic_path
from ornstein.pictures.exif import for_size
from ornstein_infrared.planck import Planck

TEXT_TAGS = (270, 271, 272, 305, 306, 315, 33432)
"""Description, make, model, software, date, artist, copyright."""

NODATA_TAG = 42113
_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION = 33550, 33922, 34264
KEPT_TAGS = (700, _PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, 34735, 34736, 34737, 42112, NODATA_TAG)
"""XMP, the place on the map (GeoTIFF), and what GDAL says."""

MEANING_TAG = 65000
MEANING_TEXT = "ornstein"
"""Where gain, offset, unit and Planck constants stand: a private tag of TIFF, a text of PNG."""


@dataclass(frozen=True)
class Tag:
    """A TIFF tag as it was read."""

    code: int
    dtype: int
    count: int
    value: Any


@dataclass(frozen=True)
class About:
    """What a file said of itself.

    Attributes:
        texts: by TIFF tag; EXIF has the same numbers.
        exif: of PNG and JPEG.
        png: texts of PNG.
        tags: of TIFF.
        resolution: of TIFF: across, down, unit.
    """

    texts: dict[int, str] = field(default_factory=dict)
    exif: bytes | None = None
    png: tuple[tuple[str, str], ...] = ()
    tags: tuple[Tag, ...] = ()
    resolution: tuple[float, float, int] | None = None


@dataclass(frozen=True)
class Meaning:
    """What stored numbers mean: value = gain stored + offset, in `unit`."""

    gain: float
    offset: float
    unit: str
    planck: Planck | None = None

    def text(self) -> str:
        """As JSON."""
        constants = None if self.planck is None else self.planck.as_dict()
        return json.dumps({"gain": self.gain, "offset": self.offset, "unit": self.unit, "planck": constants})


def encode(
    path: Path, stored: npt.NDArray[Any], about: About, meaning: Meaning, factor: float, overwrite: bool
) -> None:
    """Write numbers (H, W) in the format that the suffix tells; `factor` is how many times more pixels a side has."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        if path.suffix.lower() in (".tif", ".tiff"):
            _tiff(temporary, stored, about, meaning, factor)
        else:
            _picture(temporary, stored, about, meaning)


def _tiff(path: Path, stored: npt.NDArray[Any], about: About, meaning: Meaning, factor: float) -> None:
    import tifffile

    tags: list[tuple[Any, ...]] = [(code, "s", 0, text.encode(), True) for code, text in about.texts.items()]
    tags += [(tag.code, tag.dtype, tag.count, _scaled(tag, factor), True) for tag in about.tags]
    tags.append((MEANING_TAG, "s", 0, meaning.text().encode(), True))
    resolution: dict[str, Any] = {}
    if about.resolution is not None:
        across, down, unit = about.resolution
        resolution = {"resolution": (across * factor, down * factor), "resolutionunit": unit}
    tifffile.imwrite(
        path,
        stored,
        photometric="minisblack",
        compression="zlib",
        predictor=True,
        extratags=sorted(tags, key=lambda tag: tag[0]),
        metadata=None,
        software=False,
        **resolution,
    )


def _scaled(tag: Tag, factor: float) -> Any:
    """The value of a tag for pixels that are `factor` times smaller: the frame stays where it is on the map."""
    if tag.code == _PIXEL_SCALE:
        return (tag.value[0] / factor, tag.value[1] / factor, *tag.value[2:])
    if tag.code == _TIE_POINTS:  # six numbers a point, the first two of them in pixels
        return tuple(value * factor if i % 6 < 2 else value for i, value in enumerate(tag.value))
    if tag.code == _TRANSFORMATION:  # a 4 x 4 matrix, its first two columns for pixels
        return tuple(value / factor if i % 4 < 2 else value for i, value in enumerate(tag.value))
    return tag.value


def _picture(path: Path, stored: npt.NDArray[Any], about: About, meaning: Meaning) -> None:
    from PIL import Image as PIL
    from PIL.PngImagePlugin import PngInfo

    form = {".png": "PNG", ".bmp": "BMP"}.get(path.suffix.lower(), "JPEG")
    options: dict[str, Any] = {"PNG": {}, "BMP": {}, "JPEG": {"quality": 95}}[form]
    if form == "PNG":
        info = PngInfo()
        for key, text in about.png:
            info.add_itxt(key, text)
        if meaning.unit not in ("levels", "counts") or (meaning.gain, meaning.offset) != (1, 0):
            info.add_text(MEANING_TEXT, meaning.text())
        options["pnginfo"] = info
    if about.exif is not None and form != "BMP":
        options["exif"] = for_size(about.exif, stored.shape)
    PIL.fromarray(np.ascontiguousarray(stored)).save(path, form, **options)
