"""What importing a module loads: users of the inference path never pay for training, help pages never for torch."""

import subprocess
import sys

import pytest

TRAINING = {"lightning", "torchmetrics", "tensorboard", "matplotlib", "jsonargparse"}


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh process after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "module", ["ornstein", "ornstein.cli", "ornstein.errors", "ornstein.files", "ornstein.config", "ornstein_speech"]
)
def test_light_modules_load_no_third_party_package(module: str) -> None:
    assert not loaded_by(f"import {module}") & {*TRAINING, "torch", "numpy", "scipy", "soundfile", "yaml"}


def test_commands_of_every_app_are_light() -> None:
    statement = "from ornstein.cli.apps import installed, load\nfor point in installed().values(): load(point)"
    assert not loaded_by(statement) & {*TRAINING, "torch", "numpy", "scipy", "soundfile", "yaml"}


def test_inference_does_not_load_what_only_training_needs() -> None:
    modules = ["process.ouve", "denoiser", "networks.ncsnpp", "samplers.ancestral", "checkpoint"]
    found = loaded_by("\n".join(f"import ornstein.{name}" for name in modules))
    assert "torch" in found
    assert not found & TRAINING


def test_functions_of_the_speech_package_are_not_shadowed_by_their_modules() -> None:
    for first in ("", "import ornstein_speech.enhance; "):
        loaded_by(f"{first}from ornstein_speech import enhance; assert callable(enhance), enhance")
