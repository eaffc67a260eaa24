"""Every shipped recipe is read and built by Lightning's command line; nothing is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ornstein import checkpoint
from ornstein.denoiser import Denoiser
from ornstein.features.small_encoder import EncoderWithHeads
from ornstein.latent import LatentDenoiser
from ornstein.networks.unet import UNet
from ornstein.objectives.noise_strength import encoder_denoiser
from ornstein.parameterization import X0
from ornstein.process.prediction import Prediction
from ornstein.process.residual_shift import ResidualShift
from ornstein.training.cli import LightningCommand, run_lightning
from ornstein_infrared.data import InfraredData
from ornstein_infrared.task import InfraredTask

FOLDER = Path(__file__).parents[3] / "configs/infrared"
RECIPES = ["m3fd_full", *sorted(path.stem for path in FOLDER.glob("roadscene_*.yaml"))]

SHIPPED = 5_000_000
"""What fits into a float16 file of 10 MB."""
STEPS = {"roadscene_regression": 1, "roadscene_pixel_t4": 4, "roadscene_distill": 1}


def settings(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


@pytest.fixture(params=RECIPES)
def outline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The command line after parsing and building, in a folder with what other recipes make, before it runs."""
    monkeypatch.setattr(LightningCommand, "_run_subcommand", lambda self, verb: None)
    monkeypatch.chdir(tmp_path)
    checkpoint.save(tmp_path / "features_small.safetensors", encoder_denoiser(EncoderWithHeads(1)), app="infrared")
    teacher = Denoiser(UNet(1, 8, 1), ResidualShift(), X0())
    checkpoint.save(tmp_path / "roadscene_pixel.safetensors", teacher, app="infrared")
    machine = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.default_root_dir", str(tmp_path)]
    words = ["--config", str(FOLDER / f"{request.param}.yaml"), *machine, "--trainer.precision", "32-true"]
    with torch.device("meta" if request.param == "m3fd_full" else "cpu"):  # shapes only of what is large
        found = run_lightning(InfraredTask, InfraredData, "fit", words, "ornstein infrared")
    return request.param, found


def test_recipe_builds(outline: Any) -> None:
    name, found = outline
    task, data = found.model, found.datamodule
    space, process = task.representation, task.denoiser.process
    assert data.scale == space.scale == 4
    assert data.crop // data.scale % (space.multiple if name != "m3fd_full" else 64) == 0
    assert task.sampler.evaluations(process) == STEPS.get(name, 15)
    assert task.compile_network
    count = sum(parameter.numel() for parameter in task.denoiser.parameters())
    if name == "m3fd_full":
        assert isinstance(task.denoiser, LatentDenoiser)
        assert count == 118_593_583 + 55_322_782
    else:
        assert 4_000_000 < count < SHIPPED
    assert isinstance(process, Prediction) == (name == "roadscene_regression")


def test_control_and_diffusion_differ_by_the_diffusion_alone() -> None:
    control, diffusion = settings("roadscene_regression"), settings("roadscene_pixel")
    networks = [recipe["model"]["denoiser"]["init_args"]["network"] for recipe in (control, diffusion)]
    assert networks[0] == networks[1]
    for recipe in (control, diffusion):
        for part in ("denoiser", "objective", "sampler"):
            del recipe["model"][part]
        del recipe["trainer"]["default_root_dir"]
    assert control == diffusion


@pytest.mark.parametrize("name", ["roadscene_guided", "roadscene_distill"])
def test_later_stages_have_the_denoiser_of_the_first(name: str) -> None:
    assert settings(name)["model"]["denoiser"] == settings("roadscene_pixel")["model"]["denoiser"]
    assert settings(name)["model"]["init_from"] == "roadscene_pixel.safetensors"
