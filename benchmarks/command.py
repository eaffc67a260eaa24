"""What the benchmarks share as commands."""

import os
import platform
import sys
import time
from collections.abc import Callable, Sequence

from ornstein.errors import UserError


def run(main: Callable[[], None]) -> None:
    """Run `main`; a user's mistake is told in one line, with code 2."""
    try:
        main()
    except UserError as error:
        print("ornstein:", error, file=sys.stderr)
        sys.exit(2)


def machine() -> str:
    """The processor, for results that a CPU gives."""
    import torch

    return f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"


def measured(words: Sequence[str], what: str) -> dict[str, float]:
    """Seconds and the largest resident memory in MiB of one process, `ornstein WORDS`; `what` it does, for its failure.

    Raises:
        UserError: it ended with another code than 0.
    """
    begin = time.perf_counter()
    child = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-m", "ornstein", *words])
    _, status, usage = os.wait4(child, 0)
    if status:
        raise UserError(f"{what} ended with code {os.waitstatus_to_exitcode(status)}; see what it printed")
    return {"seconds": time.perf_counter() - begin, "memory_mib": usage.ru_maxrss / 1024}
