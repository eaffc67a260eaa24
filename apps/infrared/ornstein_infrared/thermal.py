"""Reading and writing frames of thermal cameras: grey levels, raw counts, temperatures.

A frame is what the detector saw, (H, W), in the unit of its file; how it is brought to a network is the business of
`ornstein_infrared.normalization`. Nothing here imports torch.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from ornstein import finding
from ornstein.errors import UserError
from ornstein.jobs import FileKind
from ornstein.pictures.exif import upright
from ornstein_infrared import decoding, encoding
from ornstein_infrared.normalization import strips
from ornstein_infrared.pixels import Mask, dead_pixels, enlarged, fill
from ornstein_infrared.planck import Planck

Array = npt.NDArray[np.floating[Any]]
Unit = Literal["levels", "counts", "degC", "K", "unknown"]

READABLE = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".fff", ".seq", ".csq")
"""Suffixes that are looked for in folders; a file is read by its content."""

SHORTEST = 8
"""Frames with a shorter side are refused."""

_SATURATED = 65535
_CHROMA_ERROR = 6
"""Levels by which JPEG makes the channels of a grey picture differ."""


@dataclass(frozen=True)
class Scale:
    """What the numbers of a file mean: value = gain stored + offset.

    FLIR's TIFF in steps of 0.04 K: `Scale(0.04, -273.15, "degC")`.
    """

    gain: float = 1.0
    offset: float = 0.0
    unit: Unit = "degC"

    def __post_init__(self) -> None:
        if not (np.isfinite([self.gain, self.offset]).all() and self.gain != 0):
            raise UserError(
                f"gain {self.gain} and offset {self.offset} are no scale; give finite numbers, the gain not 0"
            )
        if self.unit not in get_args(Unit):
            raise UserError(f"the unit is {self.unit!r}; use one of {', '.join(get_args(Unit))}")


@dataclass(frozen=True)
class Frame:
    """A frame and what is needed to write one like it.

    Attributes:
        values: (H, W), in `scale.unit`: float32, or float64 where the file has it. Masked pixels are filled.
        dtype: of the file.
        scale: from stored numbers to values; counts and levels have gain 1.
        mask: pixels that measured nothing, (H, W): saturated, NaN, dead; None where there are none.
        stored: what the file has in the masked places, (H, W); None without a mask.
        planck: constants of a radiometric FLIR file, whose values are temperatures.
        about: texts, EXIF and TIFF tags.
        notes: what was done to the file that its owner may want to know.
    """

    values: Array
    dtype: np.dtype[Any]
    scale: Scale
    mask: Mask | None = None
    stored: npt.NDArray[Any] | None = None
    planck: Planck | None = None
    about: encoding.About = field(default_factory=encoding.About)
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def unit(self) -> Unit:
        """Of the values."""
        return self.scale.unit

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of the files that can hold a frame like this one without loss; the first is the natural one."""
        if self.dtype == np.uint8:
            return (".png", ".tif", ".tiff", ".bmp")
        return (".png", ".tif", ".tiff") if self.dtype == np.uint16 else (".tif", ".tiff")


def find(path: str | Path) -> list[Path]:
    """The frame files of a folder and the folders in it, sorted by relative path; hidden names are left out. A file is
    its own list.

    Raises:
        UserError: there is no such path, or no frame in the folder.
    """
    return finding.find(path, READABLE, "frames")


FRAMES = FileKind("frame", find, READABLE, (".png", ".tif", ".tiff", ".bmp"), ".tif")
"""For commands that turn files into files: what a JPEG, FFF or SEQ becomes is a TIFF, which holds every frame."""


def pages(path: str | Path) -> int:
    """How many frames a file has."""
    path = finding.existing(path, "frame")
    with decoding.told(path):
        return decoding.pages(path)


def read(
    path: str | Path,
    page: int | None = None,
    *,
    scale: Scale | None = None,
    counts: bool = False,
    dead: bool | None = None,
) -> Frame:
    """Read a PNG, JPEG, TIFF, BMP, radiometric JPEG, FFF or SEQ file.

    Levels and counts keep their numbers; radiometric FLIR files become temperatures. Equal colour channels become one,
    false colours a luma, with a warning, because a palette does not say what it showed; opacity is left away. Pixels
    that are NaN, infinite, the "no data" of a GeoTIFF, or 65535 in 16 bits are masked and filled.

    Args:
        path: the file.
        page: of a file with several frames, from 0.
        scale: what the numbers mean, where the file does not say it.
        counts: leave radiometric files in raw counts.
        dead: whether pixels that no lens can have made are masked, too (`dead_pixels`); default: in counts and
            temperatures, not in levels, which were processed before.

    Raises:
        UserError: no such file, not a frame, damaged, a side below 8 pixels, several pages and none chosen, a type that
            no camera writes, or no pixel that measured anything.
    """
    path = finding.existing(path, "frame")
    with decoding.told(path):
        raw = decoding.decode(path, page, constants=not counts)
    stored, notes, planck = raw.values, list(raw.notes), raw.planck
    if stored.ndim not in (2, 3) or stored.size == 0:
        raise UserError(f"{path} holds an array of the shape {stored.shape}; give a frame with one channel")
    stored = upright(stored, raw.orientation)
    if min(stored.shape[:2]) < SHORTEST:
        raise UserError(f"{path} has {stored.shape[1]} x {stored.shape[0]} pixels; a side needs at least {SHORTEST}")
    stored = _one_channel(path, stored, notes)
    if scale is not None and planck is not None:
        raise UserError(f"{path} says itself what its counts mean; leave the scale out, or read it as counts")
    scale = scale or _said(raw.meaning) or Scale(unit="degC" if planck is not None else _unit(stored.dtype))
    values = stored.astype(np.float64) if planck is None else planck.celsius(stored)
    mask = _invalid(stored, values, raw.nodata)
    if mask.all():
        raise UserError(f"{path} has no pixel that measured anything (all are saturated, NaN or without data)")
    if dead if dead is not None else scale.unit != "levels":
        known = fill(values, mask)
        mask |= dead_pixels(known.astype(stored.dtype) if planck is None else known)
    values = scale.gain * fill(values, mask) + scale.offset
    if mask.any():
        notes.append(f"{int(mask.sum())} pixels are saturated, dead or without data; their neighbours stand in")
    dtype = stored.dtype if planck is None else np.dtype(np.float32)
    if planck is None and raw.meaning is not None:
        planck = raw.meaning.planck
    return Frame(
        values.astype(np.float64 if stored.dtype == np.float64 else np.float32),
        dtype,
        scale,
        mask if mask.any() else None,
        _kept(stored, mask, dtype) if mask.any() else None,
        planck,
        raw.about,
        tuple(notes),
    )


