"""The work of an evaluation: enhancing on the device while other processes score what is done."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ornstein.errors import UserError
from ornstein.journal import Journal
from ornstein.workers import bar, finished
from ornstein_speech.report import write_sound
from ornstein_speech.results import NOISY, Result

if TYPE_CHECKING:
    from ornstein_speech.enhance import Enhancer

Array = npt.NDArray[np.floating]
Method = Callable[[Array, int], Array]


def timed(enhancer: "Enhancer", noisy: Array, rate: int, seed: int) -> tuple[Array, float]:
    """The estimate of a waveform and the real-time factor; the result is on the CPU, so the device has finished."""
    import torch

    begin = time.perf_counter()
    estimate = enhancer(torch.from_numpy(noisy), rate, seed=seed).numpy()
    return estimate, (time.perf_counter() - begin) / (len(noisy) / rate)


class Work:
    """Enhances on the device and, at the same time, scores in other processes."""

    def __init__(
        self,
        enhancers: Mapping[str, "Enhancer"],
        methods: Mapping[str, Method | None],
        rate: int,
        seed: int,
        dnsmos: bool,
        journal: Journal[Result],
        sounds: bool,
    ) -> None:
        from ornstein.hardware import processor

        self.enhancers, self.methods, self.rate, self.seed, self.dnsmos = enhancers, methods, rate, seed, dnsmos
        self.journal, self.sounds, self.processor = journal, sounds, processor()
        self.warm: set[tuple[str, int]] = set()

    def run(self, items: Any, share: Sequence[int], executor: Executor, queue: int, quiet: bool) -> None:
        """Put the results of the files in `share` into the journal, but for those that it holds.

        A file that cannot be read or enhanced gives a result that says why. `executor` scores; at most `queue` files
        wait for it.
        """
        names = [*self.methods, *self.enhancers]
        kept = sum(self._done(index, name) for index in share for name in names)
        if kept and not quiet:
            print(f"going on: {kept} of {len(share) * len(names)} scores are there already", file=sys.stderr)
        pending: set[Future[Result]] = set()
        with bar(len(share), quiet) as advance:
            for index in share:
                left = [name for name in names if not self._done(index, name)]
                item: Any = None
                try:
                    item = items[index] if left else None
                except UserError as error:
                    self._fail(index, str(getattr(items, "names", {index: index})[index]), left, error)
                    left = []
                for name in left:
                    try:
                        arguments = self._job(item, index, name)
                    except UserError as error:
                        self._fail(index, item["name"], [name], error)
                        continue
                    job = executor.submit(_score, *arguments)
                    job.add_done_callback(self._keep)
                    pending.add(job)
                    while len(pending) > queue:  # arrays of long test sets must not pile up
                        pending -= finished(wait(pending, return_when=FIRST_COMPLETED).done)
                    self.journal.check()
                advance()
            finished(wait(pending).done)
        self.journal.check()

    def _done(self, index: int, name: str) -> bool:
        """What failed is tried again by the next run."""
        found = self.journal.results.get((index, name))
        return found is not None and not found.error

    def _fail(self, index: int, file: str, names: Sequence[str], error: UserError) -> None:
        for name in names:
            self.journal.add(Result(index, file, name, {}, 0.0, error=str(error)))

    def _keep(self, job: "Future[Result]") -> None:
        if not job.cancelled() and job.exception() is None:
            self.journal.add(job.result())

    def _job(self, item: Any, index: int, name: str) -> tuple[Any, ...]:
        """The arguments of `_score`; a network has run when this returns."""
        from ornstein.hardware import machine

        clean, noisy = item["clean"][0].numpy(), item["noisy"][0].numpy()
        about: dict[str, Any] = {
            "index": index,
            "file": item["name"],
            "system": name,
            "seconds": len(noisy) / self.rate,
        }
        sound = None
        if self.sounds and name != NOISY:
            sound = self.journal.estimate(index, [*self.methods, *self.enhancers].index(name), ".flac")
        if name in self.methods:
            about["machine"] = self.processor
            return about, self.methods[name], clean, noisy, None, self.rate, self.dnsmos, sound
        enhancer = self.enhancers[name]
        about["first"] = self._prepare(name, noisy)
        estimate, about["rtf"] = timed(enhancer, noisy, self.rate, self.seed)
        about["machine"] = machine(enhancer.device)
        return about, None, clean, noisy, estimate, self.rate, self.dnsmos, sound

    def _prepare(self, name: str, noisy: Array) -> bool:
        """Have what is compiled and recorded once for signals of this length done before the clock runs.

        Returns whether the next run is the first one of the system all the same: where nothing is compiled, a run for
        nothing would cost more than it tells.
        """
        enhancer = self.enhancers[name]
        if not enhancer.prepares:
            first = (name, 0) not in self.warm
            self.warm.add((name, 0))
            return first
        shape = (name, enhancer.frames(len(noisy), self.rate))
        if shape not in self.warm:
            timed(enhancer, noisy, self.rate, self.seed)
            self.warm.add(shape)
        return False


def _score(
    about: Mapping[str, Any],
    method: Method | None,
    clean: Array,
    noisy: Array,
    estimate: Array | None,
    rate: int,
    with_dnsmos: bool,
    sound: Path | None,
) -> Result:
    """Scores of an estimate, or of what `method` makes of the noisy signal (None: the signal itself), in a worker."""
    from ornstein_speech.metrics import score

    rtf = about.get("rtf", 0.0)
    if estimate is None and method is not None:
        begin = time.perf_counter()
        estimate = method(noisy, rate)
        rtf = (time.perf_counter() - begin) / (len(noisy) / rate)
    elif estimate is None:
        estimate = noisy
    scores = score(clean, noisy, estimate, rate)
    if with_dnsmos:
        from ornstein_speech.dnsmos import dnsmos

        scores |= dnsmos(estimate, rate)
    if sound is not None:
        write_sound(sound, estimate, rate)
    return Result(**{**about, "rtf": rtf}, scores=scores, peak=float(np.abs(estimate).max(initial=0.0)))
