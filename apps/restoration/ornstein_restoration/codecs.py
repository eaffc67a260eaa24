"""Integers out of picture files and into them: by Pillow, and by imagecodecs and tifffile what has 16 bits."""

import io
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ornstein.errors import UserError
from ornstein.files import atomic_path
from ornstein.pictures.exif import has_parts, texts

if TYPE_CHECKING:
    from PIL import Image as PIL


def sixteen_bits(path: Path, picture: "PIL.Image") -> npt.NDArray[np.uint16] | None:
    """Values (H, W[, channels]) of a picture with 16 bits, None if it has 8."""
    if picture.format == "PNG":
        data = path.read_bytes()
        if data[24] != 16:  # the bit depth, in the header that opens every PNG
            return None
        import imagecodecs

        picture.load()  # checks what follows: imagecodecs takes a file without its end
        return np.asarray(imagecodecs.png_decode(data), dtype=np.uint16)
    if picture.format == "TIFF":
        import tifffile

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


def eight_bits(path: Path, picture: "PIL.Image") -> npt.NDArray[np.uint8]:
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


def from_cmyk(path: Path, picture: "PIL.Image", icc: bytes | None) -> "PIL.Image":
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


def save(
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
                extratags=[(tag, "s", 0, text, True) for tag, text in texts(exif).items()],
                metadata=None,
                software=False,
            )
        else:
            by_format: dict[str, dict[str, Any]] = {
                "JPEG": {"quality": quality, "subsampling": 0},
                "WEBP": {"quality": quality, "exact": True},
                "TIFF": {"compression": None if has_parts(exif) else "tiff_adobe_deflate"},
            }
            options = by_format.get(form, {}) | ({} if exif is None else {"exif": exif})
            PIL.fromarray(values).save(temporary, form, icc_profile=icc, **options)


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
