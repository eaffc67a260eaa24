"""Radiometric files as cameras write them, for tests: records in a block, a block in a JPEG, blocks in a sequence."""

import io
import struct
from collections.abc import Sequence
from typing import Any, Literal

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from ornstein_infrared.planck import KELVIN, Planck

Storage = Literal["raw", "png", "png_swapped", "jpegls"]

PLANCK = Planck(
    r1=17096.453125,
    b=1428.0,
    f=1.0,
    o=-342,
    r2=0.046642892062664,
    emissivity=0.949999988079071,
    distance=5.0,
    reflected=18.0,
    atmosphere=21.0,
    window=20.0,
    window_transmission=1.0,
    humidity=0.5,
)


def block(
    counts: npt.NDArray[Any], planck: Planck | None = PLANCK, storage: Storage = "raw", order: str = "<"
) -> bytes:
    """An FFF block with the records of the counts and of the camera."""
    height, width = counts.shape
    match storage:
        case "raw":
            data = counts.astype(f"{order}u2").tobytes()
        case "png":
            data = bytes(imagecodecs.png_encode(counts))
        case "png_swapped":
            data = bytes(imagecodecs.png_encode(counts.byteswap()))
        case "jpegls":
            data = bytes(imagecodecs.jpegls_encode(counts))
    records = {1: struct.pack(f"{order}3H", 2, width, height).ljust(32, b"\0") + data}
    if planck is not None:
        records[32] = camera(planck, order)
    entries = len(records) + 2  # cameras leave entries empty, too
    place = 64 + 32 * entries
    directory, body = b"", b""
    for kind, record in records.items():
        directory += struct.pack(">HHIIII", kind, 0, 100, 0, place + len(body), len(record)).ljust(32, b"\0")
        body += record
    header = b"FFF\0" + b"TEST".ljust(16, b"\0") + struct.pack(">III", 101, 64, entries)
    return header.ljust(64, b"\0") + directory.ljust(32 * entries, b"\0") + body


def camera(planck: Planck, order: str = "<") -> bytes:
    """The camera record of these constants."""
    record = bytearray(0x400)
    struct.pack_into(f"{order}H", record, 0, 2)
    numbers = {
        0x20: planck.emissivity,
        0x24: planck.distance,
        0x28: planck.reflected + KELVIN,
        0x2C: planck.atmosphere + KELVIN,
        0x30: planck.window + KELVIN,
        0x34: planck.window_transmission,
        0x3C: planck.humidity,
        0x58: planck.r1,
        0x5C: planck.b,
        0x60: planck.f,
        0x70: planck.alpha1,
        0x74: planck.alpha2,
        0x78: planck.beta1,
        0x7C: planck.beta2,
        0x80: planck.x,
        0x30C: planck.r2,
    }
    for place, number in numbers.items():
        struct.pack_into(f"{order}f", record, place, number)
    struct.pack_into(f"{order}i", record, 0x308, int(planck.o))
    return bytes(record)


def radiometric_jpeg(data: bytes, segment: int = 60000, skip: Sequence[int] = ()) -> bytes:
    """A JPEG of something coloured with the block `data` in APP1 segments, but for those in `skip`."""
    visible = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), (200, 60, 10), np.uint8)).save(visible, "JPEG")
    parts = [data[begin : begin + segment] for begin in range(0, len(data), segment)]
    segments = b""
    for number, part in enumerate(parts):
        if number not in skip:
            payload = b"FLIR\0\1" + bytes([number, len(parts) - 1]) + part
            segments += b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
    return visible.getvalue()[:2] + segments + visible.getvalue()[2:]
