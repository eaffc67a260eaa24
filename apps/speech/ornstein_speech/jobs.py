"""What `enhance` works through: pairs of input and output files, and a bar over their seconds of sound."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from ornstein.errors import UserError

WRITABLE = (".wav", ".flac", ".ogg", ".mp3")


def find_jobs(inputs: Path | str | list[Path] | list[str], output: Path) -> list[tuple[Path, Path]]:
    """Source and target of every file.

    Raises:
        UserError: nothing to do, a missing input, or two inputs with one output.
    """
    from ornstein_speech import audio

    given = [Path(item) for item in inputs] if isinstance(inputs, (list, tuple)) else [Path(inputs)]
    if not given:
        raise UserError("no input; give a sound file or a folder")
    if len(given) == 1 and not given[0].is_dir():
        source = given[0]
        into_folder = output.is_dir() or (not output.suffix and source.suffix != "")
        return [(source, output / _file_name(source) if into_folder else output)]
    if output.is_file() or output.suffix.lower() in WRITABLE:
        raise UserError(f"several inputs need a folder to go to, not the file {output}")
    jobs: list[tuple[Path, Path]] = []
    for item in given:
        if not item.is_dir():
            jobs.append((item, output / _file_name(item)))
            continue
        inside = output.resolve() != item.resolve() and output.resolve().is_relative_to(item.resolve())
        for source in audio.find(item):
            if inside and source.resolve().is_relative_to(output.resolve()):
                continue  # the results of an earlier run
            jobs.append((source, output / source.relative_to(item).parent / _file_name(source)))
    if not jobs:
        raise UserError(f"there are no sound files in {given[0]}; known are {', '.join(audio.SUFFIXES)}")
    targets: dict[Path, Path] = {}
    for source, target in jobs:
        other = targets.setdefault(target, source)
        if other != source:
            raise UserError(f"{other} and {source} would both be written to {target}; enhance them one after the other")
    return jobs


def _file_name(source: Path) -> str:
    return source.name if source.suffix.lower() in WRITABLE else f"{source.stem}.wav"


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
def show_progress(jobs: Sequence[tuple[Path, Path]], quiet: bool) -> Iterator[Progress]:
    """A bar over the seconds of all `jobs`; none where `quiet` or where stderr is no terminal."""
    from ornstein_speech import audio

    total = 0.0
    for source, _ in jobs:
        with contextlib.suppress(UserError):  # reported when its turn comes
            total += audio.info(source).seconds
    progress = Progress(total, quiet)
    try:
        yield progress
    finally:
        progress.bar.close()