def write(
    path: str | Path,
    values: npt.NDArray[Any],
    like: Frame,
    overwrite: bool = False,
    restore_mask: bool = True,
) -> None:
    """Write values (H, W), in the unit of `like`, in its type, scale and with what the file said beside.

    Numbers are rounded and clipped to what the type holds. Temperatures of FLIR files become a float TIFF, with the
    Planck constants. JPEG loses a little and is for levels only.

    Args:
        path: where to; the suffix tells the format.
        values: of any size; that of `like` times a factor.
        like: the frame it was made of.
        overwrite: replace an existing file.
        restore_mask: put what the file had into the masked places, enlarged; else what was filled in stays.

    Raises:
        UserError: NaN or infinite values outside the mask, or a format that cannot hold the frame.
    """
    path = Path(path)
    values = np.asarray(values)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"values have the shape (H, W), not {values.shape}")
    suffixes = (*like.suffixes, ".jpg", ".jpeg") if like.dtype == np.uint8 else like.suffixes
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{path}: a frame in {like.dtype} goes into a file {' or '.join(suffixes)}; change the suffix")
    if not np.isfinite(values).all():
        raise UserError(f"{path} is not written: the frame has values that are NaN or infinite; use float32")
    stored = np.empty(values.shape, like.dtype)
    for rows in strips(values.shape[0]):
        part = (values[rows].astype(np.float64) - like.scale.offset) / like.scale.gain
        if like.dtype.kind in "ui":
            limits = np.iinfo(like.dtype)
            part = np.rint(part).clip(limits.min, limits.max)
        stored[rows] = part.astype(like.dtype)
    if restore_mask and like.mask is not None and like.stored is not None:
        size = (values.shape[0], values.shape[1])
        stored = np.where(enlarged(like.mask, size), enlarged(like.stored, size), stored)
    factor = values.shape[1] / like.size[1]
    meaning = encoding.Meaning(like.scale.gain, like.scale.offset, like.unit, like.planck)
    encoding.encode(path, stored, like.about, meaning, factor, overwrite)


def _unit(dtype: np.dtype[Any]) -> Unit:
    return "levels" if dtype == np.uint8 else "counts" if dtype.kind in "ui" else "unknown"


def _invalid(stored: npt.NDArray[Any], values: Array, nodata: float | None) -> Mask:
    mask = ~np.isfinite(values)
    if stored.dtype == np.uint16:
        mask |= stored == _SATURATED
    if nodata is not None:
        mask |= stored == nodata
    return mask


def _kept(stored: npt.NDArray[Any], mask: Mask, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """What goes back into the masked places: the stored number, or no number where counts became temperatures."""
    if stored.dtype != dtype:
        return np.full(stored.shape, np.nan, dtype)
    return np.where(mask, stored, np.zeros((), stored.dtype))


def _said(meaning: encoding.Meaning | None) -> Scale | None:
    if meaning is None or meaning.unit not in get_args(Unit):
        return None
    return Scale(meaning.gain, meaning.offset, cast(Unit, meaning.unit))


def _one_channel(path: Path, values: npt.NDArray[Any], notes: list[str]) -> npt.NDArray[Any]:
    """(H, W) of (H, W[, channels])."""
    if values.ndim == 2:
        return values
    if not 1 <= values.shape[2] <= 4:
        raise UserError(f"{path} holds an array of the shape {values.shape}; give a frame with one channel")
    if values.shape[2] in (2, 4):
        notes.append("the opacity is left away")
        values = values[..., :-1]
    if values.shape[2] == 1:
        return values[..., 0]
    step = 0 if values.dtype.kind == "f" else _CHROMA_ERROR * 2 ** (8 * (values.dtype.itemsize - 1))
    spread = np.ptp(values.astype(np.float64), axis=2)
    if np.nanmax(spread) == 0:
        return values[..., 0]
    luma = np.tensordot(values.astype(np.float64), [0.299, 0.587, 0.114], axes=1)
    if np.quantile(spread, 0.99) > step:
        notes.append(
            "it has colours: a palette does not say what it showed; its luma is used, which need not rise with the "
            "temperature; export grey or raw frames"
        )
    else:
        notes.append("three channels that are equal but for JPEG are one")
    return (np.rint(luma) if values.dtype.kind in "ui" else luma).astype(values.dtype)
