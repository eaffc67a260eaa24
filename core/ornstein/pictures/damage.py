"""What the decoders of picture files raise, as one line; Pillow and tifffile come with the apps of pictures."""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ornstein.errors import UserError


@contextmanager
def told(path: Path, too_large: str, unknown: str) -> Iterator[None]:
    """Whatever Pillow, tifffile and their like raise while they read `path`, as a UserError.

    Args:
        path: the file.
        too_large: what is said of one with more than 179 million pixels.
        unknown: what is said of one that is no picture.
    """
    from PIL import Image
    from tifffile import TiffFileError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # half as many pixels as the error
            yield
    except Image.DecompressionBombError:
        raise UserError(f"{path} {too_large}") from None
    except Image.UnidentifiedImageError:
        raise UserError(f"{path} {unknown}") from None
    except (
        OSError,
        EOFError,
        IndexError,
        KeyError,
        MemoryError,
        OverflowError,
        RuntimeError,
        SyntaxError,
        TiffFileError,
        TypeError,
        ValueError,
        struct.error,
        zlib.error,
    ) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        raise UserError(f"{path} is damaged or cannot be read ({reason}); export or copy it again") from None
