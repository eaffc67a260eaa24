"""`ornstein infrared upscale`: what comes back of every kind of frame, and what is refused."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from flir_files import block, radiometric_jpeg
from infrared_models import model
from PIL import Image

from ornstein.cli import main
from ornstein.errors import UserError
from ornstein_infrared import Infrared, thermal, upscale


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("weights") / "identity.safetensors")


@pytest.fixture(scope="module")
def enlarger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four times, with noise that is seen in the result."""
    return model(tmp_path_factory.mktemp("weights") / "x4.safetensors", scale=4, size=0.05)


def counts(height: int = 24, width: int = 36, low: int = 2617, span: float = 122.0) -> np.ndarray:
    """A frame of 14 bits with the little contrast of an outdoor scene."""
    noise = np.random.default_rng(0).normal(0, 3, (height, width))
    slope = np.linspace(0, 1, width) * np.linspace(1, 0.5, height)[:, None]
    return (low + span * slope + noise).round().astype(np.uint16)


def run(source: Path, target: Path, weights: Path, *words: str) -> int:
    return main(
        ["infrared", "upscale", str(source), "-o", str(target), "--checkpoint", str(weights), "--device", "cpu", *words]
    )


@pytest.mark.parametrize("kind", ["counts", "levels", "float", "spots", "fixed"])
def test_identity_loses_less_than_a_count(kind: str, identity: Path, tmp_path: Path) -> None:
    """Through the command, file to file; the network passes on what it sees."""
    values: np.ndarray = counts()
    words: list[str] = []
    if kind == "levels":
        values = (values % 256).astype(np.uint8)
    elif kind == "float":
        values = values.astype(np.float32) * 0.01 - 10
    elif kind == "spots":  # far beyond the percentiles
        values[10:13, 20:23] = 16000
        values[3:6, 3:6] = 12
    elif kind == "fixed":
        words = ["--range", "2600", "2700"]
    suffix = ".png" if kind == "levels" else ".tif"
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    Image.fromarray(values).save(source) if kind == "levels" else tifffile.imwrite(source, values)
    assert run(source, target, identity, *words) == 0
    again = thermal.read(target)
    assert again.dtype == values.dtype
    if values.dtype.kind == "u":
        assert np.abs(again.values - values.astype(np.float64)).max() < 1
    else:
        np.testing.assert_allclose(again.values, values, atol=1e-4)


def test_sixteen_bits_come_back_with_their_scale(enlarger: Path, tmp_path: Path) -> None:
    """640 x 512 counts of 0.04 K, made of 160 x 128."""
    tifffile.imwrite(
        tmp_path / "in.tif", counts(128, 160, 7300), description="outdoor", metadata=None, resolution=(10, 10)
    )
    words = ["--gain", "0.04", "--offset", "-273.15", "--steps", "1"]
    assert run(tmp_path / "in.tif", tmp_path / "out.tif", enlarger, *words) == 0
    result = thermal.read(tmp_path / "out.tif")  # the file says what its counts mean
    assert result.size == (512, 640)
    assert result.dtype == np.uint16
    assert (result.scale.gain, result.scale.offset, result.unit) == (0.04, -273.15, "degC")
    assert 15 < result.values.mean() < 25
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert "outdoor" in str(file.pages.first.aspage().tags["ImageDescription"].value)
        assert file.pages.first.aspage().tags["XResolution"].value == (40, 1)
    tifffile.imwrite(tmp_path / "shaped.tif", counts())  # says its shape, which is not that of the result
    assert run(tmp_path / "shaped.tif", tmp_path / "large.tif", enlarger, "--steps", "1") == 0
    with tifffile.TiffFile(tmp_path / "large.tif") as file:
        assert "ImageDescription" not in file.pages.first.aspage().tags


def test_radiometric_jpeg_becomes_temperatures(enlarger: Path, tmp_path: Path) -> None:
    (tmp_path / "flir.jpg").write_bytes(radiometric_jpeg(block(counts(24, 32, 17000))))
    assert run(tmp_path / "flir.jpg", tmp_path / "out", enlarger, "--steps", "1") == 0
    small, large = thermal.read(tmp_path / "flir.jpg"), thermal.read(tmp_path / "out/flir.tif")
    assert large.unit == "degC"
    assert large.dtype == np.float32
    assert large.planck == small.planck
    assert large.size == (96, 128)
    assert abs(large.values.mean() - small.values.mean()) < 0.5


