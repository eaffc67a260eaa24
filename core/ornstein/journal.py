"""Results on disk as they are made, so that an evaluation survives Ctrl-C and crashes, and several processes share it.

Each process appends to a file of its own, `scores-RANK.jsonl`: first the settings, then one result a line. All of them
lie in one folder beside the results to come, which is removed when those are written.
"""

import dataclasses
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from ornstein.errors import UserError
from ornstein.files import check_target
from ornstein.shards import Shard

FOLDER = "unfinished"

PATIENCE = 1800.0
"""Seconds without a new line from any other process after which they are given up."""

Key = tuple[int, str]
"""Index of the file and name of the system."""


class Scored(Protocol):
    """A result: a dataclass of plain JSON values, whose scores may be NaN or infinite."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def index(self) -> int:
        """Of the file in its set."""

    @property
    def system(self) -> str:
        """Name of what was scored."""

    @property
    def scores(self) -> dict[str, float]:
        """Metrics by name."""

    @property
    def error(self) -> str:
        """Why there are none; empty where all went well."""


R = TypeVar("R", bound=Scored)


class Journal(Generic[R]):
    """The results of one evaluation, kept in memory and, with a folder, on disk.

    Args:
        kind: class of the results.
        output: where the results of the evaluation go; None keeps nothing.
        settings: what the results depend on, plain JSON.
        shard: this process; default: the only one.

    Raises:
        UserError: the folder holds an evaluation with other settings, or cannot be written.
    """

    def __init__(
        self, kind: Callable[..., R], output: Path | None, settings: Mapping[str, Any], shard: Shard | None = None
    ) -> None:
        self.kind = kind
        self.folder = None if output is None else output / FOLDER
        self.settings = json.loads(json.dumps(settings))
        self.shard = shard or Shard()
        self.results: dict[Key, R] = {}
        self.failure: OSError | None = None
        self._lock = threading.Lock()
        if self.folder is None:
            return
        try:
            (self.folder / "estimates").mkdir(parents=True, exist_ok=True)
            self.read()
            self.path = self.folder / f"scores-{self.shard.rank}.jsonl"
            if not self.path.exists():
                self._write({"settings": self.settings})
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror}; choose another place with -o") from error

    def read(self) -> None:
        """Take in the results of all processes; a line cut off by a crash is removed from our own file."""
        if self.folder is None:
            return
        for path in sorted(self.folder.glob("scores-*.jsonl")):
            text = path.read_bytes()
            whole = text[: text.rfind(b"\n") + 1]
            if whole != text and path.name == f"scores-{self.shard.rank}.jsonl":
                with path.open("r+b") as file:
                    file.truncate(len(whole))
            if not whole and path.name == f"scores-{self.shard.rank}.jsonl":
                path.unlink()
            for line in whole.decode().splitlines():
                self._take(path, line)

    def _take(self, path: Path, line: str) -> None:
        try:
            found = json.loads(line)
            if "settings" not in found:
                scores = {name: float(value) for name, value in found.pop("scores").items()}
                result = self.kind(**found, scores=scores)
                self.results[result.index, result.system] = result
                return
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{path} is damaged; --overwrite starts anew") from None
        other = found["settings"]
        different = [key for key in {**self.settings, **other} if self.settings.get(key) != other.get(key)]
        if different:
            raise UserError(
                f"{path.parent} holds an unfinished evaluation with another {', '.join(sorted(different))}; "
                "give the same settings to go on with it, another -o, or --overwrite to start anew"
            )

    def add(self, result: R) -> None:
        """Keep a result; may be called from any thread. A disk that fails is told by `check`."""
        with self._lock:
            self.results[result.index, result.system] = result
            if self.folder is not None:
                scores = {k: v if math.isfinite(v) else str(v) for k, v in result.scores.items()}
                try:
                    self._write(dataclasses.asdict(result) | {"scores": scores})
                except OSError as error:
                    self.failure = error

    def check(self) -> None:
        """Raise UserError if a result could not be written."""
        if self.failure is not None:
            raise UserError(f"cannot write to {self.folder}: {self.failure.strerror}; what is written is kept")

    def _write(self, record: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def estimate(self, index: int, number: int, suffix: str) -> Path | None:
        """Where the estimate of file `index` by system `number` waits for the report."""
        return None if self.folder is None else self.folder / "estimates" / f"{index}-{number}{suffix}"

    def wait(self, expected: Sequence[Key], tell: Callable[[str], object]) -> None:
        """Read until the other processes have written all `expected` results.

        Raises:
            UserError: they write nothing more.
        """
        heard, known, size = time.monotonic(), -1, -1
        while missing := sum(key not in self.results for key in expected):
            if missing != known:
                heard, known = time.monotonic(), missing
                tell(f"waiting for {missing} results of the other processes")
            if time.monotonic() - heard > PATIENCE:
                raise UserError(
                    f"the other processes left {missing} results undone; the same command goes on with them"
                )
            time.sleep(0.2)
            written = sum(path.stat().st_size for path in self.folder.glob("scores-*")) if self.folder else 0
            if written != size:
                size = written
                self.read()

    def remove(self) -> None:
        """Delete what is on disk."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def make_room(output: Path, files: Sequence[str], own: Shard, overwrite: bool) -> None:
    """Refuse to write over a finished evaluation, or, with `overwrite`, clear away an unfinished one.

    Args:
        output: folder of the evaluation.
        files: names of what it writes at its end.
        own: this process.
        overwrite: start anew, whatever is there.

    Raises:
        UserError: there is a finished one, or several processes would have to clear away together.
    """
    unfinished = output / FOLDER
    begun = holds_any(output, files) or (unfinished / f"scores-{own.rank}.jsonl").exists()
    if overwrite and own.count > 1 and begun:
        raise UserError(f"several processes cannot start anew together; remove {output} first")
    if overwrite and own.count == 1:
        shutil.rmtree(unfinished, ignore_errors=True)
    if overwrite or not unfinished.is_dir():  # an unfinished one goes on
        for name in files:
            check_target(output / name, overwrite)


def holds_any(output: Path, files: Sequence[str]) -> bool:
    """Whether one of `files` is there."""
    return any((output / name).exists() for name in files)
