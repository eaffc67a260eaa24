"""What EXIF data say about a photograph, apart from how its file is laid out."""

from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image as PIL

ORIENTATION = 0x0112
_EXIF_IFD, _GPS_IFD, _WIDTH, _HEIGHT = 0x8769, 0x8825, 0xA002, 0xA003
_TEXTS = (270, 271, 272, 305, 306, 315, 33432)  # description, make, model, software, date, artist, copyright
_PHOTO = (*_TEXTS, ORIENTATION, _EXIF_IFD, _GPS_IFD)  # of a TIFF file; its other tags describe its layout


def kept(exif: "PIL.Exif", form: str | None) -> bytes | None:
    """EXIF data without what described the file: its orientation, and the layout of a TIFF."""
    if form == "TIFF":
        exif.get_ifd(_EXIF_IFD)  # read before the tag that leads to it may be removed
        for tag in set(exif) - set(_PHOTO):
            del exif[tag]
    if set(exif) <= {ORIENTATION}:
        return None
    if ORIENTATION in exif:
        exif[ORIENTATION] = 1
    return exif.tobytes()


def for_size(data: bytes, size: tuple[int, ...]) -> "PIL.Exif":
    """EXIF data for a picture of another size."""
    from PIL import Image as PIL

    exif = PIL.Exif()
    exif.load(data)
    details = exif.get_ifd(_EXIF_IFD)
    for tag, side in ((_HEIGHT, size[0]), (_WIDTH, size[1])):
        if tag in details:
            details[tag] = side
    return exif


def has_parts(exif: "PIL.Exif | None") -> bool:
    """Whether there is a directory in the directory, which Pillow writes into uncompressed TIFF files only."""
    return exif is not None and (_EXIF_IFD in exif or _GPS_IFD in exif)


def texts(exif: "PIL.Exif | None") -> dict[int, str]:
    """Description, camera, software, date, artist and copyright by tag, those that there are."""
    return {} if exif is None else {tag: str(exif[tag]) for tag in _TEXTS if tag in exif}


def upright(values: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """`values` (H, W[, channels]) turned as the EXIF orientation 1 to 8 tells."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values
