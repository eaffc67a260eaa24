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
_MADE = "files.jsonl"


def open_folder(target: Path, settings: dict[str, Any], parts: Iterable[str], overwrite: bool) -> dict[str, Any] | None:
    """Make a target folder ready; return its manifest if the set is complete already.

    Args:
        target: the folder; a new one, or one that holds a set.
        settings: what the files of the set depend on, with `format` and `set`.
        parts: names of the folders that hold the files.
        overwrite: delete the files of a set with other settings; no others.

    Raises:
        UserError: other files or another set there, or not writable.
    """
    manifest, started = target / "manifest.json", target / _STARTED
    check_target(manifest, overwrite=True)  # creates the folder, refuses an unwritable one
    found = _own(manifest, complete=True) if manifest.exists() else _own(started) if started.exists() else None
    if found is None and any(target.iterdir()):
        raise UserError(f"{target} holds other files than a set that this command makes; give a new folder")
    made = [target / part for part in parts if (target / part).exists()]
    same = found is not None and all(found.get(key) == value for key, value in settings.items())
    # A run that failed before its first file leaves nothing that would be lost.
    if found is not None and not same and not overwrite and (made or manifest.exists()):
        raise UserError(
            f"{target} was prepared with other options or from other files; choose another folder or add --overwrite"
        )
    if same and manifest.exists() and not overwrite:
        return found
    if found is not None and (overwrite or not same):
        _clear(target, found, made)
    write_json(started, settings)
    (target / WORK).mkdir(exist_ok=True)
    return None


def announce(target: Path, names: Iterable[str]) -> None:
    """Note files of a set before they are written, so that only they are deleted if it is made anew."""
    with (target / WORK / _MADE).open("a", encoding="utf-8") as file:  # one write: several processes append to it
        file.write("".join("\n" + json.dumps(name) for name in names))


def close_folder(target: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest of a finished set and remove what was needed to make it; return the manifest.

    Files of interrupted runs that the set does not have, because a source was taken away since, are deleted.
    """
    _delete(target, _announced(target) - _listed(manifest))
    write_json(target / "manifest.json", manifest)
    (target / _STARTED).unlink(missing_ok=True)
    shutil.rmtree(target / WORK, ignore_errors=True)
    return manifest


def _own(path: Path, complete: bool = False) -> dict[str, Any] | None:
    """The manifest or the settings of a set of this project; None for a file of others or a damaged one."""
    try:
        content = read_json(path, "")
    except UserError:
        return None
    folders = content.get("folders", [])
    own = isinstance(content.get("format"), int) and isinstance(content.get("set"), str)
    own = own and isinstance(folders, list) and all(isinstance(folder, str) for folder in folders)
    return content if own and (not complete or isinstance(content.get("files"), dict)) else None


def _clear(target: Path, found: dict[str, Any], made: list[Path]) -> None:
    """Delete the files of a set, all of them or, where others lie among them, none."""
    names = _listed(found) | _announced(target)
    own = set(_inside(target, names))
    for folder in made:
        for path in sorted(folder.rglob("*")):
            if (path.is_symlink() or not path.is_dir()) and path not in own and not path.name.startswith("."):
                raise UserError(f"{path} is not a file of the set in {target}; move it away or choose another folder")
    (target / WORK).mkdir(exist_ok=True)
    announce(target, sorted(names))
    write_json(target / _STARTED, {key: value for key, value in found.items() if key != "files"})
    (target / "manifest.json").unlink(missing_ok=True)
    _delete(target, names)
    shutil.rmtree(target / WORK, ignore_errors=True)


def _listed(manifest: dict[str, Any]) -> set[str]:
    """The files of a set; pairs are listed once, without their two folders."""
    names, folders = manifest.get("files", {}), manifest.get("folders")
    if folders is None:
        return set(names)
    parts = [name.partition("/") for name in names]
    return {f"{split}/{folder}/{rest}" for split, _, rest in parts for folder in folders}


def _announced(target: Path) -> set[str]:
    path = target / WORK / _MADE
    if not path.is_file():
        return set()
    return {json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith('"')}


def _inside(target: Path, names: Iterable[str]) -> list[Path]:
    """The paths of files of a set, none of them outside its folder."""
    root, paths = target.resolve(), [target / name for name in names]
    for path in paths:
        if ".." in path.parts[len(target.parts) :] or not path.parent.resolve().is_relative_to(root):
            raise UserError(f"{target} has a manifest that lists {path}, outside of it; choose another folder")
    return paths


def _delete(target: Path, names: Iterable[str]) -> None:
    """Delete files of a set and the folders that this leaves empty."""
    folders = set()
    for path in _inside(target, names):
        path.unlink(missing_ok=True)
        folders |= {parent for parent in path.parents if parent.is_relative_to(target) and parent != target}
    for folder in sorted(folders, reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def verify(folder: Path, again: str) -> int:
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


def read_json(path: Path, command: str) -> dict[str, Any]:
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
