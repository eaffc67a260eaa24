"""Debian packages without root: fetching with apt-get, unpacking with dpkg-deb or with Python alone."""

import lzma
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from ornstein.errors import UserError


def unpacked(
    name: str, folder: str, work: Path, packages: Path | None = None, source: Path | None = None
) -> tuple[Path, Path | None]:
    """Return a folder of a package, and its .deb where there is one.

    Args:
        name: of the package.
        folder: which one, below the root of the package.
        work: where packages are downloaded and unpacked; what an earlier run left there is used.
        packages: folder with the .deb files; without it and `source`, apt-get downloads them.
        source: folder with unpacked packages: SOURCE/NAME/FOLDER, or one common SOURCE/FOLDER.

    Raises:
        UserError: the package is missing, damaged or another version, or cannot be fetched.
    """
    if source is not None:
        for root in (Path(source) / name, Path(source)):
            if (root / folder).is_dir():
                return root / folder, None
        raise UserError(f"{source} holds no unpacked {name} ({name}/{folder}); unpack it there")
    deb = _find(Path(packages), name) if packages is not None else None
    if deb is None and packages is not None:
        raise UserError(f"{packages} holds no {name}_*.deb; download it there, or leave out --packages")
    if deb is None:
        deb = _find(work, name) or _download(name, work)
    tree = work / name
    if not tree.is_dir():
        partial = work / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        unpack(deb, partial)
        partial.rename(tree)
    if not (tree / folder).is_dir():
        raise UserError(f"{deb} holds no {folder}; it is another version than this program knows")
    return tree / folder, deb


def unpack(deb: Path, target: Path) -> None:
    """Unpack the data of a .deb file into a folder: with dpkg-deb where there is one, else with Python.

    Raises:
        UserError: not a .deb file, damaged, or compressed in a way that cannot be read here.
    """
    if shutil.which("dpkg-deb"):
        result = subprocess.run(["dpkg-deb", "-x", str(deb), str(target)], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise UserError(f"{deb} cannot be unpacked ({_last_line(result.stderr)}); download it again")
    else:
        unpack_with_python(deb, target)


def unpack_with_python(deb: Path, target: Path) -> None:
    """Unpack a .deb file, an `ar` archive with a compressed tar archive `data.tar.*` in it, without dpkg."""
    found = [member for member in _ar_members(deb) if member[0].startswith("data.tar")]
    if not found:
        raise UserError(f"{deb} holds no data.tar; download it again")
    name, data = found[0]
    if name.endswith(".zst"):  # the standard library reads it from Python 3.14 on
        if shutil.which("zstd") is None:
            raise UserError(
                f"{deb} is compressed with zstd; install dpkg or zstd, or give unpacked packages with --source"
            )
        result = subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=False)
        if result.returncode != 0:
            raise UserError(f"{deb} cannot be unpacked ({_last_line(result.stderr.decode())}); download it again")
        data = result.stdout
    try:
        with tarfile.open(fileobj=BytesIO(data)) as archive:
            archive.extractall(target, filter="data")
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise UserError(f"{deb} cannot be unpacked ({error}); download it again") from None


def _ar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as file:
        if file.read(8) != b"!<arch>\n":
            raise UserError(f"{path} is not a .deb file; download it again")
        while len(header := file.read(60)) == 60:
            name = header[:16].decode("ascii", "replace").strip().rstrip("/")
            size = int(header[48:58])
            data = file.read(size)
            if len(data) < size:
                raise UserError(f"{path} is truncated; download it again")
            yield name, data
            file.seek(size % 2, 1)


def _find(folder: Path, name: str) -> Path | None:
    found = sorted(folder.glob(f"{name}_*.deb"))
    return found[-1] if found else None


def _download(name: str, work: Path) -> Path:
    if shutil.which("apt-get") is None:
        raise UserError(
            "there is no apt-get here; download the packages elsewhere and give their folder with --packages"
        )
    with tempfile.TemporaryDirectory(dir=work) as place:
        result = subprocess.run(["apt-get", "download", name], cwd=place, capture_output=True, text=True, check=False)
        deb = _find(Path(place), name)
        if result.returncode != 0 or deb is None:
            lines = [line for line in result.stderr.splitlines() if line.startswith("E:")] or ["no file came"]
            raise UserError(
                f"apt-get cannot download {name} ({lines[-1]}); run `apt-get update`, or give the .deb files "
                "with --packages"
            )
        return deb.rename(work / deb.name)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]
