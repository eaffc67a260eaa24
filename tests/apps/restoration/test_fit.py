"""fit, validate, test, predict, export, restore and upscale on pieces of photographs, as a user runs them."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ornstein import checkpoint
from ornstein.cli import main
from ornstein.training.cli import run_lightning
from ornstein_restoration import Restorer
from ornstein_restoration.data import RestorationData
from ornstein_restoration.datasets import read_pixels
from ornstein_restoration.task import RestorationTask, _psnr

Save = Callable[[Path, np.ndarray], Path]

UNET = {"class_path": "ornstein.networks.unet.UNet", "init_args": {"channels": 3, "width": 8, "levels": 2}}


def recipe(folder: Path, root: Path, scale: int = 4, regression: bool = False, **trainer: Any) -> Path:
    """A recipe of a few steps: residual shifting or regression, super-resolution or darkness."""
    shift = {"class_path": "ornstein.process.residual_shift.ResidualShift", "init_args": {"steps": 4}}
    process = {"class_path": "ornstein.process.prediction.Prediction"} if regression else shift
    levels = {
        "class_path": "ornstein.objectives.denoising.DenoisingObjective",
        "init_args": {
            "compare": "x0",
            "time_sampling": {"class_path": "ornstein.objectives.time_sampling.UniformLevels"},
        },
    }
    degradation = {"class_path": "restoration_degradations." + ("Darken" if scale == 1 else "Shrink")}
    settings = {
        "seed_everything": 1,
        "model": {
            "denoiser": {
                "class_path": "ornstein.denoiser.Denoiser",
                "init_args": {
                    "network": UNET,
                    "process": process,
                    "parameterization": {"class_path": "ornstein.parameterization.OneShot"},
                },
            },
            "objective": {"class_path": "ornstein.objectives.regression.RegressionObjective"} if regression else levels,
            "sampler": {
                "class_path": "ornstein.samplers.ancestral.Ancestral",
                "init_args": {"steps": 1 if regression else 4, "eta": 0.0},
            },
            "representation": {
                "class_path": "ornstein_restoration.representation.PictureSpace",
                "init_args": {"scale": scale},
            },
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 2e-3}},
        },
        "data": {
            "root": str(root),
            "layout": "clean",
            "degradation": degradation,
            "scale": scale,
            "batch_size": 2,
            "crop": 16,
            "epoch_length": 8,
            "valid_files": 1,
            "num_workers": 0,
        },
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": 4,
            "log_every_n_steps": 1,
            "num_sanity_val_steps": 0,
            "default_root_dir": str(folder),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": False,
            "callbacks": [
                {"class_path": "ornstein.training.ema.EMA"},
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {"monitor": "val/psnr", "mode": "max", "save_last": True},
                },
            ],
            **trainer,
        },
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo: Callable[..., np.ndarray], save: Save) -> Path:
    """Ten pieces of photographs in one folder."""
    root = tmp_path_factory.mktemp("photos")
    for i in range(10):
        save(root / f"{i}.png", photo(i, 40, 44))
    return root


def trained(folder: Path, photos: Path, **options: Any) -> tuple[Path, Path]:
    """The recipe and the last checkpoint of its run."""
    path = recipe(folder, photos, **options)
    assert main(["restoration", "fit", "--config", str(path)]) == 0
    (last,) = folder.rglob("last.ckpt")
    return path, last


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> tuple[Path, Path, Path]:
    """Recipe, checkpoint and exported weights of super-resolution x4."""
    folder = tmp_path_factory.mktemp("upscaler")
    path, last = trained(folder, photos)
    weights = folder / "x4.safetensors"
    assert main(["restoration", "export", str(last), "-o", str(weights), "--note", "a test"]) == 0
    return path, last, weights


@pytest.fixture(scope="module")
def brightener(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """Exported weights of a regression against darkness."""
    folder = tmp_path_factory.mktemp("brightener")
    _, last = trained(folder, photos, scale=1, regression=True)
    weights = folder / "bright.safetensors"
    assert main(["restoration", "export", str(last), "-o", str(weights)]) == 0
    return weights


def upscale(weights: Path, source: Path | str, target: Path | str, *words: str) -> int:
    options = ["--checkpoint", str(weights), "--device", "cpu", *words]
    return main(["restoration", "upscale", str(source), "-o", str(target), *options])


def restore(weights: Path, source: Path | str, target: Path | str, *words: str) -> int:
    options = ["--checkpoint", str(weights), "--device", "cpu", *words]
    return main(["restoration", "restore", str(source), "-o", str(target), *options])


def test_what_cannot_be_written_is_told_before_the_work(
    brightener: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the network ran")

    Image.new("RGBA", (40, 44), (10, 20, 30, 40)).save(tmp_path / "in.png")
    monkeypatch.setattr("ornstein_restoration.restorer.Restorer.__call__", never)
    assert restore(brightener, tmp_path / "in.png", tmp_path / "out.jpg") == 2
    assert "out.jpg" in capsys.readouterr().err


def test_upscaled_picture_has_four_times_the_size(
    upscaler: tuple[Path, Path, Path], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "large.png"
    assert upscale(upscaler[2], photos / "0.png", target) == 0
    assert Image.open(target).size == (4 * 44, 4 * 40)
    assert str(target) in capsys.readouterr().out
    before = target.read_bytes()
    assert upscale(upscaler[2], photos / "0.png", target) == 2  # nothing is overwritten
    assert "exists" in capsys.readouterr().err
    assert target.read_bytes() == before
    assert upscale(upscaler[2], photos / "0.png", target, "--overwrite", "--quiet") == 0
    assert target.read_bytes() == before  # the same seed
    assert capsys.readouterr().out == ""
    assert upscale(upscaler[2], photos / "0.png", tmp_path / "other.png", "--seed", "1") == 0
    assert (tmp_path / "other.png").read_bytes() != before


def test_tiles_batches_and_steps_are_options(upscaler: tuple[Path, Path, Path], photos: Path, tmp_path: Path) -> None:
    results = []
    for i, words in enumerate((["--batch", "1"], ["--batch", "4"], ["--blend", "steps"], ["--steps", "2"])):
        target = tmp_path / f"{i}.png"
        assert upscale(upscaler[2], photos / "1.png", target, "--tile", "24", "--overlap", "8", *words) == 0
        results.append(target.read_bytes())
    assert results[0] == results[1]
    assert len(set(results)) == 3


@pytest.mark.parametrize("sampler", ["sde", "ode", "2m", "heun"])
def test_samplers(sampler: Any, upscaler: tuple[Path, Path, Path], photos: Path) -> None:
    picture = read_pixels(photos / "2.png")[:, :16, :16]
    result = Restorer(upscaler[2], sampler=sampler, steps=3, device="cpu")(picture)
    assert result.shape == (3, 64, 64)
    assert 0 <= float(result.min()) <= float(result.max()) <= 1


def test_folder_goes_on_after_a_bad_file(
    brightener: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.png").write_bytes((photos / "0.png").read_bytes())
    (folder / "deep/b.png").write_bytes((photos / "1.png").read_bytes())
    (folder / "c.png").write_bytes(b"no picture")
    (folder / "d.gif").write_bytes(b"another kind")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert restore(brightener, folder, tmp_path / "out") == 2
    said = capsys.readouterr()
    assert "c.png" in said.err
    assert "1 of 3 files failed" in said.err
    assert "note: 1 file of other kinds left out (.gif)" in said.err
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")) == [
        "a.png",
        "deep/b.png",
    ]


def test_regression_learns(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Control without diffusion by the same command: 250 steps undo much of the darkness."""
    path = recipe(tmp_path, photos, scale=1, regression=True, max_steps=250, limit_val_batches=0)
    settings = yaml.safe_load(path.read_text())
    settings["model"]["denoiser"]["init_args"]["network"] = {"class_path": "restoration_degradations.Affine"}
    settings["model"]["optimizer"]["init_args"]["lr"] = 0.1
    settings["data"] |= {"held_out": 0.4, "epoch_length": 500}
    settings["trainer"]["callbacks"] = settings["trainer"]["callbacks"][:1]
    path.write_text(yaml.safe_dump(settings))
    scores = [
        run_lightning(RestorationTask, RestorationData, "fit", ["--config", str(path), *words], "ornstein restoration")
        for words in (["--trainer.max_steps", "1"], [])
    ]
    gains = []
    for command in scores:
        (result,) = command.trainer.test(command.model, command.datamodule, verbose=False)
        gains.append(result["test/psnr_gain"])
    assert gains[1] > 3
    assert gains[1] > gains[0] + 3


