"""Reading, writing and resampling sound files.

Samples are float32 arrays of shape (channels, frames), full scale 1. soundfile reads WAV, FLAC, Ogg and MP3; raw
`.g722` files are 64 kbit/s ITU-T G.722 at 16 kHz, mono. Nothing here imports torch until something is resampled.
"""

import io
import math
import os
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ornstein import finding
from ornstein.errors import UserError
from ornstein.files import atomic_path

Samples = np.ndarray[Any, np.dtype[np.float32]]

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".g722")
RATES = (1000, 384000)
"""The lowest and the highest rate in Hz that commands are asked for."""
_DEFAULT_SUBTYPE = {".wav": "PCM_16", ".flac": "PCM_16", ".ogg": "VORBIS", ".mp3": "MPEG_LAYER_III"}
_G722_RATE = 16000
_BLOCK = 1 << 16  # frames moved at once: the Ogg encoder fails on minutes of sound in one call
_KERNEL_LIMIT = 1 << 23  # resampling filter taps; rates without a common factor would need gigabytes


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says: rate in Hz, channels, frames (samples per channel), container and sample format."""

    rate: int
    channels: int
    frames: int
    format: str
    subtype: str

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.frames / self.rate


def require_rate(rate: int, option: str, lowest: int = RATES[0]) -> None:
    """Raise UserError if the value of an option is no rate of sound in Hz."""
    if not lowest <= rate <= RATES[1]:
        raise UserError(f"{option} {rate} is no usable rate; give {lowest} to {RATES[1]} Hz, such as 16000")


def info(path: str | Path) -> AudioInfo:
    """Return the header of a sound file without loading the samples.

    Raises:
        UserError: missing, empty, truncated, without samples, or not a sound file.
    """
    path = _existing(path)
    if path.suffix.lower() == ".g722":
        return AudioInfo(_G722_RATE, 1, 2 * path.stat().st_size, "G722", "G722")
    import soundfile

    _refuse_truncated(path)
    try:
        header = soundfile.info(str(path))
    except soundfile.LibsndfileError as error:
        raise UserError(
            f"{path} is not a sound file that can be read ({_reason(error)}); give WAV, FLAC, Ogg, MP3 or raw .g722"
        ) from None
    if header.frames <= 0:
        raise UserError(f"{path} holds no samples; record or export it again")
    return AudioInfo(header.samplerate, header.channels, header.frames, header.format, header.subtype)


def read(
    path: str | Path, rate: int | None = None, *, start: int = 0, frames: int | None = None
) -> tuple[Samples, int]:
    """Read a file, or `frames` frames from `start` on.

    Args:
        path: sound file.
        rate: resample to this rate in Hz; `start` and `frames` still count the file's own frames.
        start: first frame.
        frames: number of frames; all up to the end by default.

    Returns:
        Samples of shape (channels, frames) and their rate.

    Raises:
        UserError: the file cannot be read, is truncated, or holds NaN or infinite samples.
    """
    path = Path(path)
    header = info(path)
    stop = header.frames if frames is None else min(header.frames, start + frames)
    if not 0 <= start < stop:
        raise UserError(f"{path} has {header.frames} frames; nothing to read from frame {start} on")
    parts = list(_file_blocks(path, header, start, stop, _BLOCK * 16))
    samples = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    if rate is None or rate == header.rate:
        return samples, header.rate
    return resample(samples, header.rate, rate), rate


def blocks(path: str | Path, frames: int, rate: int | None = None) -> Iterator[Samples]:
    """Yield a file piece by piece, in bounded memory; the pieces joined equal `read(path, rate)` up to rounding.

    Args:
        path: sound file.
        frames: frames per piece at the file's rate, rounded up to whole periods of the resampling; the last may be
            shorter.
        rate: resample to this rate in Hz. Each piece is filtered with its neighbours, so there are no seams.

    Raises:
        UserError: as `read`; a bad sample is found when its piece comes.
    """
    if frames < 1:
        raise ValueError("frames must be positive")
    path = Path(path)
    header = info(path)
    if rate is None or rate == header.rate:
        yield from _file_blocks(path, header, 0, header.frames, frames)
        return
    down, _ = _ratio(header.rate, rate)
    yield from resample_blocks(
        _file_blocks(path, header, 0, header.frames, math.ceil(frames / down) * down), header.rate, rate
    )


def resample_blocks(blocks: Iterable[Any], source: int, target: int) -> Iterator[Any]:
    """Resample block by block; the pieces joined equal `resample` of the joined blocks up to rounding.

    Each piece is filtered together with the input that its filter reaches, so there are no seams.

    Args:
        blocks: arrays or tensors (channels, frames), one after another in time.
        source, target: rates in Hz.
    """
    if source == target:
        yield from blocks
        return
    import torch

    down, up = _ratio(source, target)
    # Input samples to either side: 6 zero crossings in torchaudio, 10 in scipy.
    margin = math.ceil((10 * down / min(down, up) + down) / down) * down
    held: Any = None
    begin = 0  # samples of `held` that are there for the filter only
    for block in blocks:
        join = torch.cat if isinstance(block, torch.Tensor) else np.concatenate
        held = block if held is None else join([held, block], 1)
        stop = (held.shape[1] - margin) // down * down
        if stop - begin < max(down, margin):  # wait until the useful part is worth the context around it
            continue
        yield resample(held[:, : stop + margin], source, target)[:, begin // down * up : stop // down * up]
        keep = max(0, stop - margin)
        held, begin = held[:, keep:], stop - keep
    if held is not None:
        yield resample(held, source, target)[:, begin // down * up :]


def write(path: str | Path, samples: Any, rate: int, *, subtype: str | None = None, overwrite: bool = False) -> None:
    """Write samples to a file; the suffix gives the container.

    Args:
        path: target: .wav, .flac, .ogg or .mp3.
        samples: (channels, frames) or (frames,), array or CPU tensor. Integer formats clip beyond ±1, with a warning.
        rate: in Hz.
        subtype: libsndfile's name of the sample format, such as PCM_16, PCM_24, PCM_32, FLOAT; by default 16 bit.
        overwrite: replace an existing file.

    Raises:
        UserError: unknown or unfit format, NaN or infinite samples, target exists or cannot be written.
    """
    samples = np.atleast_2d(np.asarray(samples, dtype=np.float32))
    with writer(path, rate, samples.shape[0], subtype=subtype, overwrite=overwrite) as put:
        put(samples)


@contextmanager
def writer(
    path: str | Path, rate: int, channels: int, *, subtype: str | None = None, overwrite: bool = False
) -> Iterator[Callable[[Any], None]]:
    """Open a file for writing piece by piece; yields a function that appends samples (channels, frames).

    The file appears under its name only when the block ends well. Arguments and errors are those of `write`.
    """
    import soundfile

    path = Path(path)
    subtype = _checked_subtype(path, subtype)
    integer = subtype not in ("FLOAT", "DOUBLE", "VORBIS", "OPUS")
    clipped = 0

    with atomic_path(path, overwrite=overwrite) as temporary:
        try:
            with soundfile.SoundFile(str(temporary), "w", rate, channels, subtype) as target:

                def put(samples: Any) -> None:
                    nonlocal clipped
                    samples = np.atleast_2d(np.asarray(samples, dtype=np.float32))
                    if samples.shape[0] != channels:
                        raise ValueError(f"{channels} channels expected, got shape {samples.shape}")
                    if not np.isfinite(samples).all():
                        raise UserError(f"samples for {path} hold NaN or infinite values; nothing is written")
                    if integer:
                        clipped += int((np.abs(samples) > 1).sum())
                    for begin in range(0, samples.shape[1], _BLOCK):
                        target.write(samples[:, begin : begin + _BLOCK].T)

                yield put
        except soundfile.LibsndfileError as error:
            raise _unfit(path, rate, channels, subtype, error) from None
    if clipped:
        warnings.warn(
            f"{clipped} samples beyond full scale were clipped in {path}; write FLOAT WAV to keep them", stacklevel=3
        )


def require_format(path: Path, rate: int, channels: int, subtype: str) -> None:
    """Check that the container named by `path` holds such sound, without touching the file.

    Raises:
        UserError: it does not.
    """
    import soundfile

    try:
        soundfile.SoundFile(io.BytesIO(), "w", rate, channels, subtype, format=path.suffix[1:].upper()).close()
    except soundfile.LibsndfileError as error:
        raise _unfit(path, rate, channels, subtype, error) from None


def _unfit(path: Path, rate: int, channels: int, subtype: str, error: Exception) -> UserError:
    how = f"with {channels} channels at {rate} Hz as {subtype}"
    return UserError(f"cannot write {path} {how} ({_reason(error)}); choose WAV")


def fitting_subtype(path: str | Path, like: AudioInfo) -> str:
    """Return the sample format of `like` if the container named by `path` holds it, else that container's default."""
    import soundfile

    suffix = Path(path).suffix.lower()
    if suffix in _DEFAULT_SUBTYPE and soundfile.check_format(suffix[1:].upper(), like.subtype):
        return like.subtype
    return _checked_subtype(Path(path), None)


