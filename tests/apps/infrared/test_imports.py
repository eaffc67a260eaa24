"""What importing the package loads, and that its functions stay functions."""

import subprocess
import sys

TRAINING = {"lightning", "torchmetrics", "tensorboard", "matplotlib", "jsonargparse"}


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh process after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def importing(*modules: str) -> set[str]:
    return loaded_by("\n".join(f"import {name}" for name in modules))


def test_package_commands_and_verbs_of_models_are_light() -> None:
    names = ("commands", "autoencoder_commands", "features_commands", "published", "export", "latents")
    names += ("upscale", "upscaler", "guidance", "simulate")
    found = importing("ornstein_infrared", *(f"ornstein_infrared.{name}" for name in names))
    assert not found & {*TRAINING, "torch", "numpy", "scipy", "PIL", "yaml"}


def test_verbs_of_sets_load_no_torch() -> None:
    assert not importing("ornstein_infrared.evaluate", "ornstein_infrared.prepare") & {*TRAINING, "torch", "PIL"}


def test_inference_loads_nothing_that_only_training_needs() -> None:
    found = importing("ornstein.latent", "ornstein.pictures.sampling", "ornstein_infrared.representation")
    assert "torch" in found
    assert not found & TRAINING


def test_reading_frames_and_measuring_them_loads_no_training() -> None:
    found = importing("ornstein_infrared.thermal", "ornstein_infrared.normalization", "ornstein_infrared.metrics")
    assert "numpy" in found
    assert not found & {*TRAINING, "torch", "torchvision"}


def test_functions_are_not_shadowed_by_the_module_of_their_name() -> None:
    for first in ("", "import ornstein_infrared.simulate; "):
        loaded_by(f"{first}from ornstein_infrared import simulate; assert callable(simulate), simulate")


def test_enlarging_loads_nothing_that_only_training_needs() -> None:
    found = loaded_by("from ornstein_infrared import Infrared, upscale; import ornstein_infrared.trial")
    assert not found & TRAINING