def test_validation_scores_and_predictions(
    upscaler: tuple[Path, Path, Path], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, last, _ = upscaler
    words = ["--config", str(path), "--ckpt_path", str(last), "--trainer.default_root_dir", str(tmp_path)]
    assert main(["restoration", "validate", *words]) == 0
    said = capsys.readouterr().out
    assert "val/psnr" in said
    assert "val/ssim" in said
    assert main(["restoration", "predict", *words]) == 0
    (written,) = (tmp_path / "predictions").glob("*.png")
    assert Image.open(written).size == (44, 40)  # of the test picture, which was shrunk
    assert main(["restoration", "predict", *words]) == 2
    assert "exists" in capsys.readouterr().err


def test_exported_weights_continue_training(upscaler: tuple[Path, Path, Path], photos: Path, tmp_path: Path) -> None:
    path, _, weights = upscaler
    words = ["--config", str(path), "--trainer.default_root_dir", str(tmp_path), "--model.init_from", str(weights)]
    assert main(["restoration", "fit", *words, "--trainer.max_steps", "1"]) == 0


def test_checkpoint_carries_what_it_needs(upscaler: tuple[Path, Path, Path]) -> None:
    loaded = checkpoint.load(upscaler[2], app="restoration")
    assert loaded.info["note"] == "a test"
    assert (loaded.representation.scale, loaded.sampler.steps if loaded.sampler else None) == (4, 4)
    restorer = Restorer(upscaler[2], device="cpu")
    assert (restorer.scale, restorer.model.evaluations, restorer.precision) == (4, 4, "float32")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "9"], "at most 4"),
        (["--steps", "0"], "at least 1"),
        (["--tile", "-1"], "--tile -1"),
        (["--tile", "8", "--overlap", "8"], "overlap of 8"),
        (["--tile", "0", "--overlap", "8"], "--overlap is for tiles"),
        (["--batch", "0"], "--batch 0"),
        (["--device", "tpu"], "tpu"),
        (["--sampler", "best"], "sampler"),
    ],
)
def test_options_that_do_not_fit(
    words: list[str], message: str, upscaler: tuple[Path, Path, Path], photos: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert upscale(upscaler[2], photos / "0.png", tmp_path / "x.png", *words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "x.png").exists()


def test_wrong_verb_and_missing_weights(
    upscaler: tuple[Path, Path, Path], brightener: Path, photos: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    picture, target = str(photos / "0.png"), str(tmp_path / "x.png")
    assert restore(upscaler[2], picture, target) == 2
    assert "restoration upscale" in capsys.readouterr().err
    assert upscale(brightener, picture, target) == 2
    assert "restoration restore" in capsys.readouterr().err
    assert restore(brightener, picture, target, "--mask", picture) == 2
    assert "takes no mask" in capsys.readouterr().err
    assert restore(brightener, picture, target, "--steps", "2") == 2
    assert "regression model" in capsys.readouterr().err
    assert restore(brightener, picture, target, "--task", "rain") == 2
    assert "leave it or --checkpoint out" in capsys.readouterr().err
    assert main(["restoration", "restore", picture, "-o", target]) == 2
    assert "--task low-light, rain or shadow" in capsys.readouterr().err
    monkeypatch.setattr(sys.modules["ornstein_restoration.restore"], "WEIGHTS", tmp_path / "none")
    assert main(["restoration", "restore", picture, "-o", target, "--task", "rain"]) == 2
    assert "no shipped weights for rain" in capsys.readouterr().err
    assert restore(brightener, picture, tmp_path / "x.txt") == 2
    assert "no suffix of a picture" in capsys.readouterr().err
    assert upscale(photos / "0.png", picture, target) == 2
    assert upscale(brightener, str(tmp_path / "gone.png"), target) == 2


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (torch.rand(1, 3, 8, 8), "shape"),
        (torch.rand(8, 8, 3), "shape"),
        (torch.full((3, 8, 8), 2.0), "outside"),
        (torch.full((3, 8, 8), float("nan")), "NaN"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "uint8"),
        (torch.zeros(3, 0, 8), "empty"),
        ("picture.png", "str"),
    ],
)
def test_bad_tensors(picture: Any, message: str, brightener: Path) -> None:
    from ornstein.errors import UserError

    with pytest.raises(UserError, match=message):
        Restorer(brightener, device="cpu")(picture)


