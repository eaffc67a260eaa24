import json
import math
from pathlib import Path

import numpy as np
import pytest

from ornstein.errors import UserError
from ornstein_speech import journal as module
from ornstein_speech.journal import FOLDER, Journal, read_sound, write_sound
from ornstein_speech.results import Result
from ornstein_speech.shards import Shard, shard


def result(index: int, system: str = "noisy", pesq: float = 2.0) -> Result:
    return Result(index, f"{index}.wav", system, {"pesq": pesq, "si_sdr": math.inf}, 0.5, machine="ä")


def test_results_come_back(tmp_path: Path) -> None:
    first = Journal(tmp_path, {"seed": 0, "list": (1, 2)})
    first.add(result(0))
    first.add(result(1, pesq=math.nan))
    again = Journal(tmp_path, {"seed": 0, "list": (1, 2)})
    assert again.results[0, "noisy"] == result(0)
    assert math.isnan(again.results[1, "noisy"].scores["pesq"])
    for line in (tmp_path / FOLDER / "scores-0.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # strict JSON
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_every_process_has_its_file_and_reads_all(tmp_path: Path) -> None:
    own, other = (Journal(tmp_path, {}, Shard(rank, 2)) for rank in (0, 1))
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
        Journal(tmp_path, {}, Shard(0, 2)).wait([(0, "a"), (1, "a")], lambda text: None)


@pytest.mark.parametrize("cut", [1, 5, 30, 100])
def test_a_cut_line_is_dropped(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path, {"seed": 0})
    journal.add(result(0))
    path = tmp_path / FOLDER / "scores-0.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    again = Journal(tmp_path, {"seed": 0})
    assert again.results == {}
    again.add(result(0))
    assert path.read_bytes() == whole


def test_damage_and_other_settings_are_refused(tmp_path: Path) -> None:
    Journal(tmp_path, {"seed": 0, "data": "a"})
    with pytest.raises(UserError, match="another data, seed"):
        Journal(tmp_path, {"seed": 1, "data": "b"})
    for line in ("[1", "[1]", '{"index": 0}', '{"scores": {"pesq": "x"}}'):
        path = tmp_path / FOLDER / "scores-0.jsonl"
        path.write_text(line + "\n")
        with pytest.raises(UserError, match="damaged"):
            Journal(tmp_path, {"seed": 0})


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {})
    journal.check()
    journal.path = Path("/dev/full")
    journal.add(result(0))
    with pytest.raises(UserError, match="cannot write"):
        journal.check()


def test_without_a_folder() -> None:
    journal = Journal(None, {})
    journal.add(result(0))
    journal.read()
    assert journal.sound(0, 0) is None
    assert list(journal.results) == [(0, "noisy")]


def test_sounds_keep_their_level(tmp_path: Path) -> None:
    for peak in (0.5, 3.0):
        samples = peak * np.sin(np.arange(1000) / 10).astype(np.float32)
        write_sound(tmp_path / "a.flac", samples, 16000)
        found = read_sound(tmp_path / "a.flac", float(np.abs(samples).max()))
        assert found is not None
        assert np.abs(found - samples).max() < peak * 1e-4
    assert read_sound(tmp_path / "b.flac", 1.0) is None


def test_launchers() -> None:
    assert shard({}) == Shard(0, 1, 0)
    assert shard({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}) == Shard(1, 4, 1)
    srun = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}
    assert shard(srun) == Shard(5, 8, 1)
    assert shard({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) == Shard()  # a batch script, not srun
    for wrong in ({"RANK": "4", "WORLD_SIZE": "4"}, {"RANK": "x", "WORLD_SIZE": "4"}):
        with pytest.raises(UserError, match="RANK"):
            shard(wrong)
    assert Shard().device("auto") == "auto"
    assert Shard(1, 2, 1).device("cpu") == "cpu"
    assert Shard(1, 2, 1).device("auto") in ("auto", "cuda:0", "cuda:1")
