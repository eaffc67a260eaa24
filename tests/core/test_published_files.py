"""Files of torch.save as plain data."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ornstein.errors import UserError
from ornstein.published_files import plain_copy, read, without_prefixes, write


def test_round_trip(tmp_path: Path) -> None:
    content = {"step": 3, "model": {"a": torch.arange(3.0), "b": torch.arange(2)}}
    write(tmp_path / "a.pt", content)
    found = read(tmp_path / "a.pt")
    assert found["step"] == 3
    assert all(torch.equal(found["model"][name], content["model"][name]) for name in "ab")  # type: ignore[index]
    with pytest.raises(UserError, match="exists"):
        write(tmp_path / "a.pt", content)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(zipped: bool, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"state_dict": Trap()}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError):
        read(tmp_path / "a.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("size", [0, 1, 10, 400, -1])
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_refused(size: int, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.arange(100.0)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_absent_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        read(tmp_path / "a.pt")


def test_prefixes_go_when_all_names_have_them() -> None:
    weight = torch.ones(1)
    assert without_prefixes({"module.model.a": weight, "module.model.b": weight}, ("model.", "module.")).keys() == {
        "a",
        "b",
    }
    assert without_prefixes({"module.a": weight, "b": weight}, ("module.",)).keys() == {"module.a", "b"}
    assert without_prefixes({}, ("module.",)) == {}


def test_copies_share_nothing() -> None:
    whole = torch.arange(4.0, dtype=torch.float64)
    copied = plain_copy(whole[::2])
    assert copied.dtype == torch.float32
    assert copied.tolist() == [0.0, 2.0]
    assert plain_copy(torch.arange(2)).dtype == torch.int64
    whole.zero_()
    assert copied.tolist() == [0.0, 2.0]
