"""Raw counts and Planck constants out of FLIR files: radiometric JPEG, FFF, and sequences (SEQ, CSQ).

A frame is a block "FFF": a header of 64 bytes, a directory with 32 bytes for each record, and records. Record type 1
has the counts, type 32 what the camera knows. In a JPEG the block is cut into APP1 segments "FLIR". The places of the
values are public knowledge (Image::ExifTool::FLIR lists them). Nothing is run and nothing is trusted: every length is
checked against the file.
"""

import io
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ornstein.errors import UserError
from ornstein_infrared.planck import KELVIN, Planck

Counts = npt.NDArray[np.uint16]

MAGIC = (b"FFF\0", b"AFF\0")
_RAW, _CAMERA = 1, 32
_HEADER, _ENTRY, _RAW_HEADER, _CAMERA_SIZE = 64, 32, 32, 0x310
LARGEST = 2**25
"""Most pixels of a frame; far above any camera, far below what fills a memory."""


@dataclass(frozen=True)
class RawFrame:
    """Counts (H, W), and the constants to make temperatures of them; None where the file has none."""

    counts: Counts
    planck: Planck | None


class _Broken(Exception):
    """What a block lacks."""


def is_sequence(data: bytes) -> bool:
    """Whether the file is FFF, SEQ or CSQ."""
    return data[:4] in MAGIC


def block_of_jpeg(data: bytes) -> bytes | None:
    """The block of a radiometric JPEG, put together; None if there is none.

    Raises:
        UserError: a part of it is missing.
    """
    parts: dict[int, bytes] = {}
    last, place = 0, 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xDA:  # the picture begins
            break
        segment = data[place + 4 : place + 2 + length]
        if marker == 0xE1 and segment[:5] == b"FLIR\0" and len(segment) >= 8:
            parts[segment[6]], last = segment[8:], segment[7]
        place += 2 + max(length, 2)
    if not parts:
        return None
    if sorted(parts) != list(range(last + 1)):
        raise UserError(f"the radiometric data have {len(parts)} of {last + 1} parts; copy the file again")
    return b"".join(parts[number] for number in sorted(parts))


def spans(path: Path) -> list[tuple[int, int]]:
    """Where the blocks of a file, one a frame, begin and end; the file is not brought into memory."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return list(_blocks(data))


def parse(block: bytes, path: Path, constants: bool = True) -> RawFrame:
    """The frame in a block, with its constants or, where they are not wanted or damaged, without.

    Raises:
        UserError: no counts in it, a damaged block, or constants that no camera has.
    """
    try:
        records = dict(_records(block))
        if _RAW not in records:
            raise _Broken("it has no raw counts")
        return RawFrame(_counts(records[_RAW]), _planck(records[_CAMERA]) if constants and _CAMERA in records else None)
    except (_Broken, struct.error, ValueError, RuntimeError) as error:
        raise UserError(f"the radiometric data of {path} are damaged ({error}); copy the file again") from None


def _blocks(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Begin and end of every block; a block reaches to the next one that has a header after its records."""
    begin = 0 if is_sequence(data[:4]) else -1
    while begin >= 0:
        try:
            reach = begin + max([_HEADER, *(offset + length for _, offset, length in _directory(data, begin))])
        except (_Broken, struct.error):
            reach = begin + _HEADER
        found = [place for magic in MAGIC if (place := data.find(magic, min(reach, len(data)))) >= 0]
        following = min(found, default=-1)
        yield begin, len(data) if following < 0 else following
        begin = following


def _directory(data: bytes | mmap.mmap, begin: int = 0) -> list[tuple[int, int, int]]:
    """Type, offset and length of every record of the block at `begin`."""
    if data[begin : begin + 4] not in MAGIC or len(data) < begin + _HEADER:
        raise _Broken("its header is missing")
    for order in (">", "<"):
        version, place, count = struct.unpack_from(f"{order}3I", data, begin + 0x14)
        if 100 <= version < 200:
            break
    else:
        raise _Broken("its version is unknown")
    if begin + place + count * _ENTRY > len(data):
        raise _Broken("its directory is cut off")
    found = []
    for entry in range(count):
        kind, offset, length = struct.unpack_from(f"{order}H10x2I", data, begin + place + entry * _ENTRY)
        if kind:
            found.append((kind, offset, length))
    return found


