"""Nothing is lost while files are written."""

import errno
import tempfile
from pathlib import Path

import pytest

from ornstein.errors import UserError
from ornstein.files import atomic_path, check_target


def test_writes_and_creates_the_folder(tmp_path: Path) -> None:
    target = tmp_path / "new" / "deep" / "a.wav"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".wav"
        temporary.write_text("x")
        assert not target.exists()
    assert target.read_text() == "x"
    assert list(target.parent.iterdir()) == [target]


def test_gives_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with atomic_path(tmp_path / "ours") as temporary:
        temporary.touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic_path(target, overwrite=True) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_existing_target_needs_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(UserError, match="--overwrite"):
        check_target(target)
    with atomic_path(target, overwrite=True) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


def test_target_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"

    def race() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("ours")
            target.write_text("theirs")

    with pytest.raises(UserError, match="appeared"):
        race()
    assert target.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [target]


def test_folder_as_target(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        check_target(tmp_path)


def test_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "a.txt", tmp_path / "file" / "deep" / "a.txt"):
        with pytest.raises(UserError, match=f"^{tmp_path}/file is a file"):
            check_target(target)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/proc/x/a.txt", "^cannot create the folder /proc/x: /proc takes no new files; choose another folder$"),
        ("/proc/x/y/a.txt", "^cannot create the folder /proc/x/y: /proc takes no new files"),
        ("/proc/a.txt", "^cannot write to /proc: /proc takes no new files; choose another folder$"),
    ],
)
def test_unwritable_folder(target: str, message: str) -> None:
    """/proc refuses the superuser too, though its permissions do not say so."""
    with pytest.raises(UserError, match=message):
        check_target(target)
    with pytest.raises(UserError, match=message), atomic_path(target):
        raise AssertionError("the work was begun")


def test_a_refusal_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # permissions do not bind the superuser
    with pytest.raises(UserError, match=f"^cannot write to {tmp_path}: Permission denied; choose another folder$"):
        check_target(tmp_path / "a.txt")


def test_full_disk_is_the_users_matter(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_path(tmp_path / "a.txt"):
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left on device"):
        write()
    assert list(tmp_path.iterdir()) == []
