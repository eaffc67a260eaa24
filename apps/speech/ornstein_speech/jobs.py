"""What `enhance` works through: pairs of input and output files, and a bar over their seconds of sound."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

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


class Progress:
    """A bar over seconds of sound with the time left, and lines printed above it."""

    def __init__(self, seconds: float, quiet: bool) -> None:
        from tqdm import tqdm

        self.bar = tqdm(
            total=round(seconds, 1),
            disable=True if quiet else None,  # None: no bar where stderr is no terminal
            bar_format="{l_bar}{bar}| {n:.1f}/{total:.1f} s of sound [{elapsed}<{remaining}]",
        )

    def __call__(self, seconds: float) -> None:
        self.bar.update(min(seconds, max(0.0, self.bar.total - self.bar.n)))

    def message(self, text: str, file: TextIO) -> None:
        self.bar.write(text, file=file)


@contextlib.contextmanager
def show_progress(work: Sequence[tuple[Path, Path]], quiet: bool) -> Iterator[Progress]:
    """A bar over the seconds of all `work`; none where `quiet` or where stderr is no terminal."""
    from ornstein_speech import audio

    total = 0.0
    for source, _ in work:
        with contextlib.suppress(UserError):  # reported when its turn comes
            total += audio.info(source).seconds
    progress = Progress(total, quiet)
    try:
        yield progress
    finally:
        progress.bar.close()
