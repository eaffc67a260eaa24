"""`ornstein.finding`."""

from pathlib import Path

import pytest

from ornstein.errors import UserError
from ornstein.finding import by_name, existing, find, inside


def test_files_of_a_kind(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/z.jpg", "a/y.txt", ".hidden/x.png", "a/.c.png", "a.d/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = inside(tmp_path, (".png", ".jpg"))
    assert [file.relative_to(tmp_path).as_posix() for file in found] == ["a.d/e.png", "a/z.jpg", "b.PNG"]
    assert find(tmp_path, (".png", ".jpg"), "pictures") == found
    assert find(tmp_path / "a/y.txt", (".png",), "pictures") == [tmp_path / "a/y.txt"]
    assert list(by_name(tmp_path, found)) == ["a.d/e", "a/z", "b"]
    assert existing(str(found[0]), "picture") == found[0]


def test_mistakes(tmp_path: Path) -> None:
    assert inside(tmp_path, (".png",)) == []
    with pytest.raises(UserError, match=r"holds no pictures; give a folder with \.png, \.jpg files"):
        find(tmp_path, (".png", ".jpg"), "pictures")
    with pytest.raises(UserError, match="no file or folder"):
        find(tmp_path / "nothing", (".png",), "pictures")
    with pytest.raises(UserError, match="is a folder; give a picture"):
        existing(tmp_path, "picture")
    with pytest.raises(UserError, match="there is no file"):
        existing(tmp_path / "nothing", "picture")
    with pytest.raises(UserError, match="have one name"):
        by_name(tmp_path, [tmp_path / "a.png", tmp_path / "a.jpg"])
