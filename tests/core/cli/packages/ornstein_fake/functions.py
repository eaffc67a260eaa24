"""Domain verbs of the test app."""

import json
from pathlib import Path
from typing import Literal

from ornstein.errors import UserError


def copy(source: Path, output: Path, times: int = 1, overwrite: bool = False, progress: bool = True) -> None:
    """Write the arguments to a file.

    Args:
        source: any name.
        output: the file to write.
        times: how often.
        overwrite: replace an existing file.
        progress: show progress.
    """
    if output.exists() and not overwrite:
        raise UserError(f"{output} exists; add --overwrite")
    output.write_text(json.dumps({"source": str(source), "times": times, "progress": progress}))


def count(inputs: Path | list[Path], *, output: Path) -> None:
    """Write the inputs as they arrive.

    Args:
        inputs: any names.
        output: the file to write.
    """
    output.write_text(str([str(path) for path in inputs] if isinstance(inputs, list) else inputs.name))


def fail(how: Literal["user", "bug", "interrupt"]) -> None:
    """Fail.

    Args:
        how: in which way.
    """
    if how == "user":
        raise UserError("this is wrong;\n  do that instead")
    if how == "interrupt":
        raise KeyboardInterrupt
    raise RuntimeError("a bug")
