"""Writing files without losing anything: a temporary name first, then a rename."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ornstein.errors import UserError


def check_target(target: str | Path, overwrite: bool = False) -> Path:
    """Return `target` as a path that may be written; create its folder.

    Raises:
        UserError: the target exists and `overwrite` is false, is a folder, or its folder cannot be written.
    """
    target = Path(target)
    if target.is_dir():
        raise UserError(f"{target} is a folder; give a file name")
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists; choose another name or add --overwrite")
    make_folder(target.parent)
    return target


def make_folder(folder: Path) -> None:
    """Create `folder` with those above it, and see whether a file can be written into it.

    Raises:
        UserError: it cannot be created, or not be written into; a part of it is a file.
    """
    file = next((part for part in (folder, *folder.parents) if part.exists() and not part.is_dir()), None)
    if file is not None:
        raise UserError(f"{file} is a file, so nothing can be written into it; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        above = next(part for part in folder.parents if part.is_dir())
        raise UserError(f"cannot create the folder {folder}: {_reason(error, above)}") from None
    try:
        with tempfile.TemporaryFile(dir=folder):  # permissions do not tell of a read-only disk, nor of /proc
            pass
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {_reason(error, folder)}") from None


def _reason(error: OSError, folder: Path) -> str:
    """Why nothing can be created in `folder`, which exists, and how to mend it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}; free some space"
    reason = f"{folder} takes no new files" if error.errno == errno.ENOENT else error.strerror  # the answer of /proc
    return f"{reason}; choose another folder"


def require_apart(source: str | Path, target: str | Path) -> None:
    """Raise UserError if the folder `target`, to be filled from the folder `source`, is that folder or lies inside it,
    where a second run would read what the first one wrote."""
    inner, outer = Path(target).resolve(), Path(source).resolve()
    if inner.is_relative_to(outer):
        where = "is the folder of the sources" if inner == outer else f"lies inside {source}, the folder of the sources"
        raise UserError(f"{target} {where}; choose a target outside of it")


@contextmanager
def atomic_path(target: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it to `target` when the block ends well, remove it otherwise.

    The temporary name keeps the suffix of `target`, because writers choose the format by it.
    """
    target = check_target(target, overwrite)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}-", suffix=target.suffix)
    except OSError as error:
        raise UserError(f"cannot write to {target.parent}: {error.strerror}; choose another folder") from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if not overwrite and target.exists():
            raise UserError(f"{target} appeared while it was being written; choose another name or add --overwrite")
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; a result gets the usual permissions
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}; check space and permissions") from error
    finally:
        temporary.unlink(missing_ok=True)
