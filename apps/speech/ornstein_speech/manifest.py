"""The folder that a preparation fills: it knows its settings, goes on where it was stopped, and describes its files."""

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from ornstein.errors import UserError
from ornstein.files import atomic_path, check_target

T = TypeVar("T")
WORK = ".work"
"""What is needed while a set is being made; deleted at the end."""
_STARTED = ".settings.json"


def open_folder(target: Path, settings: dict[str, Any], parts: Iterable[str], overwrite: bool) -> dict[str, Any] | None:
    """Make a target folder ready; return its manifest if the set is complete already.

    Args:
        target: the folder; a new one, or one with the same settings.
        settings: what the files of the set depend on.
        parts: names of the folders that hold the files.
        overwrite: delete a set with other settings.

    Raises:
        UserError: other files or another set there, or not writable.
    """
    manifest, started = target / "manifest.json", target / _STARTED
    check_target(manifest, overwrite=True)  # creates the folder, refuses an unwritable one
    made = [target / part for part in parts if (target / part).exists()]
    found = read_json(manifest) if manifest.exists() else read_json(started) if started.exists() else None
    if found is None and {path.name for path in target.iterdir()} - {WORK}:
        raise UserError(f"{target} holds other files; give a new folder")
    same = found is not None and all(found.get(key) == value for key, value in settings.items())
    # A run that failed before its first file leaves nothing that would be lost.
    if found is not None and not same and not overwrite and (made or manifest.exists()):
        raise UserError(f"{target} was prepared with other options; choose another folder or add --overwrite")
    if same and manifest.exists() and not overwrite:
        return found
    if found is not None and (overwrite or not same):
        for path in (*made, target / WORK) if made or overwrite else ():
            shutil.rmtree(path, ignore_errors=True)
        manifest.unlink(missing_ok=True)
    (target / WORK).mkdir(exist_ok=True)
    write_json(started, settings)
    return None


def close_folder(target: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest of a finished set and remove what was needed to make it; return the manifest."""
    write_json(target / "manifest.json", manifest)
    (target / _STARTED).unlink(missing_ok=True)
    shutil.rmtree(target / WORK, ignore_errors=True)
    return manifest


def verify(folder: Path, again: str = "ornstein speech prepare") -> int:
    """Check every file of a set against its manifest; return the number of files.

    Raises:
        UserError: no manifest, a missing or a changed file; the message names the command `again`.
    """
    folder = Path(folder)
    manifest = read_json(folder / "manifest.json", again)
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing; run `{again} {folder} --overwrite`")
        if checksum(path) != entry["sha256"]:
            raise UserError(f"{path} has changed; run `{again} {folder} --overwrite`")
    return len(manifest["files"])


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file in one step, over an older one."""
    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, command: str = "ornstein speech prepare") -> dict[str, Any]:
    """Read a manifest.

    Raises:
        UserError: it is missing (the message names the `command` that makes it), damaged or not a manifest.
    """
    if not path.is_file():
        raise UserError(f"there is no {path}; make the set with `{command} {path.parent}`")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and prepare the set again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a manifest; delete it and prepare the set again")
    return content


def bar(items: Iterable[T], what: str, quiet: bool, total: int | None = None) -> Iterable[T]:
    """Show progress over `items` (`total` of them) where standard error is a terminal, unless `quiet`."""
    from tqdm import tqdm

    return tqdm(items, desc=what, total=total, unit="", disable=True if quiet else None)
