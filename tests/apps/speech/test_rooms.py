import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ornstein.errors import UserError
from ornstein.manifest import read_json
from ornstein_speech import audio, mixing, rooms
from ornstein_speech.banks import RoomBank, heard_in
from ornstein_speech.data import SpeechData
from ornstein_speech.datasets import FixedMixes, MixedOnTheFly, PairedFolder
from ornstein_speech.reverb import direct_to_reverberant, prepare_reverb, prepare_rooms, split_files

DATA = Path(__file__).parents[3] / "data/speech"
TINY = DATA / "tiny"
SPEED_OF_SOUND = 343.0
SHORT = (0.4, 0.45)  # quick to compute
FILTER_DELAY = 40  # samples: half of the interpolation filter of pyroomacoustics


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_rooms_are_those_of_the_recipe(seed: int) -> None:
    room = rooms.draw_room(generator(seed))
    assert room == rooms.draw_room(generator(seed))
    assert 0.4 <= room.t60 <= 1.0
    for side, (low, high), mic, source in zip(room.size, rooms.SIZES, room.microphone, room.source, strict=True):
        assert low <= side <= high
        assert 1 <= mic <= side - 1
        assert 1 <= source <= side - 1


@pytest.mark.parametrize("seed", range(8))
def test_decay_of_the_room_and_delay_of_the_target(seed: int) -> None:
    drawn = rooms.draw_room(generator(seed))
    # Sabine's equation holds for rooms that are not flat; in flat ones sound goes to and fro between far walls.
    x, y, _ = drawn.size
    room = rooms.Room((x * 0.7 + 1, y * 0.7 + 1, 6.0), drawn.t60, (2.0, 2.5, 1.5), (2.0 + seed / 4, 3.5, 2.0), seed)
    direct, response = rooms.responses(room, 16000)
    assert rooms.decay_time(response, 16000) == pytest.approx(room.t60, rel=0.3)
    distance = np.linalg.norm(np.subtract(room.microphone, room.source))
    arrival = distance / SPEED_OF_SOUND * 16000 + FILTER_DELAY
    assert int(np.abs(direct).argmax()) == pytest.approx(arrival, abs=1)
    first = int(np.argmax(np.abs(response) > 0.5 * np.abs(direct).max()))
    assert first == pytest.approx(arrival, abs=1.5)
    assert response[first] == pytest.approx(direct[first], rel=0.05)
    assert np.square(direct).sum() == pytest.approx((1 / distance) ** 2, rel=0.3)  # nothing but one arrival
    assert rooms.decay_time(direct, 16000) < 0.02 or np.isnan(rooms.decay_time(direct, 16000))


def test_more_reverberation_time_is_heard() -> None:
    measured, ratio = [], []
    for t60 in (0.4, 0.7, 1.0):
        direct, response = rooms.responses(rooms.Room((7, 6, 5), t60, (2, 2, 2), (5, 4, 3)), 16000)
        measured.append(rooms.decay_time(response, 16000))
        ratio.append(direct_to_reverberant(direct, response))
    assert measured == sorted(measured)
    assert ratio == sorted(ratio, reverse=True)


def test_responses_are_a_function_of_the_room() -> None:
    room = rooms.draw_room(generator(5))
    first, again = rooms.responses(room, 16000), rooms.responses(room, 16000)
    assert np.array_equal(first[1], again[1])
    other = rooms.responses(rooms.Room(room.size, room.t60, room.microphone, room.source, room.seed + 1), 16000)
    assert not np.array_equal(first[1], other[1][: len(first[1])])
    assert np.array_equal(first[0], other[0])


def test_a_room_that_cannot_be() -> None:
    with pytest.raises(UserError, match="as dry as"):
        rooms.responses(rooms.Room((15, 15, 6), 0.05, (2, 2, 2), (3, 3, 3)), 16000)


@pytest.mark.parametrize("t60", [0.2, 0.5, 1.5])
def test_decay_time_of_an_exponential(t60: float) -> None:
    time = np.arange(48000) / 16000
    noise = np.random.default_rng(0).normal(size=48000)
    assert rooms.decay_time(noise * 10 ** (-3 * time / t60), 16000) == pytest.approx(t60, rel=0.06)


def test_peak_padding_and_alignment() -> None:
    dry = np.random.default_rng(0).normal(size=16000)
    direct, response = rooms.responses(rooms.Room((6, 5, 3), 0.6, (2, 2, 1.5), (4, 3, 1.5)), 16000)
    anechoic, reverb = rooms.reverberant(dry, direct, response, 16000)
    assert anechoic.shape == reverb.shape
    assert len(reverb) <= 16000 + len(direct) - 1 + 8000
    assert np.abs(reverb).max() == pytest.approx(0.9, abs=1e-9)
    delay = int(np.abs(direct).argmax())
    heard = np.correlate(anechoic, dry, "valid")
    assert int(heard.argmax()) == pytest.approx(delay, abs=1)
    assert np.abs(anechoic[16000 + len(direct) :]).max() < 1e-9
    with pytest.raises(UserError, match="silent"):
        rooms.reverberant(np.zeros(100), direct, response, 16000)


