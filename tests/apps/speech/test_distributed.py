"""Speech under DDP and FSDP2 on two processes; one program, speech_distributed.py, makes all runs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from speech_distributed import InTurn, Recorded, on_pairs, run

from ornstein.cli import main

ROOT = Path(__file__).parents[3]
PROGRAM = Path(__file__).parent / "speech_distributed.py"
STRATEGIES = pytest.mark.parametrize("strategy", ["ddp", "fsdp"])


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As in the processes of the program: sums in another order have other last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_pairs(folder: Path) -> None:
    """Three pairs of other lengths to validate and test; the first clean one is silent, so its PESQ is not defined."""
    speech, rate = soundfile.read(ROOT / "data/speech/clean/it_pink_2.5dB.flac", dtype="float32")
    noisy, _ = soundfile.read(ROOT / "data/speech/noisy/it_pink_2.5dB.flac", dtype="float32")
    for split in ("valid", "test"):
        for side, wave in (("clean", speech), ("noisy", noisy)):
            (folder / split / side).mkdir(parents=True)
            for i, frames in enumerate((12000, 20000, 16000)):
                scale = 0.0 if (i, side) == (0, "clean") else 1.0
                soundfile.write(folder / split / side / f"{i}.wav", scale * wave[:frames], rate, subtype="FLOAT")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("distributed")
    write_pairs(out / "pairs")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=out, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("enhanced files are in") == 2  # one rank tells, once per strategy
    return out


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One process with the double batch, as two accumulated ones."""
    return run(InTurn, "fit", tmp_path_factory.mktemp("alone"), "--trainer.accumulate_grad_batches", "2")


def last(folder: Path, strategy: str) -> Path:
    return folder / strategy / "lightning_logs/version_0/checkpoints/last.ckpt"


@STRATEGIES
def test_losses_are_those_of_one_process_with_the_double_batch(
    strategy: str, ranks: list[dict[str, Any]], alone: Any
) -> None:
    in_turn = [loss for pair in zip(*(rank[strategy]["losses"] for rank in ranks), strict=True) for loss in pair]
    assert len(in_turn) == 8
    assert in_turn == pytest.approx(alone.model.losses, rel=1e-3)
    for name, value in alone.trainer.callback_metrics.items():
        if name.startswith("val/"):
            assert [float(rank[strategy]["fitted"][name]) for rank in ranks] == pytest.approx([float(value)] * 2, 1e-3)


def test_scores_are_those_of_one_process(folder: Path, ranks: list[dict[str, Any]], tmp_path: Path) -> None:
    """Three files on two ranks, one without a PESQ, so that the fourth is a repeat: the same means."""
    words = ["--ckpt_path", str(last(folder, "ddp")), *on_pairs(folder)]
    expected = run(Recorded, "test", tmp_path, *words).trainer.callback_metrics
    assert 1 <= expected["test/pesq"] < 4.7
    for name, value in expected.items():
        assert [float(rank["scores"][name]) for rank in ranks] == pytest.approx([float(value)] * 2, 1e-5)


@STRATEGIES
def test_files_are_those_of_one_process(
    strategy: str, folder: Path, ranks: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Every file is written once, with the samples that one process writes."""
    run(Recorded, "predict", tmp_path, "--ckpt_path", str(last(folder, strategy)), *on_pairs(folder))
    written = sorted((folder / strategy / "predictions").iterdir())
    assert [path.name for path in written] == ["0.wav", "1.wav", "2.wav"]
    assert [rank[strategy]["batches"] for rank in ranks] == [2, 2]
    for path in written:
        one, other = (soundfile.read(folder / path.name)[0] for folder in (path.parent, tmp_path / "predictions"))
        assert one.tolist() == pytest.approx(other.tolist(), rel=0, abs=1e-6)


@STRATEGIES
def test_checkpoint_becomes_an_enhancer(strategy: str, folder: Path, tmp_path: Path) -> None:
    model, noisy = tmp_path / "model.safetensors", ROOT / "data/speech/noisy/it_pink_2.5dB.flac"
    assert main(["speech", "export", str(last(folder, strategy)), "-o", str(model)]) == 0
    words = ["--checkpoint", str(model), "--device", "cpu"]
    assert main(["speech", "enhance", str(noisy), "-o", str(tmp_path / "out.wav"), *words]) == 0
    assert soundfile.info(tmp_path / "out.wav").frames == soundfile.info(noisy).frames
