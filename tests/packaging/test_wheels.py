"""The wheels work without the checkout: everything they need is inside, and the command runs from them."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
APPS = ("infrared", "restoration", "speech")
MEMBERS = {"ornstein": ROOT / "core"} | {f"ornstein_{app}": ROOT / "apps" / app for app in APPS}

# -I and -S keep the editable installs of the checkout out: their .pth files are not read. Third-party packages come
# from the environment of the tests, so that nothing is downloaded; `make wheels` does the same with an empty one.
RUN = """
import sys
sys.path[:0] = [{target!r}]
sys.path.append({site!r})
import ornstein, ornstein_infrared, ornstein_restoration, ornstein_speech
found = (ornstein, ornstein_infrared, ornstein_restoration, ornstein_speech)
assert all(m.__file__.startswith({target!r}) for m in found), found
from ornstein.cli import main
sys.exit(main({words!r}))
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the wheel of every member."""
    folder = tmp_path_factory.mktemp("wheels")
    for member in MEMBERS.values():
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(command, cwd=member, check=True, capture_output=True, text=True)
    return {name: next(folder.glob(f"{name}-*.whl")) for name in MEMBERS}


@pytest.fixture(scope="module")
def target(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the contents of the wheels and nothing else."""
    folder = tmp_path_factory.mktemp("target")
    for wheel in wheels.values():
        zipfile.ZipFile(wheel).extractall(folder)
    return folder


def ornstein(target: Path, folder: Path, *words: str) -> str:
    """Run the command from the wheels in `folder`; return what it prints."""
    code = RUN.format(target=str(target), site=sysconfig.get_path("purelib"), words=list(words))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("name", MEMBERS)
def test_wheel_holds_every_file_of_the_package(name: str, wheels: dict[str, Path]) -> None:
    """Modules, type marker, shipped weights: a file that an ignore rule swallows would be missing here."""
    content = set(zipfile.ZipFile(wheels[name]).namelist())
    package = MEMBERS[name] / name
    expected = {
        str(path.relative_to(package.parent))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert f"{name}/py.typed" in expected
    assert expected <= content
    assert any(entry.endswith("licenses/LICENSE") for entry in content)


def test_wheel_brings_nothing_else(wheels: dict[str, Path]) -> None:
    for name, wheel in wheels.items():
        tops = {entry.split("/")[0] for entry in zipfile.ZipFile(wheel).namelist()}
        assert tops == {name, f"{name}-0.1.0.dist-info"}


def test_help_runs_from_the_wheels(target: Path, tmp_path: Path) -> None:
    assert "clean a recording" in ornstein(target, tmp_path, "speech", "--help")
    assert "--overwrite" in ornstein(target, tmp_path, "speech", "enhance", "--help")
    for app in APPS:
        assert app in ornstein(target, tmp_path)
    assert "--guidance" in ornstein(target, tmp_path, "infrared", "upscale", "--help")


@pytest.mark.parametrize("name", ["ornstein_infrared", "ornstein_restoration"])
def test_weights_that_are_ignored_go_into_the_wheel(name: str, tmp_path: Path) -> None:
    """Shipped weights are called like files that an ignore rule names; here one is added to a copy of the app."""
    member = tmp_path / "member"
    shutil.copytree(MEMBERS[name], member, ignore=shutil.ignore_patterns("__pycache__"))
    (member / name / "weights").mkdir(exist_ok=True)
    (member / name / "weights" / "trial.safetensors").write_bytes(b"weights")
    (tmp_path / ".gitignore").write_text("*.safetensors\n")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(command, cwd=member, check=True, capture_output=True, text=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert f"{name}/weights/trial.safetensors" in zipfile.ZipFile(wheel).namelist()


def test_enhance_runs_from_the_wheels_with_the_shipped_weights(target: Path, tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).normal(0, 0.1, 8000)
    soundfile.write(tmp_path / "noisy.wav", noisy, 16000)
    ornstein(target, tmp_path, "speech", "enhance", "noisy.wav", "-o", "clean.wav")
    clean, rate = soundfile.read(tmp_path / "clean.wav")
    assert (clean.shape, rate) == (noisy.shape, 16000)
    assert np.isfinite(clean).all()
