"""What a command that turns files into files works through: pairs of a source and its target, one after the other."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ornstein.errors import UserError


@dataclass(frozen=True)
class FileKind:
    """The files that an app reads and writes.

    Args:
        name: what a user calls one of them.
        find: all of them in a folder, at any depth.
        readable: suffixes that are looked for.
        writable: suffixes that can be written.
        fallback: suffix of the result of a file that cannot be written as it is.
    """

    name: str
    find: Callable[[Path], Iterable[Path]]
    readable: Sequence[str]
    writable: Sequence[str]
    fallback: str

    def result_name(self, source: Path) -> str:
        """Name of the file in a folder that is made of `source`."""
        return source.name if source.suffix.lower() in self.writable else f"{source.stem}{self.fallback}"


def find_jobs(
    inputs: Path | str | Sequence[Path] | Sequence[str], output: Path, kind: FileKind
) -> list[tuple[Path, Path]]:
    """Source and target of every file; a folder keeps its structure, and earlier results inside it are left out.

    Raises:
        UserError: nothing to do, several inputs for one file, or two inputs with one output.
    """
    given = [Path(inputs)] if isinstance(inputs, (str, Path)) else [Path(item) for item in inputs]
    if not given:
        raise UserError(f"no input; give a {kind.name} or a folder")
    if len(given) == 1 and not given[0].is_dir():
        source = given[0]
        into_folder = output.is_dir() or (not output.suffix and source.suffix != "")
        return [(source, output / kind.result_name(source) if into_folder else output)]
    if output.is_file() or output.suffix.lower() in kind.writable:
        raise UserError(f"several inputs need a folder to go to, not the file {output}")
    jobs: list[tuple[Path, Path]] = []
    for item in given:
        if not item.is_dir():
            jobs.append((item, output / kind.result_name(item)))
            continue
        inside = output.resolve() != item.resolve() and output.resolve().is_relative_to(item.resolve())
        for source in kind.find(item):
            if inside and source.resolve().is_relative_to(output.resolve()):
                continue  # the results of an earlier run
            jobs.append((source, output / source.relative_to(item).parent / kind.result_name(source)))
    if not jobs:
        raise UserError(f"there are no {kind.name}s in {given[0]}; known are {', '.join(kind.readable)}")
    jobs = list(dict.fromkeys(jobs))  # a file that is named twice, or beside its folder
    targets: dict[Path, Path] = {}
    for source, target in jobs:
        other = targets.setdefault(target, source)
        if other != source:
            raise UserError(f"{other} and {source} would both be written to {target}; treat them one after the other")
    return jobs


def unread(inputs: Path | str | Sequence[Path] | Sequence[str], output: Path, kind: FileKind) -> list[Path]:
    """The files in folders among `inputs` that `find_jobs` leaves out because they are of another kind; those with
    hidden names and earlier results aside."""
    given = [Path(inputs)] if isinstance(inputs, (str, Path)) else [Path(item) for item in inputs]
    results = output.resolve()
    return [
        file
        for folder in given
        if folder.is_dir()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and file.suffix.lower() not in kind.readable
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        and not (results != folder.resolve() and file.resolve().is_relative_to(results))
    ]


def run_jobs(
    work: Sequence[tuple[Path, Path]],
    each: Callable[[Path, Path, Callable[[float], None]], str | None],
    units: str,
    quiet: bool,
    others: Sequence[Path] = (),
    sizes: Sequence[float] | None = None,
) -> list[Path]:
    """Do all files; one that fails does not stop the others, and is told of at the end. Returns those written.

    Args:
        work: of `find_jobs`.
        each: makes the second file of the first one, and tells how many units are done since it last did; returns a
            remark, or None.
        units: what the bar counts.
        quiet: no bar, no list of what is written, and no note of `others`.
        others: of `unread`, told of at the end.
        sizes: units of every file; default: 1.

    Raises:
        UserError: files failed.
    """
    written: list[Path] = []
    failed = 0
    sizes = [1] * len(work) if sizes is None else sizes
    with _progress(round(sum(sizes), 1), units, quiet) as bar:
        for done, (source, target) in enumerate(work, start=1):
            try:
                remark = each(source, target, bar)
            except UserError as error:
                if len(work) == 1:
                    raise
                failed += 1
                bar.message(f"failed: {error}", sys.stderr)
            else:
                written.append(target)
                if remark:
                    bar.message(f"note: {remark}", sys.stderr)
                if not quiet:
                    bar.message(str(target), sys.stdout)
            bar.finish(sum(sizes[:done]))
    if others and not quiet:
        endings = ", ".join(sorted({file.suffix or file.name for file in others}))
        some = "1 file" if len(others) == 1 else f"{len(others)} files"
        print(f"note: {some} of other kinds left out ({endings})", file=sys.stderr)
    if failed:
        rest = "; the others are written" if written else ""
        raise UserError(f"{failed} of {len(work)} files failed, see above{rest}")
    return written


class _Bar:
    """A bar over units with the time left, and lines printed above it."""

    def __init__(self, total: float, units: str, quiet: bool) -> None:
        from tqdm import tqdm

        self.bar = tqdm(
            total=total,
            disable=True if quiet else None,  # None: no bar where stderr is no terminal
            bar_format=f"{{l_bar}}{{bar}}| {{n:.1f}}/{{total}} {units} [{{elapsed}}<{{remaining}}]",
        )

    def __call__(self, units: float) -> None:
        self.bar.update(min(units, max(0.0, self.bar.total - self.bar.n)))

    def finish(self, done: float) -> None:
        self.bar.update(done - self.bar.n)

    def message(self, text: str, file: TextIO) -> None:
        self.bar.write(text, file=file)


@contextlib.contextmanager
def _progress(total: float, units: str, quiet: bool) -> Iterator[_Bar]:
    bar = _Bar(total, units, quiet)
    try:
        yield bar
    finally:
        bar.bar.close()
