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
    "rddm_aosa": 5,
    "rddm_shared": 5,
    "resfusion_dit": 5,
    "resfusion_cifar10": 100,
    "resshift_latent": 15,
    "photos_low_light_regression": 1,
    "photos_rain_regression": 1,
    "photos_shadow_regression": 1,
    "photos_x4_regression": 1,
    "photos_x4_atd": 1,
}

PARAMETERS = {  # of all networks together, as published
    "upsr_imagenet": 119_418_319 + 2_532_360,
    "upsr_atd": 2_532_360,
    "resfusion_istd": 36_267_459,
    "resfusion_lol": 36_261_187,
    "resfusion_raindrop": 36_261_187,
    "rddm_lol": 36_261_187,
    "rddm_raindrop": 2 * 36_261_187,
    "rddm_aosa": 36_261_187,
    "resfusion_dit": 130_739_136,
    "resfusion_cifar10": 35_746_307,
    "resshift_latent": 118_593_583 + 55_322_782,
}

SHIPPED = 8_388_608
"""What fits into a float16 file of 16 MiB."""


def settings(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def exists(path: str) -> bool:
    try:
        return hasattr(importlib.import_module(path.rpartition(".")[0]), path.rpartition(".")[2])
    except ModuleNotFoundError:
        return False


@pytest.fixture
def outline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The command line after parsing and building, with weights that have shapes only, stopped before it runs."""
    monkeypatch.setattr(LightningCommand, "_run_subcommand", lambda self, verb: None)
    path = FOLDER / f"{request.param}.yaml"
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
    assert outline.trainer.checkpoint_callbacks[0].monitor == (
        "val/loss" if name == "resfusion_cifar10" else "val/psnr"
    )
    count = sum(parameter.numel() for parameter in task.denoiser.parameters())
    assert count == PARAMETERS.get(name, count)
    if name.startswith("photos"):
        assert count < SHIPPED - 2**15  # what describes the file fits, too
        assert 3_500_000 < count < 5_000_000 or name == "photos_x4_atd"


def test_every_class_of_a_recipe_exists() -> None:
    def check(node: Any) -> None:
        if isinstance(node, dict):
            path = node.get("class_path")
            assert path is None or exists(path), path
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


@pytest.mark.parametrize(
    ("other", "first", "model"),
    [
        ("rddm_aosa", "rddm_raindrop", {"denoiser", "objective"}),
        ("rddm_shared", "rddm_raindrop", {"denoiser"}),
        ("resfusion_dit", "resfusion_raindrop", {"denoiser", "representation", "tile"}),
    ],
)
def test_variants_differ_where_they_say(other: str, first: str, model: set[str]) -> None:
    one, two = settings(other), settings(first)
    for recipe in (one, two):
        for part in model:
            recipe["model"].pop(part, None)
        del recipe["trainer"]["default_root_dir"]
        recipe["trainer"]["callbacks"] = [
            each for each in recipe["trainer"]["callbacks"] if "ObjectiveSelection" not in each["class_path"]
        ]
    assert one == two


@pytest.mark.parametrize("name", ["low_light", "rain", "shadow", "x4"])
def test_control_and_diffusion_differ_by_the_diffusion_alone(name: str) -> None:
    control, diffusion = settings(f"photos_{name}_regression"), settings(f"photos_{name}")
    for recipe in (control, diffusion):
        for part in ("denoiser", "objective", "sampler"):
            del recipe["model"][part]
        del recipe["trainer"]["default_root_dir"]
    assert control == diffusion


@pytest.mark.parametrize(("other", "first"), [("rddm", "rain"), ("x4_rddm", "x4"), ("x4_resfusion", "x4")])
def test_processes_are_compared_at_equal_network_data_and_budget(other: str, first: str) -> None:
    one, two = settings(f"photos_{other}"), settings(f"photos_{first}")
    for recipe in (one, two):
        network = recipe["model"]["denoiser"]["init_args"]["network"]
        network["init_args"].pop("condition_channels")  # UPSR sees the picture of its predictor, too
        recipe["model"]["denoiser"] = network
        for part in ("objective", "sampler"):
            del recipe["model"][part]
        del recipe["trainer"]["default_root_dir"]
    assert one == two


def test_every_recipe_is_in_the_documentation() -> None:
    text = (FOLDER.parents[1] / "docs/restoration.md").read_text()
    assert [name for name in RECIPES if f"`{name}`" not in text] == []
