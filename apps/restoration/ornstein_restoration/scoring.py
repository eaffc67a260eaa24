"""The work of an evaluation: restoring on the device while other processes score what is done."""

import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ornstein.errors import UserError
from ornstein.files import atomic_path
from ornstein.journal import Journal
from ornstein.workers import bar, finished
from ornstein_restoration.benchmarks import Protocol, score
from ornstein_restoration.results import INPUT, Result

if TYPE_CHECKING:
    from ornstein.pictures.lpips import Lpips
    from ornstein_restoration.datasets import Pictures
    from ornstein_restoration.restorer import Restorer

Array = npt.NDArray[np.floating]


def timed(restorer: "Restorer", picture: Array, mask: Array | None, seed: int) -> tuple[Array, float]:
    """The result for a picture and its seconds; the result is on the CPU, so the device has finished."""
    begin = time.perf_counter()
    result = restorer(picture, mask, seed=seed).numpy()
    return result, time.perf_counter() - begin


def enlarged(picture: Array, size: tuple[int, int]) -> Array:
    """The input as the systems are compared with it: MATLAB's bicubic enlargement to `size`, or the picture itself."""
    from ornstein_restoration.resizing import imresize

    if picture.shape[1:] == size:
        return picture
    return np.asarray(imresize(picture, size=size), np.float32).clip(0, 1)


class Work:
    """Restores on the device and, at the same time, scores in other processes.

    Args:
        restorers: by name.
        baseline: whether the input is scored, too.
        protocol: of `benchmarks.score`.
        lpips: weights for LPIPS; None does without.
        seeds: of the noise; every picture is restored with each.
        journal: takes the results.
        keep: whether results wait as pictures for the report.
    """

    def __init__(
        self,
        restorers: Mapping[str, "Restorer"],
        baseline: bool,
        protocol: Protocol,
        lpips: Path | None,
        seeds: Sequence[int],
        journal: Journal[Result],
        keep: bool,
    ) -> None:
        self.restorers, self.protocol, self.lpips, self.seeds = restorers, protocol, lpips, list(seeds)
        self.journal, self.keep = journal, keep
        self.names = [*([INPUT] if baseline else []), *restorers]
        self.warm: set[tuple[Any, ...]] = set()

    def run(self, pictures: "Pictures", share: Sequence[int], executor: Executor, queue: int, quiet: bool) -> None:
        """Put the results of the pictures in `share` into the journal, but for those that it holds.

        A picture that cannot be read, restored or scored gives a result that says why. `executor` scores; at most
        `queue` results wait for it.
        """
        kept = sum(self._done(index, name) for index in share for name in self.names)
        if kept and not quiet:
            print(f"going on: {kept} of {len(share) * len(self.names)} scores are there already", file=sys.stderr)
        pending: set[Future[Result]] = set()
        with bar(len(share), quiet, "picture") as advance:
            for index in share:
                left = [name for name in self.names if not self._done(index, name)]
                try:
                    item = _usable(pictures[index]) if left else {}
                except (UserError, ValueError) as error:
                    self._fail(index, pictures.pairs[index].name, left, error)
                    left = []
                for name in left:
                    try:
                        arguments = self._job(item, index, name)
                    except (UserError, ValueError) as error:
                        self._fail(index, item["name"], [name], error)
                        continue
                    job = executor.submit(_score, *arguments)
                    job.add_done_callback(self._keep)
                    pending.add(job)
                    while len(pending) > queue:  # large pictures must not pile up
                        pending -= finished(wait(pending, return_when=FIRST_COMPLETED).done)
                    self.journal.check()
                advance()
            finished(wait(pending).done)
        self.journal.check()

    def _done(self, index: int, name: str) -> bool:
        """What failed is tried again by the next run."""
        found = self.journal.results.get((index, name))
        return found is not None and not found.error

    def _fail(self, index: int, file: str, names: Sequence[str], error: Exception) -> None:
        for name in names:
            self.journal.add(Result(index, file, name, {}, error=str(error)))

    def _keep(self, job: "Future[Result]") -> None:
        if not job.cancelled() and job.exception() is None:
            self.journal.add(job.result())

    def _job(self, item: Mapping[str, Any], index: int, name: str) -> tuple[Any, ...]:
        """The arguments of `_score`; a network has run when this returns."""
        truth, measured = item["gt"].numpy(), item["lq"].numpy()
        mask = item["mask"].numpy() if "mask" in item else None
        about: dict[str, Any] = {"index": index, "file": item["name"], "system": name}
        path = self.journal.estimate(index, self.names.index(name), ".png") if self.keep else None
        common = (truth, mask, self.protocol, self.lpips, path)
        if name == INPUT:
            return about, [enlarged(measured, truth.shape[1:])], *common
        from ornstein.hardware import machine

        restorer = self.restorers[name]
        told = None if restorer.model.representation.mask == "none" else mask
        about["first"] = self._prepare(name, measured, told)
        runs = [timed(restorer, measured, told, seed) for seed in self.seeds]
        about |= {"seconds": sum(seconds for _, seconds in runs) / len(runs), "machine": machine(restorer.device)}
        return about, [result for result, _ in runs], *common

    def _prepare(self, name: str, measured: Array, mask: Array | None) -> bool:
        """Have what is compiled and recorded once for pictures of this size done before the clock runs.

        Returns whether the next run is the first one of the system all the same: where nothing is compiled, a run for
        nothing would cost more than it tells.
        """
        restorer = self.restorers[name]
        key = (name, *(measured.shape if restorer.prepares else ()))
        first = key not in self.warm
        self.warm.add(key)
        if first and restorer.prepares:
            timed(restorer, measured, mask, self.seeds[0])
            return False
        return first


def _usable(item: dict[str, Any]) -> dict[str, Any]:
    if "gt" not in item:
        raise UserError(f"{item['name']} has no reference; only pictures with one can be scored")
    return item


def _score(
    about: Mapping[str, Any],
    estimates: Sequence[Array],
    truth: Array,
    mask: Array | None,
    protocol: Protocol,
    lpips: Path | None,
    path: Path | None,
) -> Result:
    """Scores of what a system made of a picture, one estimate a seed, in a worker."""
    from ornstein_restoration.evaluation_report import png

    network = None if lpips is None else _lpips(lpips)
    try:
        found = [score(truth, estimate, protocol, mask, network) for estimate in estimates]
    except (UserError, ValueError) as error:
        return Result(about["index"], about["file"], about["system"], {}, error=str(error))
    if path is not None:
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_bytes(png(estimates[0]))
    by_seed = {name: [scores.values[name] for scores in found] for name in found[0].values}
    means = {name: float(np.mean(values)) for name, values in by_seed.items()}
    return Result(**about, scores=means, pixels=found[0].pixels, seeds=by_seed if len(found) > 1 else {})


@cache
def _lpips(weights: Path) -> "Lpips":
    from ornstein.pictures.lpips import Lpips

    return Lpips(weights)
