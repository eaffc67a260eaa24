"""Making a set of pairs: planned first, then made one by one in several processes, each a function of its job alone.

Layout: TARGET/{train,valid,test}/{clean,noisy}/NAME (or anechoic and reverb), 32-bit float WAV, and manifest.json with
the settings and what each pair was made of. A run that was stopped goes on where it was.
"""

import hashlib
import json
import math
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ornstein.errors import UserError
from ornstein.manifest import WORK, announce, bar, close_folder, open_folder, write_json
from ornstein_speech import audio

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Job:
    """A recording that becomes a pair, or several.

    Args:
        split: train, valid or test.
        name: of both files below their folders, with `/`, without suffix.
        seed: of everything random in it.
        sources: the recordings it is made of.
        facts: what the manifest says about them, before the recipe adds its own.
        options: what else its recipe needs.
    """

    split: str
    name: str
    seed: int
    sources: tuple[Path, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """Two signals (frames,) of equal length at `rate` Hz, the target first, and facts for the manifest.

    `part` is appended to the job's name.
    """

    clean: Array
    noisy: Array
    rate: int
    facts: Mapping[str, Any]
    part: str = ""


Recipe = Callable[[Job], Sequence[Pair]]
"""Makes the pairs of a job, none where its recording is unfit. Has to survive pickling."""


def make_pairs(
    target: Path,
    settings: dict[str, Any],
    jobs: Sequence[Job],
    recipe: Recipe,
    *,
    folders: tuple[str, str] = ("clean", "noisy"),
    unit: str = "recordings",
    workers: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Make every pair that is not there yet; return the manifest, as written to TARGET/manifest.json.

    Args:
        target: folder of the set.
        settings: all that the pairs depend on, besides the jobs; plain values, and `fingerprint` of what is drawn from.
        jobs: the pairs.
        recipe: makes a pair of a job.
        folders: names of the two folders of a split.
        unit: what the jobs are, in messages.
        workers: processes; one per core by default, 0 for none but this one.
        overwrite: replace a set made with other settings.
        quiet: no progress bar.

    Raises:
        UserError: two jobs of one name, some recordings are bad (all other pairs are made), target in use, or it holds
            a set of other recordings.
    """
    target = Path(target)
    if workers is not None and workers < 0:
        raise UserError(f"workers is {workers}; give 0 for none but this process, or more; by default one per core")
    counts = Counter(f"{job.split}/{job.name}" for job in jobs)
    for name, count in counts.items():
        if count > 1:
            raise UserError(f"{count} recordings would become the pair {name}; their names have to differ")
    settings = {"format": 1, **settings, "folders": list(folders)}
    sources = _digest(sorted(_identity(job) for job in jobs))
    if (done := open_folder(target, settings, SPLITS, overwrite)) is not None:
        if done.get("sources") != sources:
            before = done.get("recordings")
            was = f"of {before} {unit}, now there are {len(jobs)}" if before != len(jobs) else f"of other {unit}"
            raise UserError(f"{target} was made {was}; choose another folder, or add --overwrite to make it anew")
        return done
    make = partial(_make, target, folders, recipe)
    files: dict[str, Any] = {}
    failures: list[str] = []
    for result in _results(make, jobs, workers, quiet):
        if isinstance(result, str):
            failures.append(result)
        else:
            files |= result
    if failures:
        raise UserError(
            f"{len(failures)} of {len(jobs)} {unit} gave no pair; mend or remove them and run this again, it goes "
            "on from here: " + "; ".join(failures[:3]) + ("; ..." if len(failures) > 3 else "")
        )
    if not files:
        raise UserError(f"no pair could be made for {target}; the recipe leaves every recording out")
    made = {"recordings": len(jobs), "sources": sources, "files": dict(sorted(files.items()))}
    return close_folder(target, settings | made)


def fingerprint(files: Mapping[str, Iterable[Path]], root: Path) -> str:
    """Return a hash of the names below `root` and of the sizes of files by split: what a recipe draws from."""
    return _digest(
        [(split, path.relative_to(root).as_posix(), _size(path)) for split in files for path in files[split]]
    )


def job_seed(seed: int, name: str) -> int:
    """Return the seed of one pair: a function of the set's seed and the pair's name, whatever else is in the set."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "big")


def read_mono(path: Path, rate: int, start: int = 0, frames: int | None = None) -> "Tensor":
    """Read a mono recording, shape (frames,), float32.

    Raises:
        UserError: it has another rate than `rate` Hz, or several channels.
    """
    import torch

    header = audio.info(path)
    if header.rate != rate or header.channels != 1:
        raise UserError(
            f"{path} has {header.rate} Hz and {header.channels} channels, not {rate} Hz and 1; use the original corpus"
        )
    return torch.from_numpy(audio.read(path, start=start, frames=frames)[0][0])


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _identity(job: Job) -> str:
    """A hash of all that a job says, with the sizes of its recordings."""
    sizes = [_size(path) for path in job.sources]
    return _digest([job.split, job.name, job.seed, dict(job.facts), dict(job.options), sizes])


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None  # a broken link is told where it is read


def _make(target: Path, folders: tuple[str, str], recipe: Recipe, job: Job) -> dict[str, Any] | str:
    """Facts of the pairs of a job by name, or what is wrong with its recordings."""
    note = target / WORK / job.split / f"{job.name}.json"
    origin, identity = _plain(job.facts), _identity(job)

    def goals(name: str) -> list[Path]:
        split, _, rest = name.partition("/")
        return [target / split / folder / rest for folder in folders]

    if note.exists():  # written after the pairs
        known = json.loads(note.read_text(encoding="utf-8"))
        if known.get("job") == identity and all(goal.exists() for name in known["pairs"] for goal in goals(name)):
            return dict(known["pairs"])
    try:
        pairs = recipe(job)
    except UserError as error:
        return str(error)
    names = [f"{job.split}/{job.name}{pair.part}.wav" for pair in pairs]
    announce(target, [goal.relative_to(target).as_posix() for name in names for goal in goals(name)])
    made = {}
    for name, pair in zip(names, pairs, strict=True):
        for goal, samples in zip(goals(name), (pair.clean, pair.noisy), strict=True):
            audio.write(goal, samples.astype(np.float32), pair.rate, subtype="FLOAT", overwrite=True)
        made[name] = {"seconds": round(len(pair.clean) / pair.rate, 3), **origin, **_plain(pair.facts)}
    write_json(note, {"job": identity, "pairs": made})
    return made


def _results(
    make: Callable[[Job], dict[str, Any] | str], jobs: Sequence[Job], workers: int | None, quiet: bool
) -> Iterator[dict[str, Any] | str]:
    if workers is None:
        workers = min(usable_cores(), len(jobs) // 16)  # a process takes seconds to start
    if workers == 0:
        for job in bar(jobs, "recordings", quiet):
            yield make(job)
        return
    with _pool(workers, make) as pool:
        with _held_interrupts():  # the first jobs start the processes
            waiting = [pool.submit(_run, job) for job in jobs[:workers]]
        waiting += [pool.submit(_run, job) for job in jobs[workers:]]
        for future in bar(as_completed(waiting), "recordings", quiet, len(jobs)):
            yield future.result()


@contextmanager
def _pool(workers: int, make: Callable[[Job], dict[str, Any] | str]) -> Iterator[ProcessPoolExecutor]:
    """Processes started afresh: forking a process that runs torch threads can hang."""
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin, initargs=(make,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _held_interrupts() -> Iterator[None]:
    """Processes started in here never hear Ctrl-C, not even before `_begin`; the parent hears it afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker: dict[str, Callable[[Job], dict[str, Any] | str]] = {}  # of this process; lists of noises are long to send


def _begin(make: Callable[[Job], dict[str, Any] | str]) -> None:
    import torch

    # Ctrl-C ends the run through the parent, after the pairs in work.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    os.environ["PRA_NUM_THREADS"] = "1"  # read when pyroomacoustics is imported
    _worker["make"] = make
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed cannot end its processes; they would wait for jobs for ever."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _run(job: Job) -> dict[str, Any] | str:
    return _worker["make"](job)


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: undefined becomes null. Four digits describe a level or a place."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        if isinstance(value, float):
            return round(value, 4) if math.isfinite(value) else None
        return value

    return {key: plain(value) for key, value in facts.items()}
