"""Every published loss and representation is a matter of the recipe: the command line builds it, the vectors hold."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from reference_vectors import ReferenceFile, reference_files

from ornstein.estimate import Estimate, estimate_from_x0
from ornstein.parameterization import Score
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.ouve import OUVE
from ornstein.training.cli import LightningCommand, run_lightning
from ornstein_speech.data import SpeechData
from ornstein_speech.objectives import DataPrediction
from ornstein_speech.representation import CompressedSpectrogram
from ornstein_speech.task import SpeechTask

ROOT = Path(__file__).parents[3]
T64 = {"rtol": 1e-12, "atol": 1e-9}

Build = Callable[[Sequence[str], dict[str, Any]], Any]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Build:
    """Task and data of the tiny recipe with a second recipe and some words laid over it."""
    monkeypatch.setattr(LightningCommand, "_run_subcommand", lambda self, verb: None)

    def run(words: Sequence[str] = (), recipe: dict[str, Any] | None = None) -> Any:
        (tmp_path / "over.yaml").write_text(yaml.safe_dump(recipe or {}))
        recipes = ["--config", str(ROOT / "configs/speech/tiny.yaml"), "--config", str(tmp_path / "over.yaml")]
        place = ["--trainer.default_root_dir", str(tmp_path), "--data.root", str(ROOT / "data/speech/tiny")]
        return run_lightning(SpeechTask, SpeechData, "fit", [*recipes, *place, *words], "ornstein speech")

    return run


def objective(class_path: str, **arguments: Any) -> dict[str, Any]:
    times = {"class_path": "ornstein.objectives.time_sampling.UniformTimes", "init_args": {"t_min": 0.03}}
    return {
        "model": {"objective": {"class_path": class_path, "init_args": {"time_sampling": times, **arguments}}},
    }


def denoising(weighting: str | None = None, **arguments: Any) -> dict[str, Any]:
    if weighting is not None:
        sigma_data = {"init_args": {"sigma_data": 0.1}} if weighting == "EDMWeighting" else {}
        arguments["weighting"] = {"class_path": f"ornstein.objectives.weighting.{weighting}", **sigma_data}
    return objective("ornstein.objectives.denoising.DenoisingObjective", reduction="half_sum", **arguments)


SCORE_LOSSES = {
    "loss_score_matching": denoising(compare="noise"),
    "loss_denoiser_1": denoising("Unweighted", compare="mean"),
    "loss_denoiser_sigma2": denoising("NoiseVariance", compare="mean"),
    "loss_denoiser_edm_mean_of_single_item_losses": denoising("EDMWeighting", compare="mean"),
}


def score_pair(v: ReferenceFile) -> tuple[Estimate, Estimate]:
    """The Estimate of `forward_out`, a score, and the true one."""
    x0, y, z, t = (v.tensor(name) for name in ("x", "y", "z", "t"))
    process, x = OUVE(), v.tensor("ouve_x_t")
    return Score().estimate(process, v.tensor("forward_out"), x, t, y), Estimate(process, x, t, x0, z, y)


@pytest.mark.parametrize("name", SCORE_LOSSES)
@reference_files("speech", "losses*.npz", needs=["ouve_x_t", *SCORE_LOSSES])
def test_losses_of_score_models(vectors: ReferenceFile, name: str, build: Build) -> None:
    built = build((), SCORE_LOSSES[name]).model.objective
    assert built.time_sampling.t_min == 0.03
    torch.testing.assert_close(built.compare_with(*score_pair(vectors)), vectors.tensor(name), **T64)


@reference_files("speech", "losses*.npz", needs=["ouve_x_t", "ouve_std"])
def test_absolute_error_of_the_2022_models(vectors: ReferenceFile, build: Build) -> None:
    """`loss_type: mae`: half the sum of |s score + z| without the square."""
    built = build((), denoising(compare="noise", error="absolute")).model.objective
    score, z = vectors.tensor("forward_out"), vectors.tensor("z")
    expected = (vectors.tensor("ouve_std")[:, None, None, None] * score + z).abs().sum() / 2 / len(z)
    torch.testing.assert_close(built.compare_with(*score_pair(vectors)), expected, **T64)


@reference_files("speech", "losses*.npz", needs=["loss_data_prediction", "stft_cfg", "l1_weight", "sbve_x_t"])
def test_data_prediction(vectors: ReferenceFile, build: Build) -> None:
    stft = vectors.json("stft_cfg")
    arguments = {
        "n_fft": stft["n_fft"],
        "hop": stft["hop_length"],
        "window": stft["window"],
        "exponent": stft["spec_abs_exponent"],
        "factor": stft["spec_factor"],
    }
    recipe = objective("ornstein_speech.objectives.DataPrediction", l1_weight=vectors.number("l1_weight"))
    recipe["model"]["representation"] = {
        "class_path": "ornstein_speech.representation.CompressedSpectrogram",
        "init_args": arguments,
    }
    built = build((), recipe).model.objective
    assert built.representation == CompressedSpectrogram(**arguments)  # the objective takes that of the task
    x0, y, z, t, output = (vectors.tensor(name) for name in ("x", "y", "z", "t", "forward_out"))
    process, x = SchroedingerBridge(), vectors.tensor("sbve_x_t")
    losses = built.losses(estimate_from_x0(process, x, t, output, y), Estimate(process, x, t, x0, z, y))
    torch.testing.assert_close(losses["loss"], vectors.tensor("loss_data_prediction"), **T64)


@pytest.mark.parametrize("weight", ["0.0005", "0"])
def test_pesq_weight_from_the_command_line(weight: str, build: Build) -> None:
    built = build(["--model.objective.init_args.pesq_weight", weight], {}).model.objective
    assert isinstance(built, DataPrediction)
    assert built.pesq_weight == float(weight)


@pytest.mark.parametrize(
    ("window", "transform", "normalize"),
    [("hann", "exponent", "noisy"), ("sqrthann", "log", "clean"), ("hann", "none", "not")],
)
def test_representations_and_levels(window: str, transform: str, normalize: str, build: Build) -> None:
    words = ["--model.representation.window", window, "--model.representation.transform", transform]
    command = build([*words, "--data.normalize", normalize], {})
    task, data = command.model, command.datamodule
    assert task.representation == CompressedSpectrogram(window=window, transform=transform)
    batch = next(iter(data.train_dataloader()))
    peaks = {side: batch[side].abs().amax((1, 2)) for side in ("clean", "noisy")}
    for side, peak in peaks.items():
        assert bool((peak == 1).all()) == (normalize == side)
    clean, noisy, _ = task.prepare_batch(batch)
    torch.testing.assert_close(task.representation.inverse(noisy, batch["noisy"].shape[-1]), batch["noisy"])
    losses = task.objective(task.denoiser, clean, noisy, generator=torch.Generator().manual_seed(0))
    assert bool(losses["loss"].isfinite())
