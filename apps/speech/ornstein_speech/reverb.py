"""Pairs of anechoic and reverberant speech: every recording in a simulated room of its own."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ornstein.errors import UserError
from ornstein.files import require_apart
from ornstein_speech import audio, rooms
from ornstein_speech.datasets import item_generator
from ornstein_speech.mixing import uniform
from ornstein_speech.pairs import SPLITS, Job, Pair, job_seed, make_pairs, read_mono

FOLDERS = ("anechoic", "reverb")


@dataclass(frozen=True)
class ReverbRecipe:
    """A room for each job, drawn from its seed; several recordings are joined with pauses of .05 to .2 s.

    Args:
        rate: of the pair in Hz; recordings are resampled, several channels averaged.
        t60: range of the reverberation time in seconds.
        strict: refuse other rates and several channels instead.
    """

    rate: int = 16000
    t60: tuple[float, float] = rooms.T60
    strict: bool = False

    def __call__(self, job: Job) -> list[Pair]:
        generator = item_generator(job.seed, 0, 0)
        room = rooms.draw_room(generator, self.t60)
        parts: list[Any] = []
        for path in job.sources:
            if parts:
                parts.append(np.zeros(round(uniform(0.05, 0.2, generator) * self.rate)))
            sound = read_mono(path, self.rate).numpy() if self.strict else audio.read(path, self.rate)[0].mean(0)
            parts.append(sound.astype(np.float64))
        if not any(part.any() for part in parts):
            raise UserError(f"{job.sources[0]} is silent; remove it")
        direct, response = rooms.responses(room, self.rate)
        anechoic, reverb = rooms.reverberant(np.concatenate(parts), direct, response, self.rate)
        return [Pair(anechoic, reverb, self.rate, _facts(room, direct, response, self.rate))]


@dataclass(frozen=True)
class RoomRecipe:
    """The impulse responses of a room for each job: the direct sound, of unit energy, and all of it to -60 dB."""

    rate: int = 16000
    t60: tuple[float, float] = rooms.T60

    def __call__(self, job: Job) -> list[Pair]:
        room = rooms.draw_room(item_generator(job.seed, 0, 0), self.t60)
        direct, response = rooms.responses(room, self.rate)
        left = np.cumsum(np.square(response[::-1]))[::-1]
        frames = max(len(direct), int(np.argmax(left < 1e-6 * left[0])) or len(response))
        scale = 1 / np.sqrt(np.square(direct).sum())
        pair = [np.pad(signal, (0, max(0, frames - len(signal))))[:frames] * scale for signal in (direct, response)]
        return [Pair(pair[0], pair[1], self.rate, _facts(room, direct, response, self.rate))]


def _facts(room: rooms.Room, direct: rooms.Array, response: rooms.Array, rate: int) -> dict[str, Any]:
    return {
        "t60": room.t60,
        "t60_measured": rooms.decay_time(response, rate),
        "direct_to_reverberant_db": direct_to_reverberant(direct, response),
        "room": room.size,
        "microphone": room.microphone,
        "source": room.source,
    }


def direct_to_reverberant(direct: rooms.Array, response: rooms.Array) -> float:
    """Return the energy of the direct sound over that of all the rest of the response, in dB."""
    size = max(len(direct), len(response))
    rest = np.pad(response, (0, size - len(response))) - np.pad(direct, (0, size - len(direct)))
    return float(10 * np.log10(np.square(direct).sum() / max(float(np.square(rest).sum()), 1e-20)))


def prepare_reverb(
    speech: Path,
    target: Path,
    rate: int = 16000,
    seconds: float = 4.0,
    t60: tuple[float, float] = rooms.T60,
    seed: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Make a set for dereverberation: each recording of a folder of clean speech in a simulated room.

    Writes TARGET/{train,valid,test}/{anechoic,reverb} with the same file names, and a manifest. The folders train,
    valid and test of SPEECH are kept (also below SPEECH/speech, as in prompts-16k); without them files are split
    80/10/10 by a hash of their name, and a warning names a split that gets none. Rooms are 5-15 x 5-15 x 2-6 m; the
    target is the direct sound, with its delay; both are scaled so that the reverberant peak is 0.9. A run that was
    stopped goes on when started again.

    Args:
        speech: folder with recordings of clean speech, any depth.
        target: new folder.
        rate: of the set in Hz; other rates are converted.
        seconds: recordings of one speaker (folder) that are shorter are joined to at least this length; 0 joins none.
        t60: range of the reverberation time in seconds.
        seed: of rooms and pauses.
        workers: processes; one per core by default.
        overwrite: replace a set made with other options.
        quiet: no progress bar and no summary.

    Returns:
        The manifest, as written to TARGET/manifest.json.
    """
    _check(t60, rate)
    if not 0 <= seconds < math.inf:
        raise UserError(f"seconds is {seconds:g}; give a length such as 4, or 0 to join no recordings")
    require_apart(speech, target)
    rooms.require_simulator()
    speech = Path(speech)
    jobs = []
    for split, base, files in split_files(speech):
        for name, group in _joined(base, files, seconds):
            facts = {"speech": [path.relative_to(speech).as_posix() for path in group]}
            jobs.append(Job(split, name, job_seed(seed, f"{split}/{name}"), tuple(group), facts))
    if missing := [split for split in SPLITS if not any(job.split == split for job in jobs)]:
        print(
            f"warning: the set in {target} gets no recordings for {' and '.join(missing)}, which training and tests "
            f"read: the files of {speech} are too few to be split 80/10/10 by their names; add recordings, or put them "
            f"into {speech}/train, {speech}/valid and {speech}/test",
            file=sys.stderr,
        )
    settings = {"set": "reverb", "seed": seed, "rate": rate, "seconds": seconds, "t60": list(t60)}
    manifest = make_pairs(
        target,
        settings,
        jobs,
        ReverbRecipe(rate, t60),
        folders=FOLDERS,
        workers=workers,
        overwrite=overwrite,
        quiet=quiet,
    )
    if not quiet:
        print(f"{len(manifest['files'])} pairs in {target}")
    return manifest


