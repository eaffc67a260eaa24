"""Reading and writing photographs.

Pixels are float32 arrays of shape (3, H, W) in [0, 1], in the colour space of the file. Pillow reads and writes all
that has 8 bits; imagecodecs and tifffile do the pictures with 16 bits, which Pillow would cut to 8 where they have
colours. Nothing here imports torch.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ornstein.errors import UserError
from ornstein.files import atomic_path

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
_ORIENTATION, _EXIF_IFD, _GPS_IFD, _WIDTH, _HEIGHT = 0x0112, 0x8769, 0x8825, 0xA002, 0xA003
_TEXT_TAGS = (270, 271, 272, 305, 306, 315, 33432)  # description, make, model, software, date, artist, copyright
_PHOTO_TAGS = (*_TEXT_TAGS, _ORIENTATION, _EXIF_IFD, _GPS_IFD)  # of a TIFF file; the other tags describe its layout


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
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"there is no file or folder {path}; check the name")
    found = [
        file
        for file in path.rglob("*")
        if file.suffix.lower() in FORMATS
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    if not found:
        raise UserError(f"{path} holds no pictures; give a folder with {', '.join(FORMATS)} files")
    return sorted(found, key=lambda file: file.relative_to(path).as_posix())


def size(path: str | Path) -> tuple[int, int]:
    """Height and width of the upright picture, from the header alone.

    Raises:
        UserError: the file cannot be read.
    """
    with _opened(Path(path)) as picture:
        width, height = picture.size
        turned = picture.format != "TIFF" and picture.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
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
        orientation = exif.get(_ORIENTATION, 1)
        values: npt.NDArray[Any] | None = _sixteen_bits(path, picture)
        if values is None:
            if picture.mode == "CMYK":
                picture, icc = _from_cmyk(path, picture, icc), None
            if picture.format == "TIFF":
                orientation = 1  # Pillow turns these by itself
            values = _eight_bits(path, picture)
        image = _image(_upright(values, orientation))
        return replace(image, icc=icc, exif=_kept(exif, picture.format))


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
    exif = None if like.exif is None else _exif(like.exif, values.shape[1:])
    _save(path, np.moveaxis(integers, 0, -1), form, like.icc, exif, overwrite, quality)


@contextmanager
def _opened(path: Path) -> "Iterator[PIL.Image]":
    """The file in Pillow, its header read; whatever goes wrong inside is told in a line."""
    from PIL import Image as PIL
    from tifffile import TiffFileError

    if path.is_dir():
        raise UserError(f"{path} is a folder; give a picture")
    if not path.exists():
        raise UserError(f"there is no file {path}; check the name")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.DecompressionBombWarning)  # half as many pixels as the error below
            opened = PIL.open(path, formats=tuple(dict.fromkeys(FORMATS.values())))
        with opened as picture:
            frames = getattr(picture, "n_frames", 1)
            if frames > 1 and picture.format != "MPO":  # the further pictures of a camera's MPO are previews
                raise UserError(f"{path} holds {frames} frames or pages; give a file with one picture")
            yield picture
    except PIL.DecompressionBombError:
        raise UserError(f"{path} has more than 179 million pixels; cut it into parts") from None
    except PIL.UnidentifiedImageError:
        raise UserError(f"{path} is not a picture that can be read; give PNG, JPEG, TIFF, WebP or BMP") from None
    except (
        OSError,
        EOFError,
        IndexError,
        KeyError,
        OverflowError,
        RuntimeError,
        SyntaxError,
        TiffFileError,
        TypeError,
        ValueError,
        struct.error,
        zlib.error,
    ) as error:  # what the decoders raise on damaged files
        reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        raise UserError(f"{path} is damaged or cannot be read ({reason}); export or copy it again") from None


def _sixteen_bits(path: Path, picture: "PIL.Image") -> npt.NDArray[np.uint16] | None:
    """Values (H, W[, channels]) of a picture with 16 bits, None if it has 8."""
    import imagecodecs
    import tifffile

    if picture.format == "PNG":
        data = path.read_bytes()
        if data[24] != 16:  # the bit depth, in the header that opens every PNG
            return None
        picture.load()  # checks what follows: imagecodecs takes a file without its end
        return np.asarray(imagecodecs.png_decode(data), dtype=np.uint16)
    if picture.format == "TIFF":
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            if page.dtype == np.uint8 or page.bitspersample == 1:
                return None
            colours = tifffile.PHOTOMETRIC(page.photometric).name
            if page.dtype != np.uint16 or colours not in ("MINISBLACK", "MINISWHITE", "RGB"):
                raise UserError(f"{path} holds {colours} in {page.dtype}; convert it to RGB or grey with 8 or 16 bits")
            values = np.asarray(page.asarray(), dtype=np.uint16)
            if values.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
                values = np.moveaxis(values, 0, -1)
            if values.ndim == 3 and values.shape[2] > 4:
                raise UserError(f"{path} holds {values.shape[2]} channels; convert it to RGB")
            if values.ndim == 3 and tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples:
                opacity = np.maximum(values[..., 3:], 1) / 65535  # the file holds colour times opacity
                values[..., :3] = np.rint((values[..., :3] / opacity).clip(0, 65535))
        return 65535 - values if colours == "MINISWHITE" else values
    return None


def _eight_bits(path: Path, picture: "PIL.Image") -> npt.NDArray[np.uint8]:
    """Values (H, W[, channels]) of any other picture: grey, grey and opacity, RGB or RGBA."""
    mode, transparent = picture.mode, "transparency" in picture.info
    if mode in ("1", "L"):
        target = "LA" if transparent else "L"
    elif mode in ("LA", "La"):
        target = "LA"
    elif mode in ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"):
        target = "RGBA" if transparent or mode in ("PA", "RGBA", "RGBa") else "RGB"
    else:
        raise UserError(f"{path} has the colour mode {mode}; convert it to RGB or grey with 8 or 16 bits")
    return np.asarray(picture if mode == target else picture.convert(target))


def _from_cmyk(path: Path, picture: "PIL.Image", icc: bytes | None) -> "PIL.Image":
    """sRGB of a CMYK picture, by its profile, or by subtraction if it has none."""
    from PIL import ImageCms

    if icc is None:
        return picture.convert("RGB")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        found = ImageCms.profileToProfile(picture, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except ImageCms.PyCMSError as error:
        raise UserError(f"{path} has a colour profile that does not fit ({error}); convert it to sRGB") from None
    assert found is not None  # None only for a conversion in place
    return found


def _upright(values: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """`values` (H, W[, channels]) turned as the EXIF orientation 1 to 8 tells."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def _image(values: npt.NDArray[Any]) -> Image:
    depth = 8 * values.dtype.itemsize
    layers = np.atleast_3d(values).transpose(2, 0, 1).astype(np.float32) / (2**depth - 1)
    grey = len(layers) < 3
    colours = 1 if grey else 3
    pixels = np.ascontiguousarray(np.broadcast_to(layers[:colours], (3, *layers.shape[1:])))
    alpha = np.ascontiguousarray(layers[colours]) if len(layers) > colours else None
    return Image(pixels, depth, grey, alpha)


