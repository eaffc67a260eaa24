"""What `enhance` works through: pairs of input and output files, and their seconds of sound."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from ornstein import jobs
from ornstein.errors import UserError

WRITABLE = (".wav", ".flac", ".ogg", ".mp3")


def find_jobs(inputs: Path | str | list[Path] | list[str], output: Path) -> list[tuple[Path, Path]]:
    """Source and target of every file.

    Raises:
        UserError: nothing to do, a missing input, or two inputs with one output.
    """
    from ornstein_speech import audio

    return jobs.find_jobs(inputs, output, jobs.FileKind("sound file", audio.find, audio.SUFFIXES, WRITABLE, ".wav"))


def seconds(work: Sequence[tuple[Path, Path]]) -> list[float]:
    """Length of every source; 0 where it cannot be read, which is reported when its turn comes."""
    from ornstein_speech import audio

    found = [0.0] * len(work)
    for index, (source, _) in enumerate(work):
        with contextlib.suppress(UserError):
            found[index] = audio.info(source).seconds
    return found
