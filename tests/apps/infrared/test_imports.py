"""What importing the package loads: help pages stay light, and inference loads nothing of training."""

import subprocess
import sys

TRAINING = {"lightning", "torchmetrics", "tensorboard", "matplotlib", "jsonargparse"}


def loaded_by(*modules: str) -> set[str]:
    """Top-level modules in a fresh process that imports `modules`."""
    lines = [f"import {name}" for name in modules]
    code = "\n".join([*lines, "import sys", "print(*{name.partition('.')[0] for name in sys.modules})"])
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_package_commands_and_verbs_are_light() -> None:
    names = ("commands", "autoencoder_commands", "published", "export", "latents")
    found = loaded_by("ornstein_infrared", *(f"ornstein_infrared.{name}" for name in names))
    assert not found & {*TRAINING, "torch", "numpy", "scipy", "PIL", "yaml"}


def test_inference_loads_nothing_that_only_training_needs() -> None:
    found = loaded_by("ornstein.latent", "ornstein.pictures.sampling", "ornstein_infrared.representation")
    assert "torch" in found
    assert not found & TRAINING
