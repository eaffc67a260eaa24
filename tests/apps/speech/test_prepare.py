import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from ornstein.errors import UserError
from ornstein.manifest import verify
from ornstein_speech import audio
from ornstein_speech.demo_clips import demo_clips
from ornstein_speech.prepare import COMMAND, prepare
from ornstein_speech.prompts import PACKAGES, split_of
from ornstein_speech.resampling import resample

DATA = Path(__file__).parents[3] / "data/speech"
TRACKS = ("cold_day", "the_simplicity", "robot_dity")


def g722(path: Path, seconds: float, seed: int) -> None:
    from G722 import G722

    rng = np.random.default_rng(seed)
    pcm = (rng.normal(0, 3000, int(seconds * 16000) // 2 * 2)).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(G722(16000, 64000).encode(pcm)))


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpacked packages with the real names and synthetic sounds."""
    root = tmp_path_factory.mktemp("trees")
    names = [f"digits/{n}" for n in range(40)] + [f"vm-{n}" for n in range(20)]
    for number, package in enumerate(PACKAGES):
        folder = root / package.name / package.folder
        if package.name.startswith("asterisk-core"):
            for k, name in enumerate([*names, "beep", "tt-monkeys", "silence/1"]):
                g722(folder / "voice" / f"{name}.g722", 0.6 + 0.01 * (k % 7), 1000 * number + k)
            g722(folder / "voice/short.g722", 0.2, 0)
            shutil.copy(folder / "voice/vm-0.g722", folder / "voice/vm-twin.g722")
            (folder / "voice/empty.g722").touch()
        elif package.use == "noise/music":
            for track in ("manolo_camp-morning_coffee", "reno_project-system", *(f"macroform-{t}" for t in TRACKS)):
                g722(folder / f"{track}.g722", 3.0, hash(track) % 1000)
        else:
            folder.mkdir(parents=True)
            rng = np.random.default_rng(number)
            quiet = np.concatenate([rng.normal(0, 0.2, 30000), rng.normal(0, 1e-4, 20000)])
            if package.use == "noise/effects":
                for k in range(8):
                    soundfile.write(folder / f"crash{k}.flac", rng.uniform(-0.5, 0.5, (9000, 2)), 44100)
                soundfile.write(folder / "door.flac", rng.uniform(-0.5, 0.5, 9000), 16000)
            elif package.use == "unseen/cs":
                (folder / "cave/cs").mkdir(parents=True)
                soundfile.write(folder / "cave/cs/ca-m-quiet.ogg", quiet, 22050)
                soundfile.write(folder / "cave/cs/ca-v-noisy.ogg", rng.normal(0, 0.2, 50000), 22050)
            else:
                soundfile.write(folder / "Front_Left.wav", quiet, 48000)
    return root


def test_set_is_made_described_and_verified(trees: Path, tmp_path: Path) -> None:
    target = tmp_path / "set"
    manifest = prepare(target, source=trees, quiet=True)
    files = manifest["files"]
    assert verify(target, COMMAND) == len(files)
    on_disk = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
    assert on_disk == {*files, "manifest.json"}
    assert all(package["licence"] for package in manifest["packages"])
    stems = {Path(name).stem for name in files}
    assert not stems & {"beep", "tt-monkeys", "short", "empty", "vm-twin", "ca-v-noisy"}
    assert not any("silence" in name for name in files)
    original = next((trees / "asterisk-core-sounds-fr-g722").rglob("digits/7.g722"))
    copy = next((target / "speech").rglob("fr/digits/7.g722"))
    assert copy.read_bytes() == original.read_bytes()
    assert Counter(name.split("/")[1] for name in files if "/music/" in name) == {"train": 3, "valid": 1, "test": 1}
    assert (target / "speech/unseen/cs-m/ca-m-quiet.flac").is_file()
    assert audio.info(target / "speech/unseen/alsa/Front_Left.flac").rate == 16000
    for name, entry in files.items():
        assert audio.info(target / name).seconds == pytest.approx(entry["seconds"], abs=1e-3)


def test_no_prompt_and_no_recording_is_in_two_splits(trees: Path, tmp_path: Path) -> None:
    manifest = prepare(tmp_path / "set", source=trees, quiet=True)
    where: dict[str, set[str]] = {}
    sums: dict[str, set[str]] = {}
    for name, entry in manifest["files"].items():
        _kind, split, group, *rest = name.split("/")
        prompt = "/".join(rest)
        if group in ("en", "fr", "it", "ru", "babble"):
            where.setdefault(prompt, set()).add(split)
        if group == "effects":
            where.setdefault("effects/" + re.sub(r"\d*\.\w+$", "", prompt), set()).add(split)
        sums.setdefault(entry["sha256"], set()).add(split)
    assert all(len(splits) == 1 for splits in where.values())
    assert all(len(splits) == 1 for splits in sums.values())
    assert {split for splits in where.values() for split in splits} == {"train", "valid", "test"}


@given(st.text(min_size=1))
def test_split_is_a_function_of_the_name(name: str) -> None:
    assert split_of(name) == split_of(name)
    assert split_of(name) in ("train", "valid", "test")


def test_split_shares_and_known_values() -> None:
    count = Counter(split_of(f"prompt-{n}") for n in range(20000))
    assert count["train"] / 20000 == pytest.approx(0.8, abs=0.01)
    assert count["valid"] / 20000 == pytest.approx(0.1, abs=0.01)
    # A changed rule would move clips of published test results into training.
    assert [split_of(f"digits/{n}") for n in range(10)] == KNOWN


KNOWN = ["train", "train", "train", "train", "test", "test", "train", "train", "train", "test"]


def test_limits_and_flac(trees: Path, tmp_path: Path) -> None:
    manifest = prepare(tmp_path / "set", source=trees, form="flac", minutes=0.2, noise_minutes=0.1, quiet=True)
    made = manifest["minutes_made"]
    for voice in ("en", "fr", "it", "ru"):
        assert 0.1 < made[f"speech/train/{voice}"] <= 0.16
    assert made["noise/train/babble"] <= 0.08
    assert all(name.endswith(".flac") for name in manifest["files"])
    prompt = next(name for name in manifest["files"] if name.startswith("speech/train/it/"))
    relative = Path(prompt).relative_to("speech/train/it").with_suffix(".g722")
    source = trees / "asterisk-core-sounds-it-g722/usr/share/asterisk/sounds/voice" / relative
    assert np.array_equal(audio.read(tmp_path / "set" / prompt)[0], audio.read(source)[0])


def test_an_interrupted_run_goes_on(trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    module = sys.modules["ornstein_speech.prepare"]
    target, count = tmp_path / "set", 0
    whole = prepare(tmp_path / "whole", source=trees, quiet=True)
    make = module._make  # type: ignore[attr-defined]

    def stops(*args: object) -> object:
        nonlocal count
        count += 1
        if count > 100:
            raise KeyboardInterrupt
        return make(*args)

    monkeypatch.setattr(module, "_make", stops)
    with pytest.raises(KeyboardInterrupt):
        prepare(target, source=trees, quiet=True)
    monkeypatch.setattr(module, "_make", make)
    assert not (target / "manifest.json").exists()
    first = next(iter(target.rglob("*.g722")))
    stamp = first.stat().st_mtime_ns
    with pytest.raises(UserError, match="other options"):
        prepare(target, source=trees, minutes=1, quiet=True)
    assert prepare(target, source=trees, quiet=True) == whole
    assert first.stat().st_mtime_ns == stamp
    assert prepare(target, source=trees, quiet=True) == whole  # complete: checked only
    first.write_bytes(b"changed")
    with pytest.raises(UserError, match="has changed"):
        prepare(target, source=trees, quiet=True)
    assert prepare(target, source=trees, overwrite=True, quiet=True) == whole


def test_a_stopped_run_is_made_anew(trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    module = sys.modules["ornstein_speech.prepare"]
    target, make = tmp_path / "set", module._make  # type: ignore[attr-defined]

    def stops(clip: object, folder: Path, form: str) -> None:
        make(clip, folder, form)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_make", stops)
    with pytest.raises(KeyboardInterrupt):
        prepare(target, source=trees, quiet=True)
    monkeypatch.setattr(module, "_make", make)
    first = next(target.rglob("*.g722"))
    thesis = first.parent / "thesis.txt"
    thesis.write_text("precious")
    options = {"source": trees, "form": "flac", "minutes": 0.1, "noise_minutes": 0.1, "quiet": True}
    with pytest.raises(UserError, match="not a file of the set"):
        prepare(target, overwrite=True, **options)
    assert thesis.exists()
    assert first.exists()
    thesis.unlink()
    manifest = prepare(target, overwrite=True, **options)
    on_disk = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert on_disk == {*manifest["files"], "manifest.json"}
    assert not first.exists()


def test_missing_packages_and_targets(trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="holds no asterisk-core-sounds-en-g722"):
        prepare(tmp_path / "a", packages=tmp_path, quiet=True)
    with pytest.raises(UserError, match="holds no unpacked"):
        prepare(tmp_path / "b", source=tmp_path, quiet=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="other files"):
        prepare(tmp_path / "full", source=trees, overwrite=True, quiet=True)
    assert (tmp_path / "full/thesis.txt").read_text() == "precious"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no apt-get"):
        prepare(tmp_path / "c", quiet=True)


def test_a_failing_download_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bin/apt-get"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'E: Unable to locate package '$2 >&2\nexit 100\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    with pytest.raises(UserError, match=r"Unable to locate.*apt-get update"):
        prepare(tmp_path / "set", quiet=True)


def test_resample_folder(tmp_path: Path) -> None:
    (tmp_path / "in/x").mkdir(parents=True)
    soundfile.write(tmp_path / "in/x/a.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 48000), 48000)
    assert resample(tmp_path / "in", tmp_path / "out", quiet=True) == 1
    header = audio.info(tmp_path / "out/x/a.wav")
    assert (header.rate, header.frames) == (16000, 16000)
    with pytest.raises(UserError, match=r"^\S+a\.flac is a file, so nothing can be written into it"):
        resample(tmp_path / "out", tmp_path / "in/x/a.flac")
    with pytest.raises(UserError, match="no sound files"):
        resample(tmp_path / "bin", tmp_path / "out") if (tmp_path / "bin").mkdir() is None else None


def test_copies_at_another_rate_are_not_taken_for_done(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"in/{name}.wav", np.zeros(48000), 48000)
    folders = tmp_path / "in", tmp_path / "out"
    assert resample(*folders, 8000, quiet=True) == 2
    (tmp_path / "out/a.wav").unlink()
    assert resample(*folders, 8000, quiet=True) == 2  # goes on
    for wrong in ("out/a.wav", "out/b.wav"):
        with pytest.raises(UserError, match=r"a\.wav has 8000 Hz, not 16000; .*--overwrite"):
            resample(*folders, 16000, quiet=True)
        assert audio.info(tmp_path / wrong).rate == 8000
    assert resample(*folders, 16000, overwrite=True, quiet=True) == 2
    assert {audio.info(path).rate for path in (tmp_path / "out").iterdir()} == {16000}
    soundfile.write(tmp_path / "in/a.wav", np.zeros(96000), 48000)
    with pytest.raises(UserError, match=r"a\.wav is no copy of"):
        resample(*folders, 16000, quiet=True)


@pytest.mark.parametrize("inner", ["in", "in/deeper", "in/../in"])
def test_resampling_keeps_out_of_its_source(inner: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/a.wav", np.zeros(48000), 48000)
    with pytest.raises(UserError, match="choose a target outside"):
        resample(tmp_path / "in", tmp_path / inner, quiet=True)
    assert [path.name for path in (tmp_path / "in").rglob("*")] == ["a.wav"]


def test_a_bad_file_does_not_stop_resampling(tmp_path: Path) -> None:
    for name in ("a", "c"):
        (tmp_path / "in").mkdir(exist_ok=True)
        soundfile.write(tmp_path / f"in/{name}.wav", np.zeros(480), 48000)
    (tmp_path / "in/b.wav").write_bytes(b"no sound")
    with pytest.raises(UserError, match=r"1 of 3 files could not be copied.*b\.wav"):
        resample(tmp_path / "in", tmp_path / "out", quiet=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.wav", "c.wav"]
    soundfile.write(tmp_path / "in/b.wav", np.zeros(480), 48000)
    assert resample(tmp_path / "in", tmp_path / "out", quiet=True) == 3  # goes on: the others are kept
    soundfile.write(tmp_path / "in/a.flac", np.zeros(480), 48000)
    with pytest.raises(UserError, match="same file"):
        resample(tmp_path / "in", tmp_path / "out", quiet=True)
    with pytest.raises(UserError, match="is no usable rate"):
        resample(tmp_path / "in", tmp_path / "out", rate=0, quiet=True)


def test_a_failed_try_does_not_block_the_next(trees: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no unpacked"):
        prepare(tmp_path / "set", source=tmp_path, quiet=True)
    manifest = prepare(tmp_path / "set", source=trees, minutes=0.1, noise_minutes=0.1, quiet=True)
    assert verify(tmp_path / "set", COMMAND) == len(manifest["files"])
    with pytest.raises(UserError, match="other options"):
        prepare(tmp_path / "set", source=trees, quiet=True)


def test_shipped_clips_match_their_manifest_and_note() -> None:
    manifest = json.loads((DATA / "manifest.json").read_text(encoding="utf-8"))
    verify(DATA, COMMAND)
    sounds = {path.relative_to(DATA).as_posix() for path in audio.find(DATA)}
    assert sounds == set(manifest["files"])
    note = (DATA / "README.md").read_text(encoding="utf-8")
    for name, entry in manifest["files"].items():
        assert name in note
        assert entry["sha256"][:16] in note
        assert entry["licences"]
    assert sum((DATA / name).stat().st_size for name in sounds) < 3_000_000


def test_demo_clips_need_a_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ornstein speech prepare"):
        demo_clips(tmp_path, tmp_path / "out")
