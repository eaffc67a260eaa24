import io
import lzma
import tarfile
from pathlib import Path

import pytest

from ornstein.debian import unpack, unpack_with_python
from ornstein.errors import UserError


def make_deb(path: Path, name: str, content: bytes) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        entry = tarfile.TarInfo(f"./{name}")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for member, data in (("debian-binary", b"2.0\n"), ("data.tar.xz", lzma.compress(tar.getvalue()))):
            file.write(
                f"{member:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
                + data
                + b"\n" * (len(data) % 2)
            )


def test_unpacking_without_dpkg(tmp_path: Path) -> None:
    deb = tmp_path / "a_1_all.deb"
    make_deb(deb, "usr/share/a.txt", b"hello")
    unpack_with_python(deb, tmp_path / "out")
    assert (tmp_path / "out/usr/share/a.txt").read_bytes() == b"hello"
    data = deb.read_bytes()
    for bad, message in ((data[:-30], "truncated"), (b"no archive", "not a .deb"), (data[:72], "no data.tar")):
        deb.write_bytes(bad)
        with pytest.raises(UserError, match=message):
            unpack_with_python(deb, tmp_path / "out")
        with pytest.raises(UserError, match=r"cannot be unpacked|not a \.deb|truncated|no data"):
            unpack(deb, tmp_path / "out")


def test_an_archive_cannot_write_outside(tmp_path: Path) -> None:
    deb = tmp_path / "a_1_all.deb"
    make_deb(deb, "../../escaped.txt", b"x")
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack_with_python(deb, tmp_path / "deep/out")
    assert not (tmp_path / "escaped.txt").exists()
