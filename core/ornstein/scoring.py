"""What the evaluations of all apps share: who works on what, while other processes score what is done."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from pathlib import Path
from typing import Any, ClassVar, Generic

from ornstein.errors import UserError
from ornstein.journal import FOLDER, Journal, R, holds_any, make_room
from ornstein.shards import Shard, shard
from ornstein.workers import bar, finished, pool

FILES = ("scores.csv", "summary.json", "report.html")
"""What an evaluation writes."""


def refuse_two_ways(systems: object, *others: object) -> None:
    """Raises UserError where systems are named, and checkpoints, samplers or steps besides."""
    if systems is not None and any(other is not None for other in others):
        raise UserError(
            "--systems names checkpoints, samplers and steps by itself; leave --checkpoint, --sampler and --steps out"
        )


def refuse_data_folder(output: Path | None, data: Path) -> None:
    """Raises UserError where the results would lie among the data."""
    if output is not None and output.resolve() == data.resolve():
        raise UserError(f"{output} is the folder of the data; give the results a folder of their own with -o")


def checkpoint_names(checkpoints: Iterable[Path]) -> dict[Path, str]:
    """Names without suffix that tell the checkpoints apart, with as many folders before them as that takes."""
    paths = list(dict.fromkeys(checkpoints))
    parts = {path: path.absolute().with_suffix("").parts for path in paths}
    names: dict[Path, str] = {}
    for path in paths:
        others = [parts[other] for other in paths if parts[other] != parts[path]]
        depth = next(n for n in range(1, len(parts[path]) + 1) if all(o[-n:] != parts[path][-n:] for o in others))
        names[path] = "/".join(parts[path][-depth:])
    return names


def begin(output: Path | None, overwrite: bool) -> Shard | None:
    """This process among those that share the evaluation, with room made in `output`; None where there is no more to
    do: the first process says what is to be said.

    Raises:
        UserError: several processes without a folder, or one with results.
    """
    own = shard()
    if output is None and own.count > 1:
        raise UserError(f"{own.count} processes share this evaluation; give them one folder with -o")
    if output is not None:
        if own.rank > 0 and holds_any(output, FILES) and not (output / FOLDER).is_dir():
            return None
        make_room(output, FILES, own, overwrite)
    return own


class Work(ABC, Generic[R]):
    """Works on the device and, at the same time, scores in other processes.

    Attributes:
        names: of the systems, which all items are given to.
        journal: takes the results.
    """

    unit: ClassVar[str] = "file"
    """What the bar counts."""
    mistakes: ClassVar[tuple[type[Exception], ...]] = (UserError,)
    """What an item that cannot be worked on raises."""
    names: Sequence[str]
    journal: Journal[R]

    @abstractmethod
    def item(self, index: int) -> Any:
        """Of the set."""

    @abstractmethod
    def job(self, item: Any, index: int, name: str) -> Callable[[], R]:
        """The scoring of what a system makes of `item`, for another process; a network has run when this returns."""

    @abstractmethod
    def failure(self, item: Any, index: int, name: str, error: Exception) -> R:
        """The result that says why there is none; `item` is None if it could not be read."""

    def run(self, share: Sequence[int], executor: Executor, queue: int, quiet: bool) -> None:
        """Put the results of the items in `share` into the journal, but for those that it holds.

        An item that cannot be read or worked on gives a result that says why. `executor` scores; at most `queue` items
        wait for it.
        """
        kept = sum(self._done(index, name) for index in share for name in self.names)
        if kept and not quiet:
            print(f"going on: {kept} of {len(share) * len(self.names)} scores are there already", file=sys.stderr)
        pending: set[Future[R]] = set()
        with bar(len(share), quiet, self.unit) as advance:
            for index in share:
                left = [name for name in self.names if not self._done(index, name)]
                item = None
                try:
                    item = self.item(index) if left else None
                except self.mistakes as error:
                    for name in left:
                        self.journal.add(self.failure(None, index, name, error))
                    left = []
                for name in left:
                    try:
                        job = executor.submit(self.job(item, index, name))
                    except self.mistakes as error:
                        self.journal.add(self.failure(item, index, name, error))
                        continue
                    job.add_done_callback(self._keep)
                    pending.add(job)
                    while len(pending) > queue:  # the arrays of large sets must not pile up
                        pending -= finished(wait(pending, return_when=FIRST_COMPLETED).done)
                    self.journal.check()
                advance()
            finished(wait(pending).done)
        self.journal.check()

    def complete(
        self, total: int, own: Shard, output: Path | None, workers: int, queue: int, quiet: bool
    ) -> list[R] | None:
        """`run` on the share of this process, then the results of all processes, item by item; None in processes other
        than the first."""
        try:
            with pool(workers) as executor:
                self.run(range(own.rank, total, own.count), executor, queue, quiet)
        except KeyboardInterrupt:
            if output is not None and not quiet:
                print(f"what is scored is kept in {output / FOLDER}; the same command goes on", file=sys.stderr)
            raise
        if own.rank > 0:
            return None
        expected = [(index, name) for index in range(total) for name in self.names]
        self.journal.wait(expected, lambda text: None if quiet else print(text, file=sys.stderr))
        return [self.journal.results[key] for key in expected]

    def _done(self, index: int, name: str) -> bool:
        """What failed is tried again by the next run."""
        found = self.journal.results.get((index, name))
        return found is not None and not found.error

    def _keep(self, job: "Future[R]") -> None:
        if not job.cancelled() and job.exception() is None:
            self.journal.add(job.result())
