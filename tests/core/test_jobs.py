"""Files to work through, and the device to work on."""

from pathlib import Path

import pytest
import torch

from ornstein.device import choose_device
from ornstein.errors import UserError
from ornstein.jobs import FileKind, find_jobs, run_jobs, unread

KIND = FileKind("text", lambda folder: sorted(folder.rglob("*.t*")), (".txt", ".tex"), (".txt",), ".txt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("in/a.txt", "in/deep/b.tex", "other.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_one_file_goes_to_a_file_or_into_a_folder(folder: Path) -> None:
    source = folder / "other.txt"
    assert find_jobs(source, folder / "x.txt", KIND) == [(source, folder / "x.txt")]
    assert find_jobs(str(source), folder / "in", KIND) == [(source, folder / "in/other.txt")]
    assert find_jobs(folder / "in/deep/b.tex", folder / "new", KIND)[0][1] == folder / "new/b.txt"


def test_folder_keeps_its_structure_and_earlier_results_are_left_out(folder: Path) -> None:
    (folder / "in/out").mkdir()
    (folder / "in/out/a.txt").touch()
    jobs = find_jobs([folder / "in", folder / "other.txt"], folder / "in/out", KIND)
    assert [target.relative_to(folder / "in/out").as_posix() for _, target in jobs] == [
        "a.txt",
        "deep/b.txt",
        "other.txt",
    ]


def test_a_file_that_is_named_twice_is_done_once(folder: Path) -> None:
    given = [folder / "in", folder / "in/a.txt", folder / "other.txt", folder / "other.txt"]
    jobs = find_jobs(given, folder / "out", KIND)
    assert [target.name for _, target in jobs] == ["a.txt", "b.txt", "other.txt"]


def test_files_of_other_kinds_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("in/c.gif", "in/deep/d.GIF", "in/deep/NOTES", "in/.hidden", "in/.git/e.gif", "in/out/f.gif"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    inputs, output = [folder / "in", folder / "other.txt"], folder / "in/out"
    found = unread(inputs, output, KIND)
    assert [path.name for path in found] == ["c.gif", "NOTES", "d.GIF"]
    work = find_jobs(inputs, output, KIND)
    for quiet in (False, True):
        assert len(run_jobs(work, lambda source, target, bar: None, "texts", quiet, found)) == 3
    assert capsys.readouterr().err == "note: 3 files of other kinds left out (.GIF, .gif, NOTES)\n"


def test_work_that_cannot_be_done(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "in/a.tex").touch()
    for inputs, output, message in [
        ([], "out", "no input; give a text or a folder"),
        (folder / "in", "x.txt", "several inputs need a folder"),
        (folder / "empty", "out", "there are no texts in"),
        (folder / "in", "out", "would both be written to"),
    ]:
        with pytest.raises(UserError, match=message):
            find_jobs(inputs, folder / output, KIND)  # type: ignore[arg-type]


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")
    for name in ("tpu", "mps", "meta"):
        with pytest.raises(UserError):
            choose_device(name)
    with pytest.raises(UserError, match="cuda"):
        choose_device(f"cuda:{torch.cuda.device_count()}")
