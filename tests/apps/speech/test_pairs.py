import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ornstein.cli.command import main
from ornstein.errors import UserError
from ornstein.manifest import announce
from ornstein_speech.pairs import Job, Pair, fingerprint, job_seed, make_pairs

DATA = Path(__file__).parents[3] / "data/speech"


@dataclass(frozen=True)
class Level:
    """Pairs of a constant level; of none where the recording is empty."""

    level: float = 0.5

    def __call__(self, job: Job) -> list[Pair]:
        if job.sources and not job.sources[0].read_bytes():
            raise UserError(f"{job.sources[0]} is empty")
        samples = np.full(100, self.level)
        return [Pair(samples, samples, 16000, {}, part) for part in job.options.get("parts", ("",))]


def jobs_of(sources: Path, **options: Any) -> list[Job]:
    paths = sorted(sources.iterdir())
    facts = [{"speech": path.name} for path in paths]
    return [
        Job("train", path.stem, job_seed(0, path.stem), (path,), fact, options)
        for path, fact in zip(paths, facts, strict=True)
    ]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.raw").write_bytes(b"12")
    return folder


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(jobs: list[Job], level: float = 0.5, **options: Any) -> dict[str, Any]:
        settings = {"set": "levels", "level": level}
        return make_pairs(tmp_path / "set", settings, jobs, Level(level), workers=0, quiet=True, **options)

    return run


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


WHOLE = ["manifest.json", *(f"train/{side}/{name}.wav" for side in ("clean", "noisy") for name in "abc")]