def test_prepare_reverb_of_real_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = prepare_reverb(DATA / "tiny", tmp_path / "set", t60=SHORT, workers=0, quiet=True)
    used: list[str] = []
    for split in ("train", "valid", "test"):
        data = PairedFolder(tmp_path / "set", split, samples=None)
        assert data.clean.name == "anechoic"
        for item in data:  # type: ignore[attr-defined]
            assert float(item["noisy"].abs().max()) == pytest.approx(0.9, abs=1e-5)
            assert item["clean"].abs().max() <= 1
            entry = manifest["files"][f"{split}/{item['name']}"]
            assert entry["seconds"] == pytest.approx(item["clean"].shape[1] / 16000, abs=1e-3)
            used += entry["speech"]
    found = [p.relative_to(DATA / "tiny").as_posix() for p in audio.find(DATA / "tiny/speech")]
    assert sorted(used) == found  # every prompt once, in its own split
    assert all(name.split("/")[1] == key.split("/")[0] for key, e in manifest["files"].items() for name in e["speech"])
    assert read_json(tmp_path / "set/manifest.json", "ornstein speech prepare-rooms") == manifest

    # The same again is not made again; another option is refused; a stopped run goes on and gives the same.
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*.wav")}
    assert prepare_reverb(DATA / "tiny", tmp_path / "set", t60=SHORT, workers=0, quiet=True) == manifest
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*.wav")} == stamps
    with pytest.raises(UserError, match="other options"):
        prepare_reverb(DATA / "tiny", tmp_path / "set", t60=SHORT, seed=1, workers=0, quiet=True)
    calls = 0
    responses = rooms.responses

    def stops(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return responses(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(rooms, "responses", stops)
    with pytest.raises(KeyboardInterrupt):
        prepare_reverb(DATA / "tiny", tmp_path / "again", t60=SHORT, workers=0, quiet=True)
    assert not (tmp_path / "again/manifest.json").exists()
    assert prepare_reverb(DATA / "tiny", tmp_path / "again", t60=SHORT, workers=0, quiet=True) == manifest
    assert calls == 4 + len(manifest["files"]) - 3
    for path in (tmp_path / "set").rglob("*.wav"):
        again = audio.read(tmp_path / "again" / path.relative_to(tmp_path / "set"))[0]
        assert np.array_equal(again, audio.read(path)[0])  # the headers hold the time


def test_any_folder_of_speech(tmp_path: Path) -> None:
    def run(overwrite: bool = False) -> dict[str, Any]:
        return prepare_reverb(
            tmp_path / "in", tmp_path / "out", 8000, 0, SHORT, workers=0, quiet=True, overwrite=overwrite
        )

    for number in range(5):
        path = tmp_path / f"in/a{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.random.default_rng(number).normal(0, 0.1, 2000), 8000)
    manifest = run()
    assert [Path(name).name for name in sorted(manifest["files"], key=lambda name: Path(name).name)] == [
        f"a{number}.wav" for number in range(5)
    ]
    soundfile.write(tmp_path / "in/b.wav", np.zeros(100), 8000)
    with pytest.raises(UserError, match="of 5 recordings, now there are 6"):
        run()
    with pytest.raises(UserError, match=r"1 of 6 recordings.*b\.wav is silent"):
        run(overwrite=True)
    (tmp_path / "in/b.wav").unlink()
    assert run() == manifest


def test_an_unreadable_recording_is_named_and_the_others_are_made(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        soundfile.write(tmp_path / f"in/a{number}.wav", np.random.default_rng(number).normal(0, 0.1, 4000), 8000)
    (tmp_path / "in/b.wav").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 of 4 recordings.*b\.wav"):
        prepare_reverb(tmp_path / "in", tmp_path / "out", 8000, 0.3, SHORT, workers=0, quiet=True)
    assert len(list((tmp_path / "out").rglob("reverb/*.wav"))) == 3


def test_a_split_without_recordings_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        soundfile.write(tmp_path / f"in/a{number}.wav", np.random.default_rng(number).normal(0, 0.1, 2000), 8000)
    manifest = prepare_reverb(tmp_path / "in", tmp_path / "out", 8000, 0, SHORT, workers=0, quiet=True)
    missing = [s for s in ("train", "valid", "test") if not any(n.startswith(s) for n in manifest["files"])]
    assert missing
    error = capsys.readouterr().err
    assert f"gets no recordings for {' and '.join(missing)}," in error
    assert "in/valid" in error
    prepare_reverb(TINY, tmp_path / "whole", t60=SHORT, workers=0, quiet=True)
    assert capsys.readouterr().err == ""


def test_files_are_split_by_their_names(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number}.wav").write_bytes(b"RIFF")
    shares = {split: len(files) for split, _, files in split_files(tmp_path)}
    assert sum(shares.values()) == 300
    assert shares["train"] == pytest.approx(240, abs=20)
    assert shares["valid"] == pytest.approx(30, abs=12)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("rooms") / "set"
    prepare_rooms(target, count=4, t60=SHORT, workers=0, quiet=True)
    return target


def test_rooms_for_training(simulated: Path) -> None:
    manifest = read_json(simulated / "manifest.json", "ornstein speech prepare-rooms")
    assert [name.split("/")[0] for name in manifest["files"]] == ["test", "train", "train", "valid"]
    for split, count in (("train", 2), ("valid", 1), ("test", 1)):
        bank = RoomBank(simulated / split)
        assert len(bank) == count
        for (direct, response), entry in zip(
            bank, [e for n, e in manifest["files"].items() if n.startswith(split)], strict=True
        ):
            assert float(direct.square().sum()) == pytest.approx(1, abs=1e-5)
            assert rooms.decay_time(response.numpy(), 16000) == pytest.approx(entry["t60_measured"], rel=0.02)
            left = float(response[-160:].square().sum() / response.square().sum())
            assert left < 1e-4
    with pytest.raises(UserError, match=r"no folder|no rooms"):
        RoomBank(simulated)
    with pytest.raises(UserError, match="of 4 rooms, now there are 5"):
        prepare_rooms(simulated, count=5, t60=SHORT, workers=0, quiet=True)
    with pytest.raises(UserError, match="16000 Hz, not 48000; make the rooms with --rate 48000"):
        RoomBank(simulated / "train", 48000)


def test_speech_in_a_room_is_a_convolution_from_the_direct_sound_on() -> None:
    dry = torch.randn(3000, generator=generator(0))
    direct, response = torch.zeros(100), torch.zeros(400)
    direct[40], response[40], response[300] = 1.0, 1.0, 0.5
    clean, heard = heard_in(dry, (direct, response))
    assert torch.allclose(clean, dry, atol=1e-5)
    echo = torch.cat([torch.zeros(260), dry[:-260]]) * 0.5
    assert torch.allclose(heard, dry + echo, atol=1e-5)


def test_mixes_with_reverberation(simulated: Path) -> None:
    options = {"length": 6, "samples": 64000, "normalize": "not"}
    plain = MixedOnTheFly(TINY / "speech/train", TINY / "noise/train", **options)  # type: ignore[arg-type]
    data = MixedOnTheFly(TINY / "speech/train", TINY / "noise/train", rooms=simulated / "train", **options)  # type: ignore[arg-type]
    for i in range(6):
        item = data[i]
        assert torch.equal(item["noisy"], data[i]["noisy"])
        # The target is the dry speech of the mix without rooms; the rest holds reverberation besides noise.
        dry, clean = plain[i]["clean"][0], item["clean"][0]
        assert float(torch.dot(dry, clean) / (dry.norm() * clean.norm())) > 0.98
        assert item["name"] == plain[i]["name"]
        assert float(mixing.snr(item["clean"], item["noisy"])) < float(item["name"].split("-")[-1][:-2]) + 0.1
    fixed = FixedMixes(TINY / "speech/valid", TINY / "noise/valid", length=2, rooms=simulated / "valid")
    assert torch.equal(fixed[1]["noisy"], fixed[1]["noisy"])
    assert float(mixing.snr(fixed[1]["clean"], fixed[1]["noisy"])) < 5
    with pytest.raises(UserError, match="layout mixes"):
        SpeechData(TINY, "pairs", rooms=simulated)
    with pytest.raises(UserError, match=r"no folder .*train/anechoic.*prepare-rooms"):
        SpeechData(TINY, rooms=TINY / "noise").train_dataloader()
    batch = next(iter(SpeechData(TINY, batch_size=2, rooms=simulated, num_workers=0).train_dataloader()))
    assert batch["noisy"].shape == (2, 1, 32640)
    assert len(list(SpeechData(TINY, rooms=simulated, test_files=2).test_dataloader())) == 1


def test_without_the_simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "pyroomacoustics" else find(name, *rest)
    )
    for run in (lambda: prepare_rooms(tmp_path / "out"), lambda: prepare_reverb(TINY, tmp_path / "out")):
        with pytest.raises(UserError, match=r"apps/speech\[rooms\]"):
            run()
    assert not (tmp_path / "out").exists()


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="count at least 3"):
        prepare_rooms(tmp_path / "out", count=2)
    with pytest.raises(UserError, match="no folder"):
        prepare_reverb(tmp_path / "none", tmp_path / "out")
    for t60 in ((1.0, 0.5), (0.0, 1.0), (0.4, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(UserError, match=r"t60 is .* two ascending times"):
            prepare_reverb(DATA / "clean", tmp_path / "out", t60=t60)
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="seconds is"):
            prepare_reverb(DATA / "clean", tmp_path / "out", seconds=seconds)
    for rate in (0, 400, 7999):
        with pytest.raises(UserError, match=f"--rate {rate} is no usable rate"):
            prepare_rooms(tmp_path / "out", rate=rate)
    with pytest.raises(UserError, match="lies inside"):
        prepare_reverb(DATA / "clean", DATA / "clean/reverb")
    (tmp_path / "in/train").mkdir(parents=True)
    with pytest.raises(UserError, match="needs folders train, valid and test"):
        prepare_reverb(tmp_path / "in", tmp_path / "out")