def resample(samples: Any, source: int, target: int) -> Any:
    """Resample along the last axis from `source` to `target` Hz; n frames become ceil(n target / source).

    Takes and returns a float32 array, or a torch tensor. Windowed-sinc interpolation of torchaudio; where the rates
    share no useful common factor (44101 and 16000 Hz), its filter bank would not fit in memory and scipy's polyphase
    filter does the work.
    """
    import torch

    if source < 1 or target < 1:
        raise UserError(f"cannot resample from {source} to {target} Hz; rates are positive whole numbers")
    if source == target:
        return samples
    down, up = _ratio(source, target)
    is_array = not isinstance(samples, torch.Tensor)
    tensor = torch.from_numpy(np.ascontiguousarray(samples)) if is_array else samples
    if up * (down + 2 * math.ceil(6 * down / min(down, up))) > _KERNEL_LIMIT:
        from scipy.signal import resample_poly

        result = torch.from_numpy(resample_poly(tensor.cpu().numpy(), up, down, axis=-1)).to(tensor)
    else:
        from torchaudio.functional import resample as sinc_resample

        result = sinc_resample(tensor, source, target)
    return result.numpy() if is_array else result


def find(folder: str | Path) -> list[Path]:
    """Return the sound files below a folder, any depth, sorted by relative path with `/`; hidden names are left out.

    Raises:
        UserError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; check the path")
    return finding.inside(folder, SUFFIXES)


def decode_g722(data: bytes) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Decode 64 kbit/s G.722 to int16 samples at 16 kHz: two samples a byte."""
    from G722 import G722

    return np.array(G722(_G722_RATE, 64000).decode(data), dtype=np.int16)


