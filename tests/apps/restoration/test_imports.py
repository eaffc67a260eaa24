"""What importing the package loads, and that its functions stay functions."""

import subprocess
import sys

TRAINING = {"lightning", "torchmetrics", "tensorboard", "matplotlib", "jsonargparse"}


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh process after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_package_and_commands_are_light() -> None:
    found = loaded_by("import ornstein_restoration, ornstein_restoration.commands")
    assert not found & {*TRAINING, "torch", "numpy", "scipy", "PIL", "yaml"}


def test_restoring_loads_nothing_that_only_training_needs() -> None:
    modules = ["ornstein.pictures.sampling"]
    modules += [f"ornstein_restoration.{name}" for name in ("images", "datasets", "regression")]
    found = loaded_by("\n".join(f"import {name}" for name in modules))
    assert "torch" in found
    assert not found & TRAINING


def test_functions_are_not_shadowed_by_the_module_of_their_name() -> None:
    for first in ("", "import ornstein_restoration.restore; "):
        names = "restore, upscale, Restorer"
        loaded_by(f"{first}from ornstein_restoration import {names}; assert callable(restore), restore; {names}")
