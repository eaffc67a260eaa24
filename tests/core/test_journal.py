import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ornstein import journal as module
from ornstein.errors import UserError
from ornstein.journal import FOLDER, Journal
from ornstein.shards import Shard


@dataclass(frozen=True)
class Result:
    index: int
    system: str
    scores: dict[str, float]
    machine: str = "ä"
    counts: dict[str, int] = field(default_factory=dict)


def result(index: int, system: str = "noisy", pesq: float = 2.0) -> Result:
    return Result(index, system, {"pesq": pesq, "si_sdr": math.inf}, counts={"parts": 3})


def test_results_come_back(tmp_path: Path) -> None:
    first = Journal(Result, tmp_path, {"seed": 0, "list": (1, 2)})
    first.add(result(0))
    first.add(result(1, pesq=math.nan))
    again = Journal(Result, tmp_path, {"seed": 0, "list": (1, 2)})
    assert again.results[0, "noisy"] == result(0)
    assert math.isnan(again.results[1, "noisy"].scores["pesq"])
    for line in (tmp_path / FOLDER / "scores-0.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # strict JSON
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_every_process_has_its_file_and_reads_all(tmp_path: Path) -> None:
    own, other = (Journal(Result, tmp_path, {}, Shard(rank, 2)) for rank in (0, 1))
    own.add(result(0))
    other.add(result(1))
    told: list[str] = []
    own.wait([(0, "noisy"), (1, "noisy")], told.append)
    assert told == ["waiting for 1 results of the other processes"]
    assert set(own.results) == {(0, "noisy"), (1, "noisy")}
    assert len((tmp_path / FOLDER / "scores-1.jsonl").read_text().splitlines()) == 2


def test_silent_processes_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    with pytest.raises(UserError, match="2 results undone"):
        Journal(Result, tmp_path, {}, Shard(0, 2)).wait([(0, "a"), (1, "a")], lambda text: None)


@pytest.mark.parametrize("cut", [1, 5, 30, 100])
def test_a_cut_line_is_dropped(tmp_path: Path, cut: int) -> None:
    journal = Journal(Result, tmp_path, {"seed": 0})
    journal.add(result(0))
    path = tmp_path / FOLDER / "scores-0.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    again = Journal(Result, tmp_path, {"seed": 0})
    assert again.results == {}
    again.add(result(0))
    assert path.read_bytes() == whole


def test_damage_and_other_settings_are_refused(tmp_path: Path) -> None:
    Journal(Result, tmp_path, {"seed": 0, "data": "a"})
    with pytest.raises(UserError, match="another data, seed"):
        Journal(Result, tmp_path, {"seed": 1, "data": "b"})
    for line in ("[1", "[1]", '{"index": 0}', '{"scores": {"pesq": "x"}}'):
        path = tmp_path / FOLDER / "scores-0.jsonl"
        path.write_text(line + "\n")
        with pytest.raises(UserError, match="damaged"):
            Journal(Result, tmp_path, {"seed": 0})


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    journal = Journal(Result, tmp_path, {})
    journal.check()
    journal.path = Path("/dev/full")
    journal.add(result(0))
    with pytest.raises(UserError, match="cannot write"):
        journal.check()


def test_without_a_folder() -> None:
    journal = Journal(Result, None, {})
    journal.add(result(0))
    journal.read()
    assert journal.estimate(0, 0, ".png") is None
    assert list(journal.results) == [(0, "noisy")]
