"""What a command that turns files into files works through: pairs of a source and its target."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    targets: dict[Path, Path] = {}
    for source, target in jobs:
        other = targets.setdefault(target, source)
        if other != source:
            raise UserError(f"{other} and {source} would both be written to {target}; treat them one after the other")
    return jobs
