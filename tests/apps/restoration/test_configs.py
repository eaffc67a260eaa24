"""Every shipped recipe is read and built by Lightning's command line; nothing is trained."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ornstein.process.prediction import Prediction
from ornstein.training.cli import LightningCommand, run_lightning
from ornstein_restoration.data import RestorationData
from ornstein_restoration.task import RestorationTask

FOLDER = Path(__file__).parents[3] / "configs/restoration"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))

EVALUATIONS = {  # as published
    "upsr_imagenet": 5,
    "resshift": 4,
    "upsr_atd": 1,
    "resfusion_istd": 5,
    "resfusion_lol": 5,
    "resfusion_raindrop": 5,
    "rddm_istd": 5,
    "rddm_lol": 2,
    "rddm_raindrop": 5,
    "photos_regression": 1,
    "photos_x4_atd": 1,
}

AWAITED = (
    "ornstein.networks.residual_unet",
    "ornstein.networks.swin_unet",
    "ornstein.networks.atd",
    "ornstein.uncertainty",
    "ornstein.two_networks",
    "ornstein.residual_outputs",
    "ornstein.wrapped_parameterizations",
    "ornstein.objectives.outputs",
    "ornstein.objectives.pictures",
    "ornstein.samplers.compat_residual",
    "ornstein_restoration.degradations",
)
"""Modules that recipes name and this tree does not hold yet; parts of a recipe that need one are replaced."""

STAND_INS: dict[str, dict[str, Any]] = {
    "network": {"class_path": "ornstein.networks.unet.UNet", "init_args": {"channels": 3, "width": 8}},
    "objective": {
        "class_path": "ornstein.objectives.denoising.DenoisingObjective",
        "init_args": {"compare": "x0"},
    },
    "parameterization": {"class_path": "ornstein.parameterization.OneShot"},
}


def settings(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def awaited(node: Any) -> bool:
    """Whether a part of a recipe, or a part of it, is a class of a module that is not there."""
    if isinstance(node, dict):
        path = node.get("class_path", "")
        missing = any(path.startswith(f"{module}.") for module in AWAITED) and not exists(path)
        return missing or any(awaited(value) for value in node.values())
    return isinstance(node, list) and any(awaited(value) for value in node)


def exists(path: str) -> bool:
    try:
        return hasattr(importlib.import_module(path.rpartition(".")[0]), path.rpartition(".")[2])
    except ModuleNotFoundError:
        return False


def buildable(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with what is awaited replaced: networks, and the classes around them."""
    model, data = recipe["model"], recipe["data"]
    denoiser = model["denoiser"]
    parts = denoiser["init_args"]
    if awaited(denoiser):
        model["denoiser"] = {
            "class_path": "ornstein.denoiser.Denoiser",
            "init_args": {
                "network": STAND_INS["network"],
                "process": parts.get("process", {"class_path": "ornstein.process.prediction.Prediction"}),
                "parameterization": STAND_INS["parameterization"],
            },
        }
    if awaited(model["objective"]):
        model["objective"] = STAND_INS["objective"]
    if awaited(model["sampler"]):
        steps = model["sampler"]["init_args"]["steps"]
        model["sampler"] = {"class_path": "ornstein.samplers.ancestral.Ancestral", "init_args": {"steps": steps}}
    if awaited(data.get("degradation")):
        data["degradation"] = None
    return recipe


@pytest.fixture
def outline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The command line after parsing and building, with weights that have shapes only, stopped before it runs."""
    monkeypatch.setattr(LightningCommand, "_run_subcommand", lambda self, verb: None)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(buildable(settings(request.param))))
    machine = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.default_root_dir", str(tmp_path)]
    machine += ["--trainer.precision", "32-true"]
    with torch.device("meta"):
        return run_lightning(
            RestorationTask, RestorationData, "fit", ["--config", str(path), *machine], "ornstein restoration"
        )


@pytest.mark.parametrize(("outline", "name"), [(name, name) for name in RECIPES], indirect=["outline"])
def test_recipe_builds(outline: Any, name: str) -> None:
    task, data = outline.model, outline.datamodule
    space, process = task.representation, task.denoiser.process
    assert name not in EVALUATIONS or task.sampler.evaluations(process) == EVALUATIONS[name]
    assert data.scale == space.scale
    assert len(task.sampler.times(process)) == task.sampler.steps + 1
    if data.crop is not None:
        assert data.crop // data.scale % space.multiple == 0
    if isinstance(process, Prediction):
        assert task.sampler.steps == 1
    assert outline.trainer.checkpoint_callbacks[0].monitor == "val/psnr"


def test_every_class_of_a_recipe_exists_or_is_awaited() -> None:
    def check(node: Any) -> None:
        if isinstance(node, dict):
            path = node.get("class_path")
            assert path is None or exists(path) or any(path.startswith(f"{module}.") for module in AWAITED), path
            for value in node.values():
                check(value)
        elif isinstance(node, list):
            for value in node:
                check(value)

    for name in RECIPES:
        check(settings(name))


def test_published_recipes_differ_where_they_say() -> None:
    lol, rain = settings("resfusion_lol"), settings("resfusion_raindrop")
    rain["data"] |= {"root": lol["data"]["root"], "layout": "lol"}
    del rain["data"]["fit"]
    rain["trainer"]["default_root_dir"] = lol["trainer"]["default_root_dir"]
    assert rain == lol
    optimizer = lol["model"]["optimizer"]["init_args"]
    assert optimizer["lr"] == pytest.approx(8.8e-4 * 32 / 256)
    assert optimizer["lr"] * lol["model"]["schedule"]["final"] == pytest.approx(3e-5, rel=1e-3)


def test_control_and_diffusion_differ_by_the_diffusion_alone() -> None:
    control, diffusion = settings("photos_regression"), settings("photos_low_light")
    for recipe in (control, diffusion):
        for part in ("denoiser", "objective", "sampler"):
            del recipe["model"][part]
        del recipe["trainer"]["default_root_dir"]
    assert control == diffusion