def _file_blocks(path: Path, header: AudioInfo, start: int, stop: int, frames: int) -> Iterator[Samples]:
    """Frames `start` to `stop` at the file's rate, checked, `frames` at a time."""
    if header.format == "G722":
        yield from _g722_blocks(path, start, stop, frames)
        return
    import soundfile

    try:
        with soundfile.SoundFile(str(path)) as source:
            source.seek(start)
            position = start
            while position < stop:
                piece = source.read(min(frames, stop - position), dtype="float32", always_2d=True).T
                if piece.shape[1] == 0:
                    raise UserError(f"{path} is truncated: {position} of {header.frames} frames; copy it again")
                if not np.isfinite(piece).all():
                    raise UserError(f"{path} holds NaN or infinite samples; export it again")
                position += piece.shape[1]
                yield np.ascontiguousarray(piece)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{path} is damaged or truncated ({_reason(error)}); copy it again") from None


def _g722_blocks(path: Path, start: int, stop: int, frames: int) -> Iterator[Samples]:
    from G722 import G722

    decoder = G722(_G722_RATE, 64000)  # adaptive: it has to run from the first byte, and keeps its state between calls
    held = np.zeros(0, np.int16)  # frames from `first` on
    first, position = 0, start
    with path.open("rb") as source:
        while position < stop:
            end = min(stop, position + frames)
            while first + len(held) < end:
                decoded = np.array(decoder.decode(source.read(_BLOCK)), dtype=np.int16)
                keep = max(0, position - first)
                first, held = first + min(keep, len(held)), np.concatenate([held[keep:], decoded])
            piece = held[position - first : end - first].astype(np.float32) / np.float32(32768)
            position = end
            yield piece[None]


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a sound file")
    if not path.exists():
        raise UserError(f"there is no file {path}; check the path")
    if not os.access(path, os.R_OK):
        raise UserError(f"cannot read {path}; change its permissions")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes); record or export it again")
    return path


def _refuse_truncated(path: Path) -> None:
    """libsndfile quietly shortens WAV and Ogg files that end too early; their headers tell."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            while len(chunk := file.read(8)) == 8:
                name, length = struct.unpack("<4sI", chunk)
                if name == b"data":
                    # Programs that write to a pipe leave a huge placeholder: no statement about the length.
                    if length < 0x7FFF0000 and file.tell() + length > size:
                        missing = file.tell() + length - size
                        raise UserError(f"{path} is truncated: {missing} of {length} bytes are missing; copy it again")
                    return
                file.seek(length + length % 2, os.SEEK_CUR)
        elif head[:4] == b"OggS":
            file.seek(max(0, size - 65536))  # a page is shorter than 64 KiB
            tail = file.read()
            page = tail.rfind(b"OggS")
            if page >= 0 and len(tail) >= page + 27:
                count = tail[page + 26]
                table = tail[page + 27 : page + 27 + count]
                if len(table) == count and page + 27 + count + sum(table) <= len(tail):
                    return
            raise UserError(f"{path} is truncated: its last page is incomplete; copy it again")


def _checked_subtype(path: Path, subtype: str | None) -> str:
    import soundfile

    suffix = path.suffix.lower()
    if suffix not in _DEFAULT_SUBTYPE:
        known = ", ".join(_DEFAULT_SUBTYPE)
        raise UserError(f"cannot write {path}: unknown format {suffix or 'without suffix'}; use {known}")
    if subtype is None:
        return _DEFAULT_SUBTYPE[suffix]
    container = suffix[1:].upper()
    if not soundfile.check_format(container, subtype):
        known = ", ".join(soundfile.available_subtypes(container))
        raise UserError(f"{container} cannot hold {subtype}; use one of {known}")
    return subtype.upper()


def _ratio(source: int, target: int) -> tuple[int, int]:
    common = math.gcd(source, target)
    return source // common, target // common


def _reason(error: Exception) -> str:
    return str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
