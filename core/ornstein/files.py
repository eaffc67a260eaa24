"""Writing files without losing anything: a temporary name first, then a rename."""

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
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {target.parent}: {error.strerror}; choose another place") from None
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to {target.parent}; choose another folder or change its permissions")
    return target


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
