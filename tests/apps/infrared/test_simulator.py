"""Simulated scenes have the statistics of infrared streets, and their folder can be made, stopped and gone on with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import kurtosis

from ornstein.cli.apps import resolve
from ornstein.cli.parser import run_function
from ornstein.errors import UserError
from ornstein.spectrum import spectral_slope
from ornstein_infrared import thermal
from ornstein_infrared.commands import app
from ornstein_infrared.degradations.bicubic import shrink
from ornstein_infrared.simulate import simulate
from ornstein_infrared.simulator import Scene, Simulator


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [Simulator()(torch.Generator().manual_seed(seed)) for seed in range(8)]


def test_statistics(scenes: list[Scene]) -> None:
    """Every scene lies where infrared streets do, and the mean over seeds where the recipe puts it."""
    slopes, decibels, kurtoses = [], [], []
    for scene in scenes:
        picture = scene.picture()[0]
        slopes.append(spectral_slope(picture))
        large = np.rint(255 * picture.numpy()).astype(np.uint8)
        up = Image.fromarray(shrink(large, 4)).resize(large.shape[::-1], Image.Resampling.BICUBIC)
        decibels.append(10 * np.log10(255**2 / np.mean((np.asarray(up, np.float64) - large) ** 2)))
        steps = np.concatenate([np.diff(large.astype(float), axis=axis).ravel() for axis in (0, 1)])
        kurtoses.append(kurtosis(steps, fisher=False))
    assert -3.5 < min(slopes) < max(slopes) < -2.3
    assert 28 < min(decibels) < max(decibels) < 41
    assert -3.25 < np.mean(slopes) < -2.9
    assert 35.4 < np.mean(decibels) < 38.1
    assert 40 < np.mean(kurtoses) < 85


def test_warm_bodies_are_on_the_ground(scenes: list[Scene]) -> None:
    """The ground begins no higher than at 30 % of the height; the largest body reaches 5 % above its middle."""
    for scene in scenes:
        top = int(scene.hot.any(1).float().argmax())
        assert top >= (0.3 - 0.05) * scene.hot.shape[0] - 1


def test_hot_objects_are_hot(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert 0 < int(scene.hot.sum()) < scene.hot.numel() / 10
        inside, outside = scene.temperature[scene.hot], scene.temperature[~scene.hot]
        assert float(inside.median()) > float(torch.quantile(outside[::20], 0.9))
        assert -40 < float(scene.temperature.min()) < float(scene.temperature.max()) < 60


def test_draws_are_the_generators() -> None:
    small = Simulator(64, 96)
    first, again, other = (small(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.temperature, again.temperature)
    assert not torch.equal(first.temperature, other.temperature)
    with pytest.raises(UserError, match="at least 64"):
        Simulator(32, 96)


@pytest.mark.parametrize("depth", [8, 16])
def test_folder(tmp_path: Path, depth: Any) -> None:
    options: dict[str, Any] = {"scenes": 5, "height": 64, "width": 96, "depth": depth, "quiet": True}
    manifest = simulate(tmp_path / "set", **options)
    assert manifest["counts"] == {"train": 3, "val": 1, "test": 1}
    suffix = ".png" if depth == 8 else ".tif"
    large = thermal.read(tmp_path / f"set/train/HR/scene00001{suffix}", dead=False)
    small = thermal.read(tmp_path / f"set/train/LR/scene00001x4{suffix}", dead=False)
    assert (large.size, small.size) == ((64, 96), (16, 24))
    if depth == 8:
        np.testing.assert_array_equal(shrink(large.values.astype(np.uint8), 4), small.values)
    else:
        assert (large.unit, large.dtype) == ("degC", np.uint16)
        np.testing.assert_allclose(shrink(large.values, 4), small.values, atol=0.006)
    hot = thermal.read(tmp_path / "set/test/hot/scene00004.png")
    assert set(np.unique(hot.values)) == {0, 255}


def test_folder_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    options: dict[str, Any] = {"scenes": 3, "height": 64, "width": 64, "quiet": True}
    simulate(tmp_path / "set", **options)
    path = tmp_path / "set/train/HR/scene00000.png"
    made = path.read_bytes()
    path.unlink()
    (tmp_path / "set/manifest.json").rename(tmp_path / "set/.settings.json")  # as if it had been stopped
    simulate(tmp_path / "set", **options)
    assert path.read_bytes() == made
    with pytest.raises(UserError, match="other options"):
        simulate(tmp_path / "set", **options | {"seed": 1})
    simulate(tmp_path / "set", **options | {"seed": 1, "overwrite": True})
    assert path.read_bytes() != made
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/holiday.jpg").touch()
    with pytest.raises(UserError, match="other files"):
        simulate(tmp_path / "mine", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"scenes": 2}, "at least 3"), ({"height": 510}, "multiples"), ({"depth": 12}, "choose 8 or 16")],
)
def test_bad_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        simulate(tmp_path / "set", **options)


def test_command(tmp_path: Path) -> None:
    function = resolve(app.verbs["simulate"].target)
    words = [str(tmp_path / "set"), "--scenes", "3", "--height", "64", "--width", "64", "--quiet"]
    run_function(function, words, prog="ornstein infrared simulate")
    assert len(list((tmp_path / "set").rglob("*.png"))) == 9
    with pytest.raises(UserError, match="other options"):
        run_function(function, [*words, "--seed", "1"], prog="ornstein infrared simulate")
