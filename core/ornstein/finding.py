"""The files of a kind in a folder."""

from collections.abc import Collection, Iterable
from pathlib import Path

from ornstein.errors import UserError


def inside(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The files of a folder and the folders in it that have one of the lower-case `suffixes`, sorted by relative path
    with `/`; hidden names are left out."""
    found = [
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in suffixes
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def find(path: str | Path, suffixes: Collection[str], kinds: str) -> list[Path]:
    """As `inside`; a file is its own list. `kinds` is what several of them are called.

    Raises:
        UserError: there is no such path, or no such file in the folder.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"there is no file or folder {path}; check the name")
    found = inside(path, suffixes)
    if not found:
        raise UserError(f"{path} holds no {kinds}; give a folder with {', '.join(suffixes)} files")
    return found


def by_name(folder: Path, files: Iterable[Path]) -> dict[str, Path]:
    """Name -> file, sorted; the name is the path below `folder` without suffix.

    Raises:
        UserError: two have one name.
    """
    found: dict[str, Path] = {}
    for path in files:
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise UserError(f"{found[name]} and {path} have one name; remove one of them")
        found[name] = path
    return dict(sorted(found.items()))


def existing(path: str | Path, kind: str) -> Path:
    """`path` of a file, which is called a `kind`.

    Raises:
        UserError: it is a folder, or there is no such file.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a {kind}")
    if not path.exists():
        raise UserError(f"there is no file {path}; check the name")
    return path
