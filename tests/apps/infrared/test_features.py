"""Training of the small encoder on frames of files, its export, and the shipped recipe."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ornstein.errors import UserError
from ornstein.features.small_encoder import EncoderWithHeads, SmallEncoderFeatures
from ornstein.training.cli import LightningCommand, run_lightning
from ornstein_infrared.autoencoder_data import AutoencoderData
from ornstein_infrared.export import export
from ornstein_infrared.features_task import FeaturesTask

RECIPE = Path(__file__).parents[3] / "configs/infrared/features_small.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames with 8 bits, of 20 x 25 pixels."""
    root, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    for i in range(10):
        ramp = np.add.outer(np.linspace(0, 150, 20), np.linspace(0, 80, 25)) + rng.normal(0, 5, (20, 25))
        Image.fromarray(ramp.clip(0, 255).astype(np.uint8)).save(root / f"{i}.png")
    return root


def run(verb: str, folder: Path, target: Path, *words: str) -> LightningCommand:
    settings = {
        "seed_everything": 1,
        "model": {"network": {"class_path": "ornstein.features.small_encoder.EncoderWithHeads"}},
        "data": {"root": str(folder), "batch_size": 2, "crop": 16, "num_workers": 0},
        "trainer": {
            "accelerator": "cpu", "devices": 1, "max_steps": 4, "log_every_n_steps": 1, "logger": False,
            "num_sanity_val_steps": 0, "default_root_dir": str(target), "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [
                {"class_path": "ornstein.training.ema.EMA"},
                {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                 "init_args": {"monitor": "val/loss", "mode": "min", "save_last": True}},
            ],
        },
    }  # fmt: skip
    recipe = target / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings))
    return run_lightning(FeaturesTask, AutoencoderData, verb, ["--config", str(recipe), *words], prog="test")


def test_fit_resume_and_export(folder: Path, tmp_path: Path) -> None:
    command = run("fit", folder, tmp_path)
    assert command.trainer.global_step == 4
    scores = {name: float(value) for name, value in command.trainer.callback_metrics.items()}
    assert scores["val/loss"] == pytest.approx(scores["val/picture"] + 0.1 * scores["val/strength"], rel=1e-4)
    (last,) = tmp_path.rglob("last.ckpt")

    own = tmp_path / "features.safetensors"
    export(last, own, weights="raw", half=False)
    extractor = SmallEncoderFeatures(own)
    stored = command.model.denoiser.network.encoder.state_dict()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in extractor.encoder.state_dict().items())

    again = run("fit", folder, tmp_path, "--trainer.max_steps=6", f"--ckpt_path={last}")
    assert again.trainer.global_step == 6
    tested = run("test", folder, tmp_path, f"--model.init_from={own}")
    assert "test/loss" in tested.trainer.callback_metrics
    with pytest.raises(UserError, match="predict nothing"):
        run("predict", folder, tmp_path, f"--ckpt_path={last}")


def test_frames_have_one_or_three_channels(folder: Path) -> None:
    with pytest.raises(UserError, match="frames have 1, or 3"):
        FeaturesTask(EncoderWithHeads(4))
    batch = next(iter(AutoencoderData(folder, crop=16, batch_size=2, num_workers=0).train_dataloader()))
    x0, y, condition = FeaturesTask(EncoderWithHeads(3)).prepare_batch(batch)
    torch.testing.assert_close(x0, (2 * batch["gt"] - 1).expand(-1, 3, -1, -1))
    assert (y, condition) == (None, {})


def test_the_recipe_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[LightningCommand] = []
    monkeypatch.setattr(LightningCommand, "_run_subcommand", lambda self, verb: built.append(self))
    options = ["--trainer.accelerator=cpu", "--trainer.precision=32-true"]
    run_lightning(FeaturesTask, AutoencoderData, "fit", ["--config", str(RECIPE), *options], prog="test")
    (command,) = built
    assert isinstance(command.model.denoiser.network, EncoderWithHeads)
    assert command.datamodule.layout == "roadscene"
