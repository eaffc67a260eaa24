"""Processes that score what another one makes."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "NUMBA")}
"""Environment of a worker: with a thread per core in each, they would take the cores from the process they serve."""


class _Inline(Executor):
    """Does the work when it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  # the future carries it, as that of a process would
            future.set_exception(error)
        return future


@contextmanager
def pool(workers: int) -> Iterator[Executor]:
    """Processes of one thread each, started afresh: forking a process that runs torch threads can hang. 0: this one.

    After Ctrl-C what was submitted is finished: scoring is quick beside the work that it would lose.
    """
    if workers == 0:
        yield _Inline()
        return
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)  # libraries look there when they are loaded, before any initializer runs
    executor = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        yield executor
    finally:
        executor.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin() -> None:
    """Ctrl-C reaches every process of a terminal; the workers end what they do, and the main process ends them."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def finished(jobs: set[Future[T]]) -> set[Future[T]]:
    """`jobs`, after raising what one of them raised."""
    for job in jobs:
        job.result()
    return jobs


@contextmanager
def bar(total: int, quiet: bool, unit: str = "file") -> Iterator[Callable[[], object]]:
    """A bar where stderr is a terminal; call what it gives after each of `total` units."""
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, disable=True if quiet else None) as shown:
        yield shown.update
