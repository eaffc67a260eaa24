"""Training of an autoencoder on frames of files, its export, and the shipped recipes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ornstein import checkpoint
from ornstein.errors import UserError
from ornstein.networks.vq import VQAutoencoder
from ornstein.objectives.autoencoding import Autoencoding
from ornstein.published_shift import read_autoencoder
from ornstein.training.cli import LightningCommand, run_lightning
from ornstein_infrared.autoencoder_data import AutoencoderData
from ornstein_infrared.autoencoder_task import AutoencoderTask
from ornstein_infrared.export import export

RECIPES = sorted((Path(__file__).parents[3] / "configs/infrared").glob("vq_*.yaml"))
SMALL = {"in_channels": 1, "ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "n_embed": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames with 8 bits, of 20 x 25 pixels."""
    root, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    for i in range(10):
        ramp = np.add.outer(np.linspace(0, 150, 20), np.linspace(0, 80, 25)) + rng.normal(0, 5, (20, 25))
        Image.fromarray(ramp.clip(0, 255).astype(np.uint8)).save(root / f"{i}.png")
    return root


def run(verb: str, folder: Path, target: Path, *words: str, **objective: Any) -> LightningCommand:
    settings = {
        "seed_everything": 1,
        "model": {
            "autoencoder": {"class_path": "ornstein.networks.vq.VQAutoencoder", "init_args": SMALL},
            "objective": {"class_path": "ornstein.objectives.autoencoding.Autoencoding", "init_args": objective},
        },
        "data": {"root": str(folder), "batch_size": 2, "crop": 16, "num_workers": 0},
        "trainer": {
            "accelerator": "cpu", "devices": 1, "max_steps": 4, "log_every_n_steps": 1, "logger": False,
            "num_sanity_val_steps": 0, "default_root_dir": str(target), "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [
                {"class_path": "ornstein.training.ema.EMA"},
                {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                 "init_args": {"monitor": "val/psnr", "mode": "max", "save_last": True}},
            ],
        },
    }  # fmt: skip
    recipe = target / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings))
    return run_lightning(AutoencoderTask, AutoencoderData, verb, ["--config", str(recipe), *words], prog="test")


def test_fit_resume_and_export(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adversary = {
        "discriminator": {
            "class_path": "ornstein.networks.patch_discriminator.PatchDiscriminator",
            "init_args": {"in_channels": 1, "ch": 8, "layers": 2},
        },
        "discriminator_start": 2,
        "revive": 2,
    }
    command = run("fit", folder, tmp_path, **adversary)
    assert command.trainer.global_step == 4
    scores = {name: value.item() for name, value in command.trainer.callback_metrics.items()}
    assert scores["val/psnr"] > 0
    assert 1 / 16 <= scores["val/codes_used"] <= 1
    (last,) = tmp_path.rglob("last.ckpt")

    straight = tmp_path / "straight"
    straight.mkdir()
    once = run("fit", folder, straight, "--trainer.max_steps=6", **adversary)
    again = run("fit", folder, tmp_path, "--trainer.max_steps=6", f"--ckpt_path={last}", **adversary)
    assert again.trainer.global_step == 6
    expected = once.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.model.state_dict().items())

    own = tmp_path / "vq.safetensors"
    export(last, own, half=False)
    loaded = checkpoint.load(own, app="infrared")
    assert isinstance(loaded.denoiser.network, VQAutoencoder)
    assert read_autoencoder(own, "infrared").factor == 2
    export(last, tmp_path / "vq.pth", layout="published")
    published = read_autoencoder(tmp_path / "vq.pth")
    assert all(torch.equal(t, loaded.denoiser.network.state_dict()[n]) for n, t in published.state_dict().items())

    tested = run("test", folder, tmp_path, f"--model.init_from={own}", **adversary)
    assert "test/psnr" in tested.trainer.callback_metrics
    with pytest.raises(UserError, match="predicts nothing"):
        run("predict", folder, tmp_path, f"--ckpt_path={last}", **adversary)


def test_splits_and_signals(folder: Path, tmp_path: Path) -> None:
    data = AutoencoderData(folder, crop=16, batch_size=2, num_workers=0)
    parts = {"val": data.val_dataloader(), "test": data.test_dataloader()}
    assert {name: [batch["name"][0] for batch in loader] for name, loader in parts.items()} == {
        "val": ["8"],
        "test": ["9"],
    }
    task = AutoencoderTask(VQAutoencoder(3, 32, (1, 1), 1, n_embed=16), Autoencoding())
    batch = next(iter(data.train_dataloader()))
    x0, y, condition = task.prepare_batch(batch)
    assert (y, condition) == (None, {})
    torch.testing.assert_close(x0, (2 * batch["gt"] - 1).expand(-1, 3, -1, -1))
    assert x0.shape == (2, 3, 16, 16)
    pixels = torch.from_numpy(np.asarray(Image.open(folder / "8.png")).astype(np.float32))
    torch.testing.assert_close(next(iter(parts["val"]))["gt"][0, 0], pixels / 255)


def test_a_frame_that_comes_back_exactly(folder: Path) -> None:
    """100 dB, where a plain mean would be infinite."""

    class Same(VQAutoencoder):
        def encode(self, x: torch.Tensor) -> torch.Tensor:
            self.kept = x
            return super().encode(x)

        def decode(self, z: torch.Tensor, quantize: bool = True) -> torch.Tensor:
            return self.kept

    task = AutoencoderTask(Same(1, 32, (1, 1), 1, n_embed=16), Autoencoding())
    logged: dict[str, Any] = {}
    task.log_means = lambda values, weight: logged.update(values)  # type: ignore[method-assign]
    (batch,) = AutoencoderData(folder, num_workers=0).test_dataloader()
    task.test_step(batch, 0)
    assert logged["test/psnr"].item() == pytest.approx(100)


def test_what_does_not_fit_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="frames have 1, or 3"):
        AutoencoderTask(VQAutoencoder(4, 32, (1, 1), 1, n_embed=16), Autoencoding())
    with pytest.raises(UserError, match="valid_files"):
        AutoencoderData(folder, valid_files=0)
    with pytest.raises(UserError, match="less than the crop of 21"):
        next(iter(AutoencoderData(folder, crop=21, num_workers=0).train_dataloader()))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_built(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[LightningCommand] = []
    monkeypatch.setattr(LightningCommand, "_run_subcommand", lambda self, verb: built.append(self))
    options = ["--trainer.accelerator=cpu", "--trainer.precision=32-true"]
    with torch.device("meta"):
        run_lightning(AutoencoderTask, AutoencoderData, "fit", ["--config", str(recipe), *options], prog="test")
    (command,) = built
    network = command.model.denoiser.network
    parameters = sum(weight.numel() for weight in network.parameters())
    assert network.factor == 4
    assert parameters == {"vq_small": parameters, "vq_f4_full": 55_322_782}[recipe.stem]
    assert parameters < 8_388_608 or recipe.stem == "vq_f4_full"
