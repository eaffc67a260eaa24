"""What importing the package loads, and that its functions stay functions."""

import subprocess
import sys


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh process after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_package_and_commands_are_light() -> None:
    found = loaded_by("import ornstein_infrared, ornstein_infrared.commands")
    assert not found & {"torch", "numpy", "scipy", "PIL", "yaml", "lightning", "matplotlib", "jsonargparse"}


def test_reading_frames_and_measuring_them_loads_no_training() -> None:
    found = loaded_by("import ornstein_infrared.thermal, ornstein_infrared.normalization, ornstein_infrared.metrics")
    assert "numpy" in found
    assert not found & {"torch", "lightning", "torchmetrics", "torchvision", "matplotlib"}


def test_functions_are_not_shadowed_by_the_module_of_their_name() -> None:
    for first in ("", "import ornstein_infrared.simulate; "):
        loaded_by(f"{first}from ornstein_infrared import simulate; assert callable(simulate), simulate")
