"""`ornstein infrared evaluate` on simulated scenes with known models."""

import csv
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from infrared_models import model
from PIL import Image

from ornstein.cli import main
from ornstein.errors import UserError
from ornstein.pictures.results import INPUT
from ornstein.scoring import FILES
from ornstein_infrared import Infrared, evaluate, simulate, thermal
from ornstein_infrared.evaluate import held_out
from ornstein_infrared.metrics import psnr_gray
from ornstein_infrared.normalization import PercentileLinear


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """By bits; two scenes to test on."""
    folder = tmp_path_factory.mktemp("scenes")
    for depth in (8, 16):
        simulate(folder / str(depth), 20, 96, 128, 4, depth, quiet=True)  # type: ignore[arg-type]
    return {depth: folder / str(depth) for depth in (8, 16)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {
        "bicubic": model(folder / "bicubic.safetensors", scale=4),
        "noisy": model(folder / "noisy.safetensors", scale=4, size=0.05),
        "regression": model(folder / "regression.safetensors", scale=4, regression=True),
    }


def test_table_files_and_report(
    scenes: dict[int, Path], weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = ["--checkpoint", str(weights["noisy"]), str(weights["regression"]), "--guidance", "off", "spectrum"]
    words += ["--seeds", "0", "1", "--device", "cpu", "--workers", "0", "-o", str(output)]
    assert main(["infrared", "evaluate", str(scenes[8]), *words]) == 0
    said = capsys.readouterr().out
    names = ["noisy, NFE 2", "regression, NFE 1", "noisy, NFE 2, spectrum"]  # a regression cannot be guided
    assert all(name in said for name in names)
    assert "one system above another" in said
    assert sorted(path.name for path in output.iterdir()) == sorted(FILES)
    summary = json.loads((output / "summary.json").read_text())
    assert list(summary["systems"]) == [INPUT, *names]
    assert set(summary["systems"][INPUT]["metrics"]) == {
        "psnr_gray", "psnr_y", "ssim_gray", "ssim_y", "spectrum", "spectrum_log", "slope_error", "hot_iou",
        "hot_recall", "lite0",
    }  # fmt: skip
    assert len(summary["systems"][names[0]]["metrics"]["psnr_gray"]["by_seed"]) == 2
    assert set(summary["differences"]) == {f"{other} - {names[0]}" for other in names[1:]}
    assert summary["systems"][names[2]]["guidance"]["term"].startswith("spectrum")
    rows = list(csv.DictReader((output / "scores.csv").open()))
    assert len(rows) == 2 * 4
    offset = [float(row["psnr_y"]) - float(row["psnr_gray"]) for row in rows]
    np.testing.assert_allclose(offset, 20 * np.log10(255 / 219), atol=0.01)
    page = (output / "report.html").read_text()
    assert page.count("radial power of") == 2
    assert page.count("whole picture") == 2 * 5
    assert main(["infrared", "evaluate", str(scenes[8]), *words]) == 2  # nothing is overwritten
    assert "exists" in capsys.readouterr().err


def test_a_model_that_adds_nothing_scores_as_the_enlargement(scenes: dict[int, Path], weights: dict[str, Path]) -> None:
    for depth in (8, 16):
        summary = evaluate(
            scenes[depth], checkpoint=weights["regression"], device="cpu", workers=0, quiet=True, steps=None
        )
        enlarged, own = (summary["systems"][name]["metrics"] for name in (INPUT, "regression, NFE 1"))
        assert own["psnr_gray"]["mean"] == pytest.approx(enlarged["psnr_gray"]["mean"], abs=1e-3)


def test_temperatures_have_errors_in_kelvin(scenes: dict[int, Path], weights: dict[str, Path]) -> None:
    """Counts of 0.01 K say so themselves; the error of the enlargement is worked out by hand."""
    summary = evaluate(scenes[16], checkpoint=weights["noisy"], device="cpu", workers=0, quiet=True)
    trial = held_out(scenes[16])
    errors = []
    for pair in trial.pairs:
        item = trial.item(trial.pairs.index(pair))
        large, small = thermal.read(pair.gt), thermal.read(pair.lq)  # type: ignore[arg-type]
        assert large.unit == "degC"
        span = np.percentile(small.values, 99.9) - np.percentile(small.values, 0.1)
        errors.append(span * np.abs(trial.start(item) - item.truth).mean())
    found = summary["systems"][INPUT]["metrics"]["error_degc"]
    assert found["mean"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert 0 < found["mean"] < 1


def test_counts_without_a_scale_have_none(tmp_path: Path, weights: dict[str, Path]) -> None:
    rng = np.random.default_rng(0)
    for i in range(3):
        values = (3000 + 40 * rng.random((64, 64)).cumsum(1)).astype(np.uint16)
        (tmp_path / "set").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / f"set/{i}.tif", values)
    options: dict[str, Any] = {"layout": "flat", "checkpoint": weights["noisy"], "device": "cpu", "workers": 0}
    plain = evaluate(tmp_path / "set", quiet=True, **options)
    said = evaluate(tmp_path / "set", quiet=True, gain=0.04, offset=-273.15, **options)
    assert "error_degc" not in plain["systems"][INPUT]["metrics"]
    assert "error_degc" in said["systems"][INPUT]["metrics"]
    assert plain["systems"][INPUT]["metrics"]["psnr_gray"]["mean"] == pytest.approx(
        said["systems"][INPUT]["metrics"]["psnr_gray"]["mean"], rel=1e-4
    )


def test_measured_frames_are_those_of_pillow(tmp_path: Path) -> None:
    """Where a set has none, what evaluation makes is what published pairs are: the same levels."""
    values = np.random.default_rng(0).integers(0, 256, (3, 64, 64)).astype(np.uint8)
    (tmp_path / "set").mkdir()
    for i, frame in enumerate(values):
        Image.fromarray(frame).save(tmp_path / f"set/{i}.png")
    trial = held_out(tmp_path / "set", "flat")
    item = trial.item(0)
    assert len(trial.pairs) == 1
    small = np.asarray(Image.fromarray(values[2]).resize((16, 16), Image.Resampling.BICUBIC))
    np.testing.assert_allclose((item.measured.z + 1) / 2 * 255, small, atol=1e-4)
    np.testing.assert_allclose(item.truth[0] * 255, values[2], atol=1e-9)
    assert psnr_gray(item.truth, trial.start(item)) > 5


@pytest.mark.parametrize("degradation", ["bicubic", "real-esrgan", "thermal"])
def test_degradations_are_the_same_for_the_same_seed(degradation: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(3):
        (tmp_path / "set").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64)).astype(np.uint8)).save(tmp_path / f"set/{i}.png")
    first, again, other = (
        held_out(tmp_path / "set", "flat", degradation, seed=seed).item(0).measured.z for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert degradation == "bicubic" or not np.array_equal(first, other)


def test_nothing_sees_the_clean_frame(scenes: dict[int, Path], weights: dict[str, Path], monkeypatch: Any) -> None:
    """Whatever is guided by: the clean frame is no argument of a system, nor of the command."""
    trial = held_out(scenes[8])
    item = trial.item(0)
    infrared = Infrared(weights["noisy"], device="cpu", guidance="spectrum", guidance_scale=0.05)
    seen = trial.restore(infrared, item, seed=0)
    blind = trial.restore(infrared, item._replace(truth=np.zeros_like(item.truth), hot=None), seed=0)
    np.testing.assert_array_equal(seen, blind)
    assert not {"reference", "truth", "hr", "clean", "other", "picture"} & set(inspect.signature(evaluate).parameters)


def test_a_bad_pair_is_told_of_at_the_end(
    weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ratio mismatch, a frame that is no frame, a constant one: each is left out."""
    rng = np.random.default_rng(0)
    for name, size in (("a", (12, 16)), ("b", (12, 15)), ("c", (12, 16)), ("d", (12, 16))):
        for kind, suffix in (("HR", ""), ("LR", "x4")):
            (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
            shape = size if kind == "LR" else (48, 64)
            values = rng.integers(0, 256, shape).astype(np.uint16 if name == "d" else np.uint8)
            Image.fromarray(0 * values + 300 if name == "d" else values).save(
                tmp_path / f"set/{kind}/{name}{suffix}.png"
            )
    (tmp_path / "set/HR/c.png").write_bytes(b"no frame")
    words = ["--checkpoint", str(weights["noisy"]), "--workers", "0", "--device", "cpu", "-o", str(tmp_path / "out")]
    assert main(["infrared", "evaluate", str(tmp_path / "set"), *words, "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "15 x 12" in said
    assert "c.png" in said
    assert "d.png is constant" in said
    assert said.strip().splitlines()[-1].endswith("3 of 4 pictures failed, see above; the others are scored")
    assert json.loads((tmp_path / "out/summary.json").read_text())["files"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "--limit"),
        ({"seeds": [1, 1]}, "twice"),
        ({"baseline": False}, "nothing to score"),
        ({"systems": ["a.safetensors:best:1"]}, "no sampler 'best'"),
        ({"degradation": "thermal"}, "measured frames of its own"),
        ({"scale": 2}, "has no partner"),
        ({"lpips": Path("none.pth")}, "LPIPS needs"),
        ({"layout": "msrs"}, "none of the folders"),
        ({"scale": 0}, "--scale 0 must be at least 1"),
        ({"guidance": "spectrum", "checkpoint": "regression"}, "no guidance changes"),
        (
            {"guidance": ["off", "perceptual"], "features": "none.safetensors", "checkpoint": "noisy"},
            "none.safetensors",
        ),
    ],
)
def test_options_that_do_not_fit(
    options: dict[str, Any], message: str, scenes: dict[int, Path], weights: dict[str, Path]
) -> None:
    if "checkpoint" in options:
        options = options | {"checkpoint": weights[options["checkpoint"]]}
    with pytest.raises(UserError, match=message):
        evaluate(scenes[8], **{"workers": 0, "quiet": True, "device": "cpu"} | options)


def test_ranges_come_from_the_measured_frame(scenes: dict[int, Path]) -> None:
    trial = held_out(scenes[16])
    small = thermal.read(trial.pairs[0].lq)  # type: ignore[arg-type]
    found = PercentileLinear()(small.values)
    item = trial.item(0)
    assert (item.measured.low, item.measured.high) == (found.low, found.high)