def test_overwrite_deletes_the_files_of_the_set_alone(
    make: Callable[..., dict[str, Any]], sources: Path, tmp_path: Path
) -> None:
    make(jobs_of(sources))
    target = tmp_path / "set"
    assert files(target) == WHOLE
    (target / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="add --overwrite"):
        make(jobs_of(sources), 0.25)
    (sources / "c.raw").unlink()
    assert len(make(jobs_of(sources), 0.25, overwrite=True)["files"]) == 2
    assert files(target) == [
        "manifest.json",
        "notes.txt",
        *(f"train/{side}/{name}.wav" for side in ("clean", "noisy") for name in "ab"),
    ]
    before = files(target)
    (target / "train/thesis.txt").write_text("precious")
    with pytest.raises(UserError, match=r"thesis\.txt is not a file of the set") as caught:
        make(jobs_of(sources), overwrite=True)
    assert "--overwrite" not in str(caught.value)
    assert files(target) == sorted([*before, "train/thesis.txt"])


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        {"format": 1, "made_by": "someone", "files": {"train/thesis.txt": {}}},
        {"set": "wsj0-chime3", "files": {"train/thesis.txt": {}}},
        {"format": 1, "set": "mine", "folders": [1], "files": {}},
        {"format": 1, "set": "mine"},
        [1],
        "{",
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_folders_of_others_are_left_alone(
    make: Callable[..., dict[str, Any]], sources: Path, tmp_path: Path, manifest: Any, overwrite: bool
) -> None:
    (tmp_path / "set/train").mkdir(parents=True)
    (tmp_path / "set/train/thesis.txt").write_text("precious")
    (tmp_path / "set/manifest.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    with pytest.raises(UserError, match="holds other files") as caught:
        make(jobs_of(sources), overwrite=overwrite)
    assert "--overwrite" not in str(caught.value)
    assert files(tmp_path / "set") == ["manifest.json", "train/thesis.txt"]


def test_the_shipped_clips_are_left_alone(make: Callable[..., dict[str, Any]], sources: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/manifest.json").write_bytes((DATA / "manifest.json").read_bytes())
    with pytest.raises(UserError, match="holds other files"):
        make(jobs_of(sources), overwrite=True)
    assert files(tmp_path / "set") == ["manifest.json"]


@pytest.mark.parametrize("name", ["train/../../thesis.txt", "../thesis.txt", "link/thesis.txt"])
def test_a_manifest_cannot_delete_outside(
    make: Callable[..., dict[str, Any]], sources: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/link").symlink_to(tmp_path)
    (tmp_path / "set/manifest.json").write_text(json.dumps({"format": 1, "set": "levels", "files": {name: {}}}))
    with pytest.raises(UserError, match="outside of it"):
        make(jobs_of(sources), overwrite=True)
    assert (tmp_path / "thesis.txt").exists()
    assert (tmp_path / "set/manifest.json").exists()


def test_a_changed_source_is_noticed(make: Callable[..., dict[str, Any]], sources: Path) -> None:
    manifest = make(jobs_of(sources))
    assert make(jobs_of(sources)) == manifest
    (sources / "a.raw").rename(sources / "d.raw")
    with pytest.raises(UserError, match="made of other recordings"):
        make(jobs_of(sources))
    (sources / "d.raw").rename(sources / "a.raw")
    (sources / "a.raw").write_bytes(b"123")
    with pytest.raises(UserError, match="made of other recordings"):
        make(jobs_of(sources))
    (sources / "a.raw").write_bytes(b"21")
    assert make(jobs_of(sources)) == manifest
    with pytest.raises(UserError, match="made of other recordings"):
        make(jobs_of(sources, parts=("_0",)))
    (sources / "b.raw").unlink()
    with pytest.raises(UserError, match="of 3 recordings, now there are 2"):
        make(jobs_of(sources))


def test_a_stopped_run_follows_its_sources(make: Callable[..., dict[str, Any]], sources: Path, tmp_path: Path) -> None:
    (sources / "c.raw").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 of 3 recordings gave no pair.*c\.raw is empty"):
        make(jobs_of(sources, parts=("_0", "_1")))
    kept, changed = (tmp_path / f"set/train/clean/{name}_0.wav" for name in "ab")
    stamps = kept.stat().st_mtime_ns, changed.stat().st_mtime_ns
    (sources / "b.raw").write_bytes(b"1234")
    with pytest.raises(UserError, match="gave no pair"):
        make(jobs_of(sources, parts=("_0", "_1")))
    assert kept.stat().st_mtime_ns == stamps[0]
    assert changed.stat().st_mtime_ns > stamps[1]
    (sources / "b.raw").unlink()
    (sources / "c.raw").unlink()
    manifest = make(jobs_of(sources, parts=("_0",)))
    assert list(manifest["files"]) == ["train/a_0.wav"]
    assert files(tmp_path / "set") == ["manifest.json", "train/clean/a_0.wav", "train/noisy/a_0.wav"]


def test_a_stopped_run_is_made_anew(make: Callable[..., dict[str, Any]], sources: Path, tmp_path: Path) -> None:
    (sources / "c.raw").write_bytes(b"")
    with pytest.raises(UserError, match="gave no pair"):
        make(jobs_of(sources))
    with pytest.raises(UserError, match="add --overwrite"):
        make(jobs_of(sources), 0.25)
    (sources / "b.raw").unlink()
    (sources / "c.raw").write_bytes(b"12")
    assert list(make(jobs_of(sources), 0.25, overwrite=True)["files"]) == ["train/a.wav", "train/c.wav"]
    assert files(tmp_path / "set") == [name for name in WHOLE if not name.endswith("b.wav")]
    assert soundfile.read(tmp_path / "set/train/clean/a.wav")[0].max() == 0.25


def test_fingerprints_tell_names_splits_and_sizes(sources: Path) -> None:
    paths = sorted(sources.iterdir())
    first = fingerprint({"train": paths}, sources)
    assert fingerprint({"train": paths}, sources) == first
    assert fingerprint({"train": paths[1:]}, sources) != first
    assert fingerprint({"valid": paths}, sources) != first
    paths[0].write_bytes(b"longer")
    assert fingerprint({"train": paths}, sources) != first


def test_a_torn_note_of_files_does_not_stop_a_run(
    make: Callable[..., dict[str, Any]], sources: Path, tmp_path: Path
) -> None:
    (sources / "c.raw").write_bytes(b"")
    with pytest.raises(UserError, match="gave no pair"):
        make(jobs_of(sources))
    with (tmp_path / "set/.work/files.jsonl").open("a") as file:
        file.write('\n"train/clean/to')
    announce(tmp_path / "set", ["train/clean/gone.wav"])
    (sources / "c.raw").write_bytes(b"12")
    assert list(make(jobs_of(sources))["files"]) == ["train/a.wav", "train/b.wav", "train/c.wav"]
    assert files(tmp_path / "set") == WHOLE


def small_corpus(folder: Path) -> Path:
    """The trees of WSJ0 and CHiME-3 with an utterance each."""
    for part in ("si_tr_s/011/a", "si_dt_05/050/a", "si_et_05/440/a", "backgrounds/x.CH1"):
        (folder / f"{part}.wav").parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{part}.wav", np.random.default_rng(0).normal(0, 0.1, 100), 16000)
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["prepare-corpus", "wsj0-chime3", "{out}", "--wsj0", "{wsj0}", "--chime3", "{wsj0}"],
        ["prepare-reverb", str(DATA / "tiny"), "{out}"],
        ["prepare-rooms", "{out}", "--count", "3"],
    ],
)
def test_a_negative_number_of_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    words = [word.format(out=tmp_path / "out", wsj0=small_corpus(tmp_path / "wsj0")) for word in words]
    assert main(["speech", *words, "--workers", "-1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "workers is -1" in error
    assert not (tmp_path / "out").exists()


def test_ctrl_c_while_processes_start(tmp_path: Path) -> None:
    corpus = str(small_corpus(tmp_path / "corpus"))
    words = ["speech", "prepare-corpus", "wsj0-chime3", str(tmp_path / "set"), "--wsj0", corpus, "--chime3", corpus]
    words += ["--workers", "1", "--quiet"]
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            # a shell starts what runs in its background with SIGINT ignored
            "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "from ornstein.cli.command import main; sys.exit(main(sys.argv[1:]))",
            *words,
        ],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as at a terminal, all processes of the group hear it
    )
    started = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for _ in range(3000):
        children = [int(word) for word in started.read_text().split()]
        if len(children) >= 2:  # the one that tracks semaphores, and a worker
            break
        time.sleep(0.01)
    for child in children:  # on a busy machine they might be done before this process goes on
        os.kill(child, signal.SIGSTOP)
    time.sleep(0.1)  # the worker is importing, long before it could handle signals itself
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGCONT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == "ornstein: interrupted\n"
    assert not (tmp_path / "set/manifest.json").exists()