def test_folder_goes_on_after_a_bad_file(enlarger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "frames"
    (folder / "night").mkdir(parents=True)
    for name in ("a.png", "night/b.png"):
        Image.fromarray((counts() % 256).astype(np.uint8)).save(folder / name)
    (folder / "c.png").write_bytes(b"no frame")
    assert run(folder, tmp_path / "out", enlarger) == 2
    said = capsys.readouterr()
    assert "c.png" in said.err
    assert said.err.strip().splitlines()[-1].endswith("1 of 3 files failed, see above; the others are written")
    assert {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png")} == {
        "a.png",
        "night/b.png",
    }
    before = (tmp_path / "out/a.png").read_bytes()
    assert run(folder / "a.png", tmp_path / "out/a.png", enlarger, "--seed", "1") == 2
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "out/a.png").read_bytes() == before
    assert run(folder / "a.png", tmp_path / "out/a.png", enlarger, "--seed", "1", "--overwrite") == 0
    assert (tmp_path / "out/a.png").read_bytes() != before


def test_the_same_seed_gives_the_same_frame(enlarger: Path) -> None:
    values = counts().astype(np.float64)
    first, again, other = (Infrared(enlarger, device="cpu")(values, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 0.1


@pytest.mark.parametrize("sampler", ["sde", "ode", "2m", "heun"])
def test_samplers_and_steps(sampler: Any, enlarger: Path) -> None:
    infrared = Infrared(enlarger, device="cpu", sampler=sampler, steps=3)
    assert infrared.model.sampler.steps == 3
    assert np.isfinite(infrared(counts().astype(np.float64))).all()


def test_tiles_are_an_option(identity: Path) -> None:
    values = counts(40, 52).astype(np.float64)
    whole, tiled = (Infrared(identity, device="cpu", tile=tile)(values) for tile in (0, 16))
    np.testing.assert_allclose(tiled, whole, atol=1e-3)


# -- guidance ----------------------------------------------------------------------------------------------------------


def test_guidance_pulls_the_spectrum_towards_that_of_the_input(enlarger: Path) -> None:
    """In the band that the measured frame knows, amplitudes come nearer to those of its enlargement."""
    import torch

    from ornstein.pictures.sizes import upscale as enlarge
    from ornstein.spectrum import SpectrumLoss

    values = counts(32, 32).astype(np.float64)
    known = enlarge(torch.from_numpy(values)[None, None], 4)
    distance = SpectrumLoss(cutoff=1 / 8)
    found = {}
    for guidance, strength in (("off", None), ("spectrum", 0.01), ("spectrum", 0.03)):
        infrared = Infrared(enlarger, device="cpu", guidance=guidance, guidance_scale=strength)  # type: ignore[arg-type]
        result = torch.from_numpy(infrared(values))[None, None]
        found[strength] = float(distance(result, known))
    assert found[0.03] < found[0.01] < found[None]


@pytest.mark.parametrize("guidance", ["perceptual", "both"])
def test_guidance_by_fixed_filters(guidance: Any, enlarger: Path, tmp_path: Path) -> None:
    Image.fromarray((counts() % 256).astype(np.uint8)).save(tmp_path / "in.png")
    words = ["--guidance", guidance, "--features", "filters", "--tile", "16"]
    assert run(tmp_path / "in.png", tmp_path / "guided.png", enlarger, *words) == 0
    assert run(tmp_path / "in.png", tmp_path / "plain.png", enlarger, "--tile", "16") == 0
    guided, plain = (thermal.read(tmp_path / name).values for name in ("guided.png", "plain.png"))
    assert 0 < np.abs(guided - plain).mean() < 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance_scale": 0.1}, "no guidance to set"),
        ({"guidance": "spectrum", "guidance_scale": 0.0}, "positive"),
        ({"guidance": "spectrum", "features": "filters"}, "leave --features out"),
        ({"guidance": "perceptual", "features": "none.safetensors"}, "none.safetensors"),
        ({"guidance": "spectrum", "blend": "steps"}, "one by one"),
        ({"steps": 9}, "at most 4"),
        ({"tile": -1}, "--tile"),
        ({"range": [1.0]}, "lowest and the highest"),
        ({"range": [2.0, 1.0]}, "lower value first"),
        ({"gain": 0.0}, "no scale"),
        ({"checkpoint": "none.safetensors"}, "none.safetensors"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str, enlarger: Path, tmp_path: Path) -> None:
    Image.fromarray((counts() % 256).astype(np.uint8)).save(tmp_path / "in.png")
    with pytest.raises(UserError, match=message):
        upscale(tmp_path / "in.png", tmp_path / "out.png", **{"checkpoint": enlarger, "device": "cpu"} | options)
    assert not (tmp_path / "out.png").exists()


def test_missing_weights_are_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setattr(sys.modules[Infrared.__module__], "WEIGHTS", tmp_path)
    Image.fromarray((counts() % 256).astype(np.uint8)).save(tmp_path / "in.png")
    assert main(["infrared", "upscale", str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png")]) == 2
    assert "no shipped weights for infrared; name some with --checkpoint" in capsys.readouterr().err


# -- wrong inputs, each with its treatment -----------------------------------------------------------------------------


def test_pages_need_a_choice(enlarger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(tmp_path / "in.tif", np.stack([counts(), counts() + 500]), photometric="minisblack")
    assert run(tmp_path / "in.tif", tmp_path / "out.tif", enlarger) == 2
    assert "choose one with --page" in capsys.readouterr().err
    assert run(tmp_path / "in.tif", tmp_path / "out.tif", enlarger, "--page", "1") == 0
    assert thermal.read(tmp_path / "out.tif").values.mean() > 2617 + 500


def test_palettes_are_warned_of(enlarger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colours = np.stack([(counts() + shift) % 256 for shift in (0, 80, 160)], -1).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "in.png")
    assert run(tmp_path / "in.png", tmp_path / "out.png", enlarger) == 0
    assert capsys.readouterr().err.count("palette does not say") == 1
    assert thermal.read(tmp_path / "out.png").values.shape == (96, 144)


def test_opacity_is_left_away(enlarger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grey = (counts() % 256).astype(np.uint8)
    Image.fromarray(np.stack([grey, grey, grey, 0 * grey], -1)).save(tmp_path / "in.png")
    assert run(tmp_path / "in.png", tmp_path / "out.png", enlarger) == 0
    assert "opacity is left away" in capsys.readouterr().err
    assert Image.open(tmp_path / "out.png").mode == "L"


def test_a_constant_frame_is_enlarged(enlarger: Path, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "in.tif", np.full((16, 20), 2700, np.uint16))
    assert run(tmp_path / "in.tif", tmp_path / "out.tif", enlarger) == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), np.full((64, 80), 2700, np.uint16))


def test_saturated_pixels_come_back(enlarger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = counts()
    values[8:10, 8:10] = 65535
    tifffile.imwrite(tmp_path / "in.tif", values)
    assert run(tmp_path / "in.tif", tmp_path / "out.tif", enlarger) == 0
    result = tifffile.imread(tmp_path / "out.tif")
    assert (result == 65535).sum() == 4 * 16
    assert result[result != 65535].max() < 4000
    assert "saturated" in capsys.readouterr().err
    tifffile.imwrite(tmp_path / "all.tif", np.full((16, 20), 65535, np.uint16))
    assert run(tmp_path / "all.tif", tmp_path / "none.tif", enlarger) == 2
    assert "no pixel that measured anything" in capsys.readouterr().err


def test_missing_values_come_back(enlarger: Path, tmp_path: Path) -> None:
    values = counts().astype(np.float32) * 0.01
    values[5, 7] = np.nan
    tifffile.imwrite(tmp_path / "in.tif", values)
    assert run(tmp_path / "in.tif", tmp_path / "out.tif", enlarger) == 0
    result = tifffile.imread(tmp_path / "out.tif")
    assert np.isnan(result[20:24, 28:32]).all()
    assert np.isnan(result).sum() == 16


@pytest.mark.parametrize(
    ("size", "message"), [((7, 20), "a side needs at least 8"), ((8, 8), None), ((30, 9), None), ((9, 41), None)]
)
def test_small_frames(
    size: tuple[int, int], message: str | None, enlarger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "in.tif", counts(*size))
    assert run(tmp_path / "in.tif", tmp_path / "out.tif", enlarger) == (0 if message is None else 2)
    if message is None:
        assert tifffile.imread(tmp_path / "out.tif").shape == (4 * size[0], 4 * size[1])
    else:
        assert message in capsys.readouterr().err


def test_files_that_cannot_hold_the_frame(enlarger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(tmp_path / "in.tif", counts().astype(np.float32))
    for name in ("out.png", "out.jpg", "out.xyz"):
        assert run(tmp_path / "in.tif", tmp_path / name, enlarger) == 2
        assert name in capsys.readouterr().err
    assert run(tmp_path / "none.tif", tmp_path / "out.tif", enlarger) == 2
    assert "no file" in capsys.readouterr().err


def test_arrays_are_checked(identity: Path) -> None:
    infrared = Infrared(identity, device="cpu")
    for bad, message in ((np.zeros((3, 8, 8)), "height, width"), (np.full((8, 8), np.nan), "NaN")):
        with pytest.raises(UserError, match=message):
            infrared(bad)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(infrared(counts()), counts(), atol=1e-3)
