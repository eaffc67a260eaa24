"""`ornstein infrared tune-guidance` on simulated scenes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from infrared_models import model
from PIL import Image

from ornstein.cli import main
from ornstein.errors import UserError
from ornstein.pictures import lite0
from ornstein_infrared import Infrared, simulate, tune_guidance
from ornstein_infrared.evaluate import held_out
from ornstein_infrared.metrics import psnr_gray, spectrum_distance

QUIET: dict[str, Any] = {"device": "cpu", "workers": 0, "quiet": True}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frames to choose on."""
    folder = tmp_path_factory.mktemp("scenes")
    simulate(folder / "set", 20, 96, 128, quiet=True)
    return folder / "set"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with random errors below the cutoff, which guidance by the measured frame takes away."""
    return model(tmp_path_factory.mktemp("weights") / "noisy.safetensors", scale=4, size=0.05)


def test_command(scenes: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--checkpoint", str(weights), "--guidance_scales", "0.02", "0.005", "--seeds", "0", "1"]
    words += ["--device", "cpu", "--workers", "0", "-o", str(tmp_path / "out")]
    assert main(["infrared", "tune-guidance", str(scenes), *words]) == 0
    said = capsys.readouterr().out.splitlines()
    found = json.loads((tmp_path / "out/guidance.json").read_text())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["guidance.json"]
    assert [row["guidance_scale"] for row in found["tried"]] == [0, 0.005, 0.02]
    assert found["names"] == ["scene00016", "scene00017"]  # of validation
    allowed = [row for row in found["tried"] if row["allowed"]]
    best = min(allowed, key=lambda row: row["target"]["mean"])
    assert found["guidance_scale"] == best["guidance_scale"] > 0
    assert f"best: --guidance spectrum --guidance_scale {best['guidance_scale']:g}" in said
    assert main(["infrared", "tune-guidance", str(scenes), *words]) == 2  # nothing is overwritten
    assert "exists" in capsys.readouterr().err


def test_scores_are_those_of_results(scenes: Path, weights: Path) -> None:
    """Enlarged by hand: without guidance, and with each scale."""
    trial = held_out(scenes, split="val")
    found = tune_guidance(scenes, checkpoint=weights, guidance_scales=[0.02], limit=1, **QUIET)
    item = trial.item(0)
    guided = Infrared(weights, device="cpu", guidance="spectrum", guidance_scale=0.02)
    plain = Infrared(weights, device="cpu")
    results = [trial.restore(one, item, 0) for one in (plain, guided)]
    for row, result in zip(found["tried"], results, strict=True):
        assert row["target"]["mean"] == pytest.approx(spectrum_distance(item.truth, result), rel=1e-6)
    lost = psnr_gray(item.truth, results[0]) - psnr_gray(item.truth, results[1])
    assert found["tried"][1]["psnr_loss"]["mean"] == pytest.approx(lost, abs=1e-6)


def test_too_great_a_loss_is_not_allowed(scenes: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = QUIET | {"quiet": False}
    found = tune_guidance(scenes, checkpoint=weights, guidance_scales=[0.5], largest_loss=-100, limit=1, **options)
    assert (found["guidance_scale"], found["tried"][1]["allowed"]) == (0, False)
    said = capsys.readouterr().out
    assert "loses too much" in said
    assert "best: --guidance off" in said


@pytest.mark.parametrize(("guidance", "target"), [("both", "spectrum"), ("perceptual", "lite0")])
def test_targets(guidance: Any, target: str, scenes: Path, weights: Path) -> None:
    options: dict[str, Any] = {"features": "filters", "guidance_scales": [0.01], "limit": 1}
    found = tune_guidance(scenes, checkpoint=weights, guidance=guidance, **options, **QUIET)
    assert found["target"] == target
    sharper = tune_guidance(scenes, checkpoint=weights, guidance=guidance, target="ssim_y", **options, **QUIET)
    change = sharper["tried"][1]["change"]["mean"]
    assert sharper["guidance_scale"] == (0.01 if change > 0 and sharper["tried"][1]["allowed"] else 0)


def test_a_stopped_search_goes_on(scenes: Path, weights: Path, tmp_path: Path, monkeypatch: Any) -> None:
    calls: list[int] = []

    def counted(self: Infrared, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return once(self, *arguments, **options)

    once = Infrared.restore_normalized
    monkeypatch.setattr(Infrared, "restore_normalized", counted)
    options: dict[str, Any] = {"checkpoint": weights, "guidance_scales": [0.01], "output": tmp_path / "out", **QUIET}
    with pytest.raises(KeyboardInterrupt):
        tune_guidance(scenes, **options)
    calls.clear()
    monkeypatch.setattr(Infrared, "restore_normalized", lambda *a, **k: (calls.append(1), once(*a, **k))[1])
    tune_guidance(scenes, **options)
    assert len(calls) == 2  # of four


def test_a_bad_frame_is_told_of(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "set/val/HR").mkdir(parents=True)
    for name, values in (("a", rng.integers(0, 256, (48, 64))), ("b", np.full((48, 64), 7))):
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / f"set/val/HR/{name}.png")
    with pytest.raises(UserError, match="1 of 2 frames failed"):
        tune_guidance(tmp_path / "set", checkpoint=weights, guidance_scales=[0.01], **QUIET)
    assert "b.png is constant" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "choose on val"),
        ({"guidance_scales": [0.0]}, "positive numbers"),
        ({"guidance_scales": []}, "positive numbers"),
        ({"seeds": [1, 1]}, "twice"),
        ({"target": "lpips"}, "--lpips FILE"),
        ({"features": "filters"}, "looks at no features"),
        ({"layout": "msrs"}, "none of the folders"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str, scenes: Path, weights: Path) -> None:
    with pytest.raises(UserError, match=message):
        tune_guidance(scenes, **{"checkpoint": weights, "limit": 1} | options | QUIET)


def test_targets_that_are_not_measured(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set/val/HR").mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64)).astype(np.uint8)).save(
        tmp_path / "set/val/HR/a.png"
    )
    with pytest.raises(UserError, match="does not mark its hot objects"):
        tune_guidance(tmp_path / "set", checkpoint=weights, target="hot_iou", **QUIET)
    monkeypatch.setattr(lite0, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="efficientnet-lite0"):
        tune_guidance(tmp_path / "set", checkpoint=weights, guidance="perceptual", **QUIET)


def test_a_regression_is_not_guided(scenes: Path, tmp_path: Path, monkeypatch: Any) -> None:
    control = model(tmp_path / "control.safetensors", scale=4, regression=True)
    with pytest.raises(UserError, match="no guidance changes"):
        tune_guidance(scenes, checkpoint=control, **QUIET)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="without a launcher"):
        tune_guidance(scenes, checkpoint=control, **QUIET)