def test_arrays_and_tensors_give_the_same(brightener: Path) -> None:
    picture = torch.rand(3, 13, 9, generator=torch.Generator().manual_seed(0))
    restorer = Restorer(brightener, device="cpu")
    assert torch.equal(restorer(picture), restorer(picture.numpy()))


def test_data_and_model_of_different_scale(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe(tmp_path, photos)
    words = ["--model.representation.scale", "2"]
    assert main(["restoration", "fit", "--config", str(path), *words]) == 2
    assert "the data have scale 4" in capsys.readouterr().err


def test_pictures_without_references_can_only_be_predicted(
    brightener: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path, photos, scale=1, regression=True)
    words = ["--config", str(path), "--data.layout", "pairs", "--data.degradation", "null", "--data.test_files", "2"]
    words += ["--model.init_from", str(brightener)]
    assert main(["restoration", "test", *words]) == 2
    assert "only predict works" in capsys.readouterr().err
    assert main(["restoration", "predict", *words]) == 0
    assert len(list((tmp_path / "predictions").glob("*.png"))) == 2


def test_predictor_is_taken_from_another_run(brightener: Path, photos: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, photos, scale=1)
    words = ["--config", str(path), "--model.predictor_from", str(brightener)]
    with pytest.raises(Exception, match="has no predictor"):
        run_lightning(RestorationTask, RestorationData, "fit", words, "ornstein restoration")


def test_a_predictor_with_random_weights_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Path(__file__).parents[3] / "configs/restoration/photos_x4.yaml"
    words = ["--config", str(config), "--data.root", str(photos), "--data.num_workers", "0", "--model.compile", "false"]
    words += ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--trainer.logger", "false"]
    words += ["--trainer.default_root_dir", str(tmp_path)]
    assert main(["restoration", "fit", *words]) == 2
    assert "the predictor of this model has random weights" in capsys.readouterr().err.splitlines()[-1]


def test_mean_psnr_is_finite() -> None:
    clean = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0)) * 0.8
    assert _psnr(clean, clean) == 100
    assert _psnr(clean, clean + 0.1) == pytest.approx(20, abs=1e-4)