def _records(block: bytes) -> Iterator[tuple[int, bytes]]:
    for kind, offset, length in _directory(block):
        if kind in (_RAW, _CAMERA):
            if offset + length > len(block):
                raise _Broken("a record is cut off")
            yield kind, block[offset : offset + length]


def _order(record: bytes) -> str:
    """Byte order of a record, which begins with the number 2."""
    if len(record) < 2:
        raise _Broken("a record is empty")
    return "<" if record[:2] == b"\2\0" else ">"


def _counts(record: bytes) -> Counts:
    import imagecodecs
    import tifffile

    order = _order(record)
    width, height = struct.unpack_from(f"{order}2H", record, 2)
    if not 0 < width * height <= LARGEST:
        raise _Broken(f"its size is {width} x {height}")
    data = record[_RAW_HEADER:]
    if data[:4] == b"\x89PNG":
        _check_png(data, (width, height))
        values = _smoother(np.asarray(imagecodecs.png_decode(data)))
    elif data[:4] in (b"II*\0", b"MM\0*"):
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            if file.pages.first.shape != (height, width):
                raise _Broken(f"its TIFF has the shape {file.pages.first.shape}")
            values = file.pages.first.asarray()
    elif data[:3] == b"\xff\xd8\xff":
        place = data.find(b"\xff\xf7")  # length, depth, then height and width
        if place < 0 or struct.unpack_from(">2H", data, place + 5) != (height, width):
            raise _Broken("its JPEG-LS has another size")
        values = np.asarray(imagecodecs.jpegls_decode(data))
    else:
        if len(data) < 2 * width * height:
            raise _Broken("its counts are cut off")
        values = np.frombuffer(data, f"{order}u2", width * height).reshape(height, width)
    if values.shape != (height, width) or values.dtype.itemsize != 2:
        raise _Broken(f"its picture has the shape {values.shape} in {values.dtype}, not {height} x {width} counts")
    return values.astype(np.uint16)


def _check_png(data: bytes, size: tuple[int, int]) -> None:
    """Pillow checks what imagecodecs takes without its end."""
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
        if picture.size != size:
            raise _Broken(f"its PNG has {picture.size[0]} x {picture.size[1]} pixels")
        picture.load()


def _smoother(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Most cameras write the bytes of a PNG the wrong way round: of both ways the one with smaller steps is right."""
    if values.dtype != np.uint16 or values.ndim != 2:
        return values
    swapped = values.byteswap()
    return swapped if _steps(swapped) <= _steps(values) else values


def _steps(values: npt.NDArray[np.generic]) -> float:
    signed = values.astype(np.int32)
    return float(sum(np.abs(np.diff(signed, axis=axis)).sum(dtype=np.float64) for axis in (0, 1)))


def _planck(record: bytes) -> Planck | None:
    if len(record) < _CAMERA_SIZE:
        raise _Broken("its constants are cut off")
    order = _order(record)

    def number(place: int) -> float:
        return float(struct.unpack_from(f"{order}f", record, place)[0])

    if number(0x58) == 0:  # a camera that measures no temperatures
        return None
    humidity = number(0x3C)
    return Planck(
        r1=number(0x58),
        b=number(0x5C),
        f=number(0x60),
        o=struct.unpack_from(f"{order}i", record, 0x308)[0],
        r2=number(0x30C),
        emissivity=number(0x20),
        distance=number(0x24),
        reflected=number(0x28) - KELVIN,
        atmosphere=number(0x2C) - KELVIN,
        window=number(0x30) - KELVIN,
        window_transmission=number(0x34),
        humidity=humidity / 100 if humidity > 2 else humidity,  # some files have percent
        alpha1=number(0x70),
        alpha2=number(0x74),
        beta1=number(0x78),
        beta2=number(0x7C),
        x=number(0x80),
    )
