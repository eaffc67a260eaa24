"""`ornstein speech fit` on the real recordings in data/speech/tiny, as a user runs it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import yaml

from ornstein.cli import main
from ornstein.training.cli import run_lightning
from ornstein_speech.data import SpeechData
from ornstein_speech.task import SpeechTask

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "configs/speech/tiny.yaml"
WORDS = ["--config", str(RECIPE), "--data.root", str(ROOT / "data/speech/tiny"), "--data.valid_files", "1"]
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]

CALLBACKS = '''
import os
import signal

import torch
from lightning.pytorch import Callback


class KillAtStep3(Callback):
    """The power fails after the third step, before its checkpoint is written."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)


class Dump(Callback):
    """Writes what every rank ends with into the working folder."""

    def on_fit_end(self, trainer, pl_module):
        ema = next(callback for callback in trainer.callbacks if type(callback).__name__ == "EMA")
        state = {"weights": pl_module.state_dict(), "ema": ema.state_dict()["averages"]}
        torch.save(state | {"scores": dict(trainer.callback_metrics)}, f"rank{trainer.global_rank}.pt")
'''


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the processes that `shell` starts: sums in another order have other last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def shell(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run `ornstein speech fit WORDS` in `folder` as a process of one thread."""
    (folder / "speech_test_callbacks.py").write_text(CALLBACKS)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ornstein", "speech", "fit", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, env=environment)


def overlay(folder: Path, **trainer: Any) -> list[str]:
    """Words that lay other Trainer settings over the recipe."""
    path = folder / "overlay.yaml"
    path.write_text(
        yaml.safe_dump({"trainer": {"default_root_dir": str(folder), "num_sanity_val_steps": 0, **trainer}})
    )
    return ["--config", str(path)]


def every_step(folder: Path) -> list[dict[str, Any]]:
    """A checkpoint of every step in `folder`, and the EMA of the recipe.

    The order differs from the recipe's: settings of the same class at the same place would be merged.
    """
    options = {"dirpath": str(folder), "filename": "{step}", "save_top_k": -1, "every_n_train_steps": 1}
    return [
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": options},
        {"class_path": "ornstein.training.ema.EMA"},
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of the shipped recipe, run as its first lines say."""
    folder = tmp_path_factory.mktemp("trained")
    done = shell(folder, *WORDS, "--trainer.default_root_dir", str(folder))
    assert done.returncode == 0, done.stderr
    return folder / "lightning_logs/version_0/checkpoints/last.ckpt"


def test_checkpoint_becomes_an_enhancer(trained: Path, tmp_path: Path) -> None:
    noisy, model, output = ROOT / "data/speech/noisy/it_pink_2.5dB.flac", tmp_path / "tiny.safetensors", "out.wav"
    assert main(["speech", "export", str(trained), "-o", str(model), "--note", "a test"]) == 0
    words = ["--checkpoint", str(model), "--device", "cpu"]
    assert main(["speech", "enhance", str(noisy), "-o", str(tmp_path / output), *words]) == 0
    wave, rate = soundfile.read(tmp_path / output)
    assert (rate, len(wave)) == (16000, soundfile.info(noisy).frames)
    assert abs(wave).max() > 0.01


@pytest.mark.parametrize(("verb", "score"), [("validate", "val/pesq"), ("test", "test/pesq")])
def test_scores_of_a_checkpoint(
    verb: str, score: str, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [*WORDS, *QUIET, "--ckpt_path", str(trained), "--data.test_files", "1"]
    assert main(["speech", verb, *words, *overlay(tmp_path, logger=False)]) == 0
    assert score in capfd.readouterr().out


def test_predict_writes_waveforms(trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = [*WORDS, *QUIET, "--ckpt_path", str(trained), *overlay(tmp_path, logger=False)]
    assert main(["speech", "predict", *words, "--trainer.fast_dev_run", "true"]) == 0
    assert not (tmp_path / "predictions").exists()
    command = run_lightning(SpeechTask, SpeechData, "predict", words, "ornstein speech")
    (waves,) = command.trainer.predict_loop.predictions
    assert waves.shape == (2, 1, 64000)
    assert waves.isfinite().all()

    folder = tmp_path / "predictions"
    assert capfd.readouterr().out.count(f"enhanced files are in {folder}\n") == 1
    files = sorted(folder.rglob("*"))
    assert [path.suffix for path in files] == [".wav", ".wav"]
    for path, wave in zip(files, waves, strict=True):
        assert soundfile.info(path).subtype == "FLOAT"
        written, rate = soundfile.read(path, dtype="float32")
        assert rate == 16000
        assert torch.equal(torch.from_numpy(written), wave[0])

    assert main(["speech", "predict", *words]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert f"{files[0]} exists" in line
    assert "--trainer.default_root_dir" in line

    for side in ("clean", "noisy"):  # names with folders and with suffixes
        (tmp_path / "pairs/test" / side / "a").mkdir(parents=True)
        soundfile.write(tmp_path / "pairs/test" / side / "a/b.flac", 0.1 * waves[0, 0, :16000].numpy(), 16000)
    assert main(["speech", "predict", *words, "--data.root", str(tmp_path / "pairs"), "--data.layout", "pairs"]) == 0
    assert soundfile.info(folder / "a/b.wav").frames == 16000


def test_killed_run_resumes_as_if_it_had_not_been(trained: Path, tmp_path: Path) -> None:
    """Killed within the first epoch of four steps; weights, averages and optimizer end with the same bits."""
    kept = tmp_path / "kept"
    callbacks = [*every_step(kept), {"class_path": "speech_test_callbacks.KillAtStep3"}]
    killed = shell(tmp_path, *WORDS, *overlay(tmp_path, limit_val_batches=0, callbacks=callbacks))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert sorted(path.name for path in kept.iterdir()) == ["step=1.ckpt", "step=2.ckpt"]

    options = overlay(tmp_path, limit_val_batches=0, callbacks=every_step(kept), logger=False)
    assert main(["speech", "fit", *WORDS, *QUIET, *options, "--ckpt_path", str(kept / "step=2.ckpt")]) == 0
    whole, resumed = (torch.load(path, weights_only=True) for path in (trained, kept / "step=8.ckpt"))
    assert whole["global_step"] == resumed["global_step"] == 8
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_same_bits(whole[part], resumed[part], part)
    averages = [next(v["averages"] for k, v in run["callbacks"].items() if "EMA" in k) for run in (whole, resumed)]
    assert_same_bits(*averages, "averages")


def assert_same_bits(a: Any, b: Any, where: str) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, (dict, list, tuple)):
        assert len(a) == len(b), where
        for key in a if isinstance(a, dict) else range(len(a)):
            assert_same_bits(a[key], b[key], f"{where}/{key}")
    else:
        assert a == b, where


def test_two_processes_keep_identical_weights(tmp_path: Path) -> None:
    callbacks = [{"class_path": "ornstein.training.ema.EMA"}, {"class_path": "speech_test_callbacks.Dump"}]
    options = overlay(
        tmp_path, devices=2, strategy="ddp", max_steps=2, check_val_every_n_epoch=1, callbacks=callbacks, logger=False
    )
    sizes = ["--data.valid_files", "2", "--data.eval_batch_size", "1"]
    done = shell(tmp_path, *WORDS, *sizes, *options, "--trainer.enable_checkpointing", "false")
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert {"val/pesq", "val/estoi", "val/si_sdr"} <= ranks[0]["scores"].keys()
    assert_same_bits(ranks[0]["weights"], ranks[1]["weights"], "weights")
    assert_same_bits(ranks[0]["ema"], ranks[1]["ema"], "ema")
    for name, value in ranks[0]["scores"].items():
        assert name.startswith("train/") or torch.equal(value, ranks[1]["scores"][name]), name


def test_fast_dev_run(tmp_path: Path) -> None:
    options = overlay(tmp_path, fast_dev_run=True, check_val_every_n_epoch=1)
    assert main(["speech", "fit", *WORDS, *QUIET, *options]) == 0
    assert not list(tmp_path.rglob("events.out*"))


def test_bf16_mixed_with_both_loggers(tmp_path: Path) -> None:
    loggers = [
        {"class_path": f"lightning.pytorch.loggers.{name}", "init_args": {"save_dir": str(tmp_path / name)}}
        for name in ("CSVLogger", "TensorBoardLogger")
    ]
    options = overlay(
        tmp_path, precision="bf16-mixed", max_steps=1, logger=loggers, check_val_every_n_epoch=1, limit_train_batches=1
    )
    assert main(["speech", "fit", *WORDS, *QUIET, *options]) == 0
    header = next((tmp_path / "CSVLogger").rglob("metrics.csv")).read_text().splitlines()[0].split(",")
    assert {"train/loss", "train/spectral", "train/waveform", "val/pesq", "val/si_sdr_gain"} <= set(header)
    assert list((tmp_path / "TensorBoardLogger").rglob("events.out*"))
    weights = torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)["state_dict"]
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert all(weight.isfinite().all() for weight in weights.values())


def test_pesq_loss_trains(tmp_path: Path) -> None:
    """The same step with and without the PESQ term ends in other, finite weights; both parts are logged."""
    options = overlay(tmp_path, max_steps=1, limit_val_batches=0, logger=False)
    words = [*WORDS, *QUIET, *options, "--data.samples", "6016", "--model.objective.init_args.pesq_weight"]
    runs = [run_lightning(SpeechTask, SpeechData, "fit", [*words, w], "ornstein speech") for w in ("0", "0.5")]
    plain, perceptual = (run.trainer.callback_metrics for run in runs)
    assert {"train/pesq_loss", "train/mos"} == perceptual.keys() - plain.keys()
    total = perceptual["train/spectral"] + 1e-3 * perceptual["train/waveform"] + 0.5 * perceptual["train/pesq_loss"]
    torch.testing.assert_close(perceptual["train/loss"], total)
    without, trained = ([w for w in run.model.parameters() if w.requires_grad] for run in runs)
    assert all(bool(weight.isfinite().all()) for weight in trained)
    assert not all(torch.equal(one, other) for one, other in zip(without, trained, strict=True))


def test_undefined_scores_do_not_spoil_the_mean(trained: Path, tmp_path: Path) -> None:
    """PESQ and SI-SDR of silence are not defined; the other file's count."""
    speech, _ = soundfile.read(ROOT / "data/speech/clean/it_pink_2.5dB.flac", dtype="float32")
    noisy, rate = soundfile.read(ROOT / "data/speech/noisy/it_pink_2.5dB.flac", dtype="float32")
    for name, clean in (("silence.wav", 0 * speech), ("speech.wav", speech)):
        for side, wave in (("clean", clean), ("noisy", noisy)):
            (tmp_path / "valid" / side).mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / "valid" / side / name, wave[:24000], rate, subtype="FLOAT")

    def scores(files: int) -> dict[str, torch.Tensor]:
        data = ["--data.root", str(tmp_path), "--data.layout", "pairs", "--data.valid_files", str(files)]
        words = [*WORDS, *QUIET, *data, *overlay(tmp_path, logger=False), "--ckpt_path", str(trained)]
        return dict(
            run_lightning(SpeechTask, SpeechData, "validate", words, "ornstein speech").trainer.callback_metrics
        )

    silent, both = scores(1), scores(2)
    assert silent["val/pesq"].isnan()
    assert silent.keys() == both.keys()
    assert 1 <= both["val/pesq"] < 4.7
    assert both["val/si_sdr"].isfinite()


@pytest.mark.parametrize("workers", [0, 1])
def test_nan_in_the_data_is_named(workers: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for side in ("clean", "noisy"):
        (tmp_path / "train" / side).mkdir(parents=True)
        wave = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))
        wave[100] = float("nan") if side == "noisy" else 0
        soundfile.write(tmp_path / "train" / side / "a.wav", wave.numpy(), 16000, subtype="FLOAT")
    data = ["--data.root", str(tmp_path), "--data.layout", "pairs", "--data.batch_size", "1"]
    options = [*overlay(tmp_path, limit_val_batches=0, logger=False), "--data.num_workers", str(workers)]
    assert main(["speech", "fit", *WORDS, *QUIET, *data, *options]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("ornstein: ")
    assert "noisy/a.wav holds NaN" in line


def test_mistakes_give_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["--data.root", str(tmp_path / "none")], "ornstein speech prepare"),
        (["--data.rate", "8000"], "set data.rate and model.representation.sample_rate"),
        (["--data.layout", "flat"], "data.layout"),
        (["--model.objective.init_args.pesq_weight", "0.001"], "the PESQ loss needs 0.336 s"),
        (["--model.objective.init_args.pesq_weight=-1"], "pesq_weight is -1.0; a weight is 0 or more"),
    ):
        assert main(["speech", "fit", *WORDS, *QUIET, *words, *overlay(tmp_path, logger=False)]) == 2
        assert expected in capfd.readouterr().err.splitlines()[-1]
