"""Recordings held in memory for mixing: clips by kind, and rooms."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import fft
from torch import Tensor

from ornstein.errors import UserError
from ornstein_speech import audio

_MAKE_ROOMS = "make a folder for --data.rooms with `ornstein speech prepare-rooms`"


class ClipBank(Sequence[Tensor]):
    """Decoded clips held in memory as one int16 array: 2 bytes a sample, shared by forked workers.

    Indexing gives a view of shape (frames,): only what is used of a long recording becomes float32, in `mixing`. Files
    of another rate are resampled, several channels are averaged.
    """

    def __init__(self, files: Iterable[Path], rate: int = 16000) -> None:
        self.files = list(files)
        parts = [_decoded(path, rate) for path in self.files]
        self.ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        self.samples = torch.from_numpy(np.concatenate(parts) if parts else np.zeros(0, np.int16))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self.files):
            raise IndexError(index)
        start = int(self.ends[index - 1]) if index else 0
        return self.samples[start : int(self.ends[index])]


def load_banks(folder: str | Path, rate: int = 16000, only: Sequence[str] | None = None) -> dict[str, ClipBank]:
    """Load FOLDER/NAME/**/files as one ClipBank per NAME, in alphabetical order.

    Raises:
        UserError: no such folder, or no sound files in it.
    """
    folder = Path(folder)
    files: dict[str, list[Path]] = {}
    for path in audio.find(folder):
        parts = path.relative_to(folder).parts
        if len(parts) > 1 and (only is None or parts[0] in only):
            files.setdefault(parts[0], []).append(path)
    if not files:
        raise UserError(
            f"{folder} holds no sub-folders with sound files; check the path or run `ornstein speech prepare`"
        )
    return {name: ClipBank(paths, rate) for name, paths in sorted(files.items())}


class RoomBank(Sequence[tuple[Tensor, Tensor]]):
    """Impulse responses of rooms: FOLDER/anechoic/NAME, the direct sound, and FOLDER/reverb/NAME, all of it.

    Indexing gives both, float32 of shape (frames,). `ornstein speech prepare-rooms` makes such folders.

    Raises:
        UserError: no such folder, a missing partner, another rate than `rate` Hz.
    """

    def __init__(self, folder: str | Path, rate: int = 16000) -> None:
        folder = Path(folder)
        require_rooms(folder)
        self.names = [path.relative_to(folder / "reverb") for path in audio.find(folder / "reverb")]
        if not self.names:
            raise UserError(f"{folder} holds no rooms; {_MAKE_ROOMS}")
        self.pairs: list[tuple[Tensor, Tensor]] = []
        for name in self.names:
            pair = []
            for side in ("anechoic", "reverb"):
                samples, found = audio.read(folder / side / name)
                if found != rate:
                    raise UserError(
                        f"{folder / side / name} has {found} Hz, not {rate}; make the rooms with --rate {rate}"
                    )
                pair.append(torch.from_numpy(samples[0]))
            self.pairs.append((pair[0], pair[1]))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: Any) -> Any:
        return self.pairs[index]


def require_rooms(folder: Path) -> None:
    """Raise a UserError where FOLDER/anechoic or FOLDER/reverb is missing."""
    for side in ("anechoic", "reverb"):
        if not (folder / side).is_dir():
            raise UserError(f"there is no folder {folder / side}, so {folder} holds no rooms; {_MAKE_ROOMS}")


def heard_in(dry: Tensor, room: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the direct sound and all that is heard of a dry signal (frames,) in a room; both of its length, float32.

    Both begin with the direct sound: the delay that they have in common is taken away.
    """
    direct, response = room
    delay = int(direct.abs().argmax())
    frames = dry.shape[-1]
    size = fft.next_fast_len(frames + max(direct.shape[-1], response.shape[-1]), real=True)
    spectrum = fft.rfft(dry.numpy(), n=size)

    def convolved(kernel: Tensor) -> Tensor:
        sound = fft.irfft(spectrum * fft.rfft(kernel.numpy(), n=size), n=size)
        return torch.from_numpy(np.ascontiguousarray(sound[delay : delay + frames]))

    return convolved(direct), convolved(response)


def _decoded(path: Path, rate: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    if path.suffix.lower() == ".g722" and rate == 16000:
        audio.info(path)  # its checks
        return audio.decode_g722(path.read_bytes())
    samples, _ = audio.read(path, rate)
    return np.round(np.clip(samples.mean(0), -1, 32767 / 32768) * 32768).astype(np.int16)