def prepare_rooms(
    target: Path,
    count: int = 1000,
    rate: int = 16000,
    t60: tuple[float, float] = rooms.T60,
    seed: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Make impulse responses of simulated rooms, for reverberation while training (--data.rooms TARGET).

    Writes TARGET/{train,valid,test}/{anechoic,reverb}: the direct sound and the whole response of each room, and a
    manifest. A run that was stopped goes on when started again.

    Args:
        target: new folder.
        count: rooms; 80 % for training, 10 % each for validation and test, at least one.
        rate: of the responses in Hz, that of the model.
        t60: range of the reverberation time in seconds.
        seed: of the rooms.
        workers: processes; one per core by default.
        overwrite: replace a set made with other options.
        quiet: no progress bar and no summary.

    Returns:
        The manifest, as written to TARGET/manifest.json.
    """
    _check(t60, rate)
    if count < 3:
        raise UserError(f"count is {count}; ask for a count at least 3: train, valid and test need a room each")
    rooms.require_simulator()
    held_out = max(1, count // 10)
    numbers = {"train": count - 2 * held_out, "valid": held_out, "test": held_out}
    names = [(split, f"room-{number:05d}") for split in SPLITS for number in range(numbers[split])]
    jobs = [Job(split, name, job_seed(seed, f"{split}/{name}"), ()) for split, name in names]
    settings = {"set": "rooms", "seed": seed, "rate": rate, "t60": list(t60)}
    manifest = make_pairs(
        target,
        settings,
        jobs,
        RoomRecipe(rate, t60),
        folders=FOLDERS,
        unit="rooms",
        workers=workers,
        overwrite=overwrite,
        quiet=quiet,
    )
    if not quiet:
        print(f"{len(manifest['files'])} rooms in {target}")
    return manifest


def split_files(folder: Path) -> list[tuple[str, Path, list[Path]]]:
    """Return (split, the folder that its names are relative to, its files) of a folder of recordings.

    Raises:
        UserError: no recordings, or one of the folders train, valid and test is missing or empty.
    """
    base = folder / "speech" if (folder / "speech" / "train").is_dir() else folder
    if not any((base / split).is_dir() for split in SPLITS):
        files = audio.find(folder)
        if not files:
            raise UserError(f"{folder} holds no sound files; check the folder")
        shares = {path: _share(path.relative_to(folder).as_posix()) for path in files}
        limits = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}
        return [(split, folder, [p for p in files if low <= shares[p] < high]) for split, (low, high) in limits.items()]
    found = []
    for split in SPLITS:
        inner = next((base / split / name for name in ("clean", "anechoic") if (base / split / name).is_dir()), None)
        inner = inner or base / split
        files = audio.find(inner) if inner.is_dir() else []
        if not files:
            raise UserError(f"{inner} holds no sound files; {base} needs folders train, valid and test with recordings")
        found.append((split, inner, files))
    return found


def _check(t60: tuple[float, float], rate: int) -> None:
    if not 0 < t60[0] <= t60[1] < math.inf:
        raise UserError(f"t60 is {t60[0]:g} to {t60[1]:g} s; give two ascending times above 0, such as --t60 0.4 1")
    audio.require_rate(rate, "--rate", lowest=8000)  # lower ones have too few bands for the absorption of the walls


def _share(name: str) -> float:
    return job_seed(0, name) / 2**56


def _seconds(path: Path) -> float:
    """Length of a recording; endless if it cannot be read, so that it becomes a pair of its own, which says why."""
    try:
        return audio.info(path).seconds
    except UserError:
        return math.inf


def _joined(base: Path, files: Sequence[Path], seconds: float) -> list[tuple[str, list[Path]]]:
    """Names and recordings of the pairs: long recordings alone, short ones of one first-level folder together."""
    result = []
    waiting: dict[str, tuple[list[Path], float]] = {}
    counts: dict[str, int] = {}
    for path in sorted(files, key=lambda path: _share(path.relative_to(base).as_posix())):
        relative = path.relative_to(base)
        length = _seconds(path) if seconds else math.inf
        if length >= seconds:
            result.append((relative.with_suffix("").as_posix(), [path]))
            continue
        speaker = relative.parts[0] if len(relative.parts) > 1 else ""
        group, total = waiting.pop(speaker, ([], 0.0))
        group, total = [*group, path], total + length
        if total < seconds:
            waiting[speaker] = (group, total)
            continue
        number = counts[speaker] = counts.get(speaker, 0) + 1
        result.append((f"{speaker or 'joined'}/joined-{number:05d}", group))
    for speaker, (rest, _) in waiting.items():
        if speaker not in counts:  # too little for one item: better a short one than none
            result.append((f"{speaker or 'joined'}/joined-00001", rest))
        else:
            last = f"{speaker or 'joined'}/joined-{counts[speaker]:05d}"
            next(group for name, group in result if name == last).extend(rest)
    return sorted(result)
