"""The work of an evaluation: enhancing on the device while other processes score what is done."""

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ornstein.journal import Journal
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
        from ornstein_speech.hardware import processor

        self.enhancers, self.methods, self.rate, self.seed, self.dnsmos = enhancers, methods, rate, seed, dnsmos
        self.journal, self.sounds, self.processor = journal, sounds, processor()
        self.warm: set[str] = set()

    def run(self, items: Any, share: Sequence[int], workers: int, quiet: bool) -> None:
        """Put the results of the files in `share` into the journal, but for those that it holds."""
        names = [*self.methods, *self.enhancers]
        kept = sum((index, name) in self.journal.results for index in share for name in names)
        if kept and not quiet:
            print(f"going on: {kept} of {len(share) * len(names)} scores are there already", file=sys.stderr)
        pending: set[Future[Result]] = set()
        with _executor(workers) as executor, _bar(len(share), quiet) as advance:
            for index in share:
                left = [name for name in names if (index, name) not in self.journal.results]
                item = items[index] if left else None
                for name in left:
                    job = executor.submit(_score, *self._job(item, index, name))
                    job.add_done_callback(self._keep)
                    pending.add(job)
                    while len(pending) > 8 * max(workers, 1):  # arrays of long test sets must not pile up
                        pending -= _finished(wait(pending, return_when=FIRST_COMPLETED).done)
                    self.journal.check()
                advance()
            _finished(wait(pending).done)
        self.journal.check()

    def _keep(self, job: "Future[Result]") -> None:
        if not job.cancelled() and job.exception() is None:
            self.journal.add(job.result())

    def _job(self, item: Any, index: int, name: str) -> tuple[Any, ...]:
        """The arguments of `_score`; a network has run when this returns."""
        from ornstein_speech.hardware import machine

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
        about["first"] = name not in self.warm
        self.warm.add(name)
        estimate, about["rtf"] = timed(enhancer, noisy, self.rate, self.seed)
        about["machine"] = machine(enhancer.device)
        return about, None, clean, noisy, estimate, self.rate, self.dnsmos, sound


def _finished(jobs: "set[Future[Result]]") -> "set[Future[Result]]":
    """`jobs`, after raising what one of them raised."""
    for job in jobs:
        job.result()
    return jobs


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


class _Inline(Executor):
    """Does the work when it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def _executor(workers: int) -> Iterator[Executor]:
    """Processes started afresh: forking a process that runs torch threads can hang. Without workers, this one.

    After Ctrl-C what was submitted is finished: scoring is quick beside the enhancement that it would lose.
    """
    executor: Executor = _Inline()
    if workers > 0:
        context = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupts)
    try:
        yield executor
    finally:
        executor.shutdown()


def _ignore_interrupts() -> None:
    """Ctrl-C reaches every process of a terminal; the workers end what they do, and the main process ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _bar(total: int, quiet: bool) -> Iterator[Callable[[], object]]:
    from tqdm import tqdm

    with tqdm(total=total, unit="file", disable=True if quiet else None) as bar:
        yield bar.update
