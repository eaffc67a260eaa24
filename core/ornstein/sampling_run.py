"""Which run of a sampler a denoiser is called in, for guidance that remembers the calls of one run."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_RUN: ContextVar[object | None] = ContextVar("sampling run", default=None)


@contextmanager
def sampling_run() -> Iterator[None]:
    """Everything inside belongs to one new run; a run may hold others."""
    before = _RUN.set(object())
    try:
        yield
    finally:
        _RUN.reset(before)


def current_run() -> object | None:
    """A token of the run that is under way, or None outside of one (a trajectory driven by hand)."""
    return _RUN.get()
