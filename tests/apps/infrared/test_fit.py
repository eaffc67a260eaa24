"""Training, validation, prediction and export of tiny models, on pixels and on latents, and what they enlarge."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from ornstein import checkpoint
from ornstein.cli import main
from ornstein.errors import UserError
from ornstein.networks.vq import VQAutoencoder
from ornstein.published_shift import reconstruction
from ornstein_infrared import Infrared, prepare, thermal
from ornstein_infrared.data import InfraredData

SWIN = {
    "in_channels": 16, "condition_channels": 16, "out_channels": 1, "model_channels": 32, "channel_mult": [1, 1],
    "num_res_blocks": [1, 1], "attention_resolutions": [8], "image_size": 8, "num_head_channels": 16,
    "swin_embed_dim": 32, "window_size": 4, "mlp_ratio": 2, "num_feat": 16,
}  # fmt: skip
VQ = {
    "in_channels": 1, "ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "z_channels": 3, "embed_dim": 3, "n_embed": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames of waves and noise, 8 bits."""
    folder = tmp_path_factory.mktemp("frames")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :80]
    for i in range(10):
        values = 120 + 60 * np.sin(rows / (3 + i)) * np.cos(columns / (4 + i)) + rng.normal(0, 4, rows.shape)
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def recipe(root: Path, frames: Path, model: dict[str, Any], data: dict[str, Any] | None = None) -> Path:
    settings = {
        "seed_everything": 0,
        "model": {
            "objective": {"class_path": "ornstein.objectives.outputs.OutputObjective"},
            "sampler": {"class_path": "ornstein.samplers.ancestral.Ancestral", "init_args": {"steps": 2}},
            **model,
        },
        "data": {"root": str(frames), "layout": "flat", "batch_size": 2, "crop": 32, "num_workers": 0, **(data or {})},
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": 2,
            "limit_val_batches": 1,
            "logger": False,
            "enable_progress_bar": False,
            "default_root_dir": str(root / "run"),
            "callbacks": [{"class_path": "ornstein.training.ema.EMA", "init_args": {"decay": 0.9}}],
        },
    }
    (root / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return root / "recipe.yaml"


def on_pixels(regression: bool = False) -> dict[str, Any]:
    process = "prediction.Prediction" if regression else "residual_shift.ResidualShift"
    denoiser = {
        "network": {"class_path": "ornstein.networks.swin_unet.SwinUNet", "init_args": SWIN},
        "process": {"class_path": f"ornstein.process.{process}"},
        "parameterization": {"class_path": "ornstein.parameterization.Residual"},
    }
    space = {"scale": 4, "patch": 4, "multiple": 8}
    return {
        "denoiser": {"class_path": "ornstein.uncertainty.UncertaintyGuided", "init_args": denoiser},
        "representation": {"class_path": "ornstein_infrared.representation.ThermalSpace", "init_args": space},
    }


def on_latents() -> dict[str, Any]:
    network = SWIN | {"in_channels": 3, "condition_channels": 4, "out_channels": 3, "num_feat": None}
    denoiser = {
        "network": {"class_path": "ornstein.networks.swin_unet.SwinUNet", "init_args": network},
        "process": {"class_path": "ornstein.process.residual_shift.ResidualShift", "init_args": {"steps": 4}},
        "autoencoder": {"class_path": "ornstein.networks.vq.VQAutoencoder", "init_args": VQ},
    }
    space = {"scale": 4, "factor": 2, "multiple": 8}
    network["condition_channels"] = 1
    return {
        "denoiser": {"class_path": "ornstein.latent.LatentDenoiser", "init_args": denoiser},
        "representation": {"class_path": "ornstein_infrared.representation.ThermalSpace", "init_args": space},
    }


def last(root: Path) -> Path:
    return max((root / "run").rglob("*.ckpt"), key=os.path.getmtime)


@pytest.fixture(scope="module")
def trained(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Recipe, Lightning checkpoint and exported file of a model on pixels."""
    root = tmp_path_factory.mktemp("pixels")
    path = recipe(root, frames, on_pixels())
    assert main(["infrared", "fit", "--config", str(path)]) == 0
    exported = root / "mine.safetensors"
    assert main(["infrared", "export", str(last(root)), "-o", str(exported)]) == 0
    return path, last(root), exported


def test_trained_model_enlarges_and_is_scored(trained: tuple[Path, Path, Path], frames: Path, tmp_path: Path) -> None:
    words = ["--checkpoint", str(trained[2]), "--device", "cpu"]
    assert main(["infrared", "upscale", str(frames / "0.png"), "-o", str(tmp_path / "out.png"), *words]) == 0
    assert thermal.read(tmp_path / "out.png").size == (256, 320)
    words += ["--layout", "flat", "--workers", "0", "--quiet"]
    assert main(["infrared", "evaluate", str(frames), "-o", str(tmp_path / "scores"), *words]) == 0
    assert (tmp_path / "scores/report.html").stat().st_size > 1000


def test_validation_uses_averages_and_scores_whole_frames(
    trained: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path, saved, exported = trained
    words = ["--config", str(path), "--ckpt_path", str(saved), "--trainer.default_root_dir", str(tmp_path)]
    assert main(["infrared", "test", *words]) == 0
    printed = capsys.readouterr().out
    for name in ("psnr", "psnr_gain", "ssim", "spectrum"):
        assert f"test/{name}" in printed
    averages = torch.load(saved, weights_only=True)["state_dict"]
    half = load_file(exported)
    stored = {name.split(".", 1)[1]: value for name, value in averages.items() if name.startswith("denoiser.")}
    changed = [name for name, value in stored.items() if not torch.equal(value.half(), half[name].half())]
    assert len(changed) > len(stored) / 2  # the file holds averages, the state of Lightning the last weights


def test_prediction_writes_frames(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    path, saved, _ = trained
    words = ["--config", str(path), "--ckpt_path", str(saved), "--trainer.default_root_dir", str(tmp_path)]
    assert main(["infrared", "predict", *words]) == 0
    written = sorted((tmp_path / "predictions").iterdir())
    assert [file.name for file in written] == ["9.png"]
    assert thermal.read(written[0]).size == (64, 80)
    assert main(["infrared", "predict", *words]) == 2  # nothing is overwritten


def test_regression_of_equal_size(frames: Path, tmp_path: Path) -> None:
    model = on_pixels(regression=True)
    model["objective"] = {
        "class_path": "ornstein.objectives.regression.RegressionObjective", "init_args": {"error": "squared"}
    }  # fmt: skip
    grid = {"class_path": "ornstein.samplers.time_grids.UserGrid", "init_args": {"times": [1.0, 0.0]}}
    model["sampler"]  = {
        "class_path": "ornstein.samplers.ancestral.Ancestral", "init_args": {"steps": 1, "eta": 0.0, "grid": grid}
    }  # fmt: skip
    assert main(["infrared", "fit", "--config", str(recipe(tmp_path, frames, model))]) == 0
    target = tmp_path / "regression.safetensors"
    assert main(["infrared", "export", str(last(tmp_path)), "-o", str(target)]) == 0
    assert Infrared(target, device="cpu").is_regression


def test_latents_are_trained_on_encoded_once_or_on_the_way(frames: Path, tmp_path: Path) -> None:
    """Both ways with the autoencoder from a file, which is in the exported model unchanged."""
    torch.manual_seed(0)
    autoencoder = VQAutoencoder(**VQ)  # type: ignore[arg-type]
    vq = tmp_path / "vq.safetensors"
    checkpoint.save(vq, reconstruction(autoencoder).eval(), app="infrared", weights="raw")
    words = ["--autoencoder", str(vq), "--device", "cpu", "--quiet"]
    assert main(["infrared", "encode", str(frames), "-o", str(tmp_path / "latents"), *words]) == 0
    for name, data in (("direct", {}), ("cached", {"latents": str(tmp_path / "latents"), "augment": "none"})):
        root = tmp_path / name
        root.mkdir()
        model = on_latents() | {"autoencoder_from": str(vq)}
        assert main(["infrared", "fit", "--config", str(recipe(root, frames, model, data))]) == 0
        target = root / "mine.safetensors"
        assert main(["infrared", "export", str(last(root)), "-o", str(target)]) == 0
        own = Infrared(target, device="cpu").model.denoiser.autoencoder  # type: ignore[attr-defined]
        for key, value in autoencoder.state_dict().items():
            torch.testing.assert_close(own.state_dict()[key], value.half().float(), msg=key)
        source = tmp_path / "in.tif"
        tifffile.imwrite(source, (3000 + 50 * np.random.default_rng(0).random((20, 24))).astype(np.uint16))
        upscaled = Infrared(target, device="cpu")(thermal.read(source))
        assert upscaled.shape == (80, 96)
        assert 2900 < upscaled.mean() < 3150


def test_a_run_without_data_simulates_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    made = []

    def few(target: Path, scale: int) -> None:
        made.append((target, scale))

    monkeypatch.setattr(sys.modules[InfraredData.__module__], "simulate", few)
    monkeypatch.chdir(tmp_path)
    data = InfraredData()
    data.prepare_data()
    assert made == [(Path(".data/infrared"), 4)]
    assert data.layout == "pairs"
    InfraredData(tmp_path).prepare_data()
    assert len(made) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.scale", "2"], "same"),
        (["--data.valid_files", "0"], "at least 1"),
        (["--data.latents", "none", "--data.augment", "flip"], "data.augment"),
        (["--data.latents", "none", "--data.augment", "none"], "none"),
        (["--model.autoencoder_from", "vq.safetensors"], "no autoencoder"),
        (["--data.layout", "msrs"], "none of the folders"),
        (["--data.crop", "30"], "crop of 30"),
    ],
)
def test_settings_that_do_not_fit(
    words: list[str], message: str, trained: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    common = ["--config", str(trained[0]), "--trainer.default_root_dir", str(tmp_path)]
    assert main(["infrared", "fit", *common, *words]) == 2
    assert message in capsys.readouterr().err


# -- prepare -----------------------------------------------------------------------------------------------------------


def test_prepared_set_holds_the_same_values(frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = prepare(frames, tmp_path / "set", layout="flat", quiet=True)
    assert found["counts"] == {"train": 8, "val": 1, "test": 1}
    for split, names in found["frames"].items():
        for name in names:
            copy = np.asarray(Image.open(tmp_path / f"set/{split}/HR/{name}.png"))
            np.testing.assert_array_equal(copy, np.asarray(Image.open(frames / f"{name}.png")))
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*.png")}
    assert prepare(frames, tmp_path / "set", layout="flat", quiet=True)["counts"] == found["counts"]
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*.png")}
    with pytest.raises(UserError, match="overwrite"):
        prepare(frames, tmp_path / "set", layout="flat", seed=1, quiet=True)
    with pytest.raises(UserError, match="the folder of the sources; choose a target outside of it"):
        prepare(frames, frames / "set", layout="flat", quiet=True)


def test_prepare_keeps_counts_and_pairs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind, side, suffix in (("HR", 64, ""), ("LR", 16, "x4")):
        (tmp_path / "in" / kind).mkdir(parents=True)
        values = rng.integers(2000, 65536, (side, side)).astype(np.uint16)
        values[3, 3] = 65535  # saturated, and still there
        tifffile.imwrite(tmp_path / f"in/{kind}/a{suffix}.tif", values)
    prepare(tmp_path / "in", tmp_path / "out", layout="pairs", splits=["test"], quiet=True)
    for name in ("HR/a", "LR/ax4"):
        copy = np.asarray(Image.open(tmp_path / f"out/test/{name}.png"))
        np.testing.assert_array_equal(copy, tifffile.imread(tmp_path / f"in/{name}.tif"))
    with pytest.raises(UserError, match="nothing to copy"):
        prepare(tmp_path / "in", tmp_path / "none", layout="pairs", splits=[], quiet=True)