def _kept(exif: "PIL.Exif", form: str | None) -> bytes | None:
    """EXIF data without what described the file: its orientation, and the layout of a TIFF."""
    if form == "TIFF":
        exif.get_ifd(_EXIF_IFD)  # read before the tag that leads to it may be removed
        for tag in set(exif) - set(_PHOTO_TAGS):
            del exif[tag]
    if set(exif) <= {_ORIENTATION}:
        return None
    if _ORIENTATION in exif:
        exif[_ORIENTATION] = 1
    return exif.tobytes()


def _exif(data: bytes, size: tuple[int, ...]) -> "PIL.Exif":
    """EXIF data for a picture of another size."""
    from PIL import Image as PIL

    exif = PIL.Exif()
    exif.load(data)
    details = exif.get_ifd(_EXIF_IFD)
    for tag, side in ((_HEIGHT, size[0]), (_WIDTH, size[1])):
        if tag in details:
            details[tag] = side
    return exif


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


def _save(
    path: Path,
    values: npt.NDArray[Any],
    form: str,
    icc: bytes | None,
    exif: "PIL.Exif | None",
    overwrite: bool,
    quality: int,
) -> None:
    """Write integers (H, W, channels)."""
    import imagecodecs
    import tifffile
    from PIL import Image as PIL

    values = values[..., 0] if values.shape[-1] == 1 else values
    with atomic_path(path, overwrite=overwrite) as temporary:
        if values.dtype == np.uint16 and form == "PNG":
            data = bytes(imagecodecs.png_encode(np.ascontiguousarray(values)))
            temporary.write_bytes(_with_chunks(data, icc, exif))
        elif values.dtype == np.uint16:
            texts = [(tag, "s", 0, str(exif[tag]), True) for tag in _TEXT_TAGS if exif is not None and tag in exif]
            channels = 1 if values.ndim == 2 else values.shape[2]
            tifffile.imwrite(
                temporary,
                values,
                photometric="rgb" if channels > 2 else "minisblack",
                planarconfig=None if channels == 1 else "contig",
                extrasamples=["unassalpha"] if channels == 4 else None,
                compression="zlib",
                predictor=True,
                iccprofile=icc,
                extratags=texts,
                metadata=None,
                software=False,
            )
        else:
            by_format: dict[str, dict[str, Any]] = {
                "JPEG": {"quality": quality, "subsampling": 0},
                "WEBP": {"quality": quality, "exact": True},
                "TIFF": {"compression": None if _has_parts(exif) else "tiff_adobe_deflate"},
            }
            options = by_format.get(form, {}) | ({} if exif is None else {"exif": exif})
            PIL.fromarray(values).save(temporary, form, icc_profile=icc, **options)


def _has_parts(exif: "PIL.Exif | None") -> bool:
    """Whether there is a directory in the directory, which Pillow writes into uncompressed TIFF files only."""
    return exif is not None and (_EXIF_IFD in exif or _GPS_IFD in exif)


def _with_chunks(data: bytes, icc: bytes | None, exif: "PIL.Exif | None") -> bytes:
    """A PNG file with a colour profile (iCCP) and EXIF (eXIf) after its header, which takes the first 33 bytes."""
    chunks = b""
    if icc is not None:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if exif is not None:
        chunks += _chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    return data[:33] + chunks + data[33:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
