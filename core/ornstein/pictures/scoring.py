"""The work of an evaluation: restoring on the device while other processes score what is done."""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ornstein import scoring
from ornstein.errors import UserError
from ornstein.files import atomic_path
from ornstein.journal import Journal
from ornstein.pictures.results import INPUT, Result

Array = npt.NDArray[np.floating[Any]]


class Scores(NamedTuple):
    """Metrics by name, and for those that are means over a region its number of pixels."""

    values: dict[str, float]
    pixels: dict[str, int]


class Trial(Protocol):
    """What an evaluation does with the items of a set."""

    score: Callable[..., Scores]
    """Called in a worker with an estimate and the `arguments` of its item; raises UserError or ValueError for what
    cannot be scored."""

    def name(self, index: int) -> str:
        """Of an item, which need not be readable."""

    def item(self, index: int) -> Any:
        """Raises UserError or ValueError for one that cannot be read or scored."""

    def start(self, item: Any) -> Array:
        """The input as the systems are compared with it."""

    def restore(self, restorer: Any, item: Any, seed: int) -> Array:
        """What a system makes of it, on the CPU."""

    def shape(self, item: Any) -> Hashable:
        """What is compiled and recorded anew for another one."""

    def arguments(self, item: Any) -> tuple[Any, ...]:
        """Of `score`, behind the estimate; they go to another process."""


class Work(scoring.Work[Result]):
    """Restores on the device and, at the same time, scores in other processes.

    Args:
        restorers: by name, with the attributes `device` and `prepares` of `PictureRestorer`.
        baseline: whether the input is scored, too.
        trial: the set, and how an item of it is restored and scored.
        seeds: of the noise; every picture is restored with each.
        journal: takes the results.
        keep: whether results wait as pictures for the report.
    """

    unit = "picture"
    mistakes = (UserError, ValueError)

    def __init__(
        self,
        restorers: Mapping[str, Any],
        baseline: bool,
        trial: Trial,
        seeds: Sequence[int],
        journal: Journal[Result],
        keep: bool,
    ) -> None:
        self.restorers, self.trial, self.seeds = restorers, trial, list(seeds)
        self.journal, self.keep = journal, keep
        self.names = [*([INPUT] if baseline else []), *restorers]
        self.warm: set[tuple[Any, ...]] = set()

    def item(self, index: int) -> Any:
        return self.trial.item(index)

    def failure(self, item: Any, index: int, name: str, error: Exception) -> Result:
        return Result(index, self.trial.name(index), name, {}, error=str(error))

    def job(self, item: Any, index: int, name: str) -> Callable[[], Result]:
        about: dict[str, Any] = {"index": index, "file": self.trial.name(index), "system": name}
        path = self.journal.estimate(index, self.names.index(name), ".png") if self.keep else None
        common = (self.trial.score, self.trial.arguments(item), path)
        if name == INPUT:
            return partial(_score, about, [self.trial.start(item)], *common)
        from ornstein.hardware import machine

        restorer = self.restorers[name]
        about["first"] = self._prepare(name, item)
        runs = [self._timed(restorer, item, seed) for seed in self.seeds]
        about |= {"seconds": sum(seconds for _, seconds in runs) / len(runs), "machine": machine(restorer.device)}
        return partial(_score, about, [result for result, _ in runs], *common)

    def _timed(self, restorer: Any, item: Any, seed: int) -> tuple[Array, float]:
        """The result and its seconds; it is on the CPU, so the device has finished."""
        begin = time.perf_counter()
        return self.trial.restore(restorer, item, seed), time.perf_counter() - begin

    def _prepare(self, name: str, item: Any) -> bool:
        """Have what is compiled and recorded once for pictures of this size done before the clock runs.

        Returns whether the next run is the first one of the system all the same: where nothing is compiled, a run for
        nothing would cost more than it tells.
        """
        restorer = self.restorers[name]
        key = (name, self.trial.shape(item) if restorer.prepares else None)
        first = key not in self.warm
        self.warm.add(key)
        if first and restorer.prepares:
            self._timed(restorer, item, self.seeds[0])
            return False
        return first


def _score(
    about: Mapping[str, Any],
    estimates: Sequence[Array],
    score: Callable[..., Scores],
    arguments: tuple[Any, ...],
    path: Path | None,
) -> Result:
    """Scores of what a system made of a picture, one estimate a seed, in a worker."""
    from ornstein.pictures.evaluation_report import png

    try:
        found = [score(estimate, *arguments) for estimate in estimates]
    except (UserError, ValueError) as error:
        return Result(about["index"], about["file"], about["system"], {}, error=str(error))
    if path is not None:
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_bytes(png(estimates[0]))
    by_seed = {name: [scores.values[name] for scores in found] for name in found[0].values}
    means = {name: float(np.mean(values)) for name, values in by_seed.items()}
    return Result(**about, scores=means, pixels=found[0].pixels, seeds=by_seed if len(found) > 1 else {})
