"""`ornstein restoration evaluate` on pieces of photographs with a tiny network."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ornstein import checkpoint
from ornstein.cli import main
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.journal import FOLDER
from ornstein.networks.unet import UNet
from ornstein.parameterization import OneShot
from ornstein.pictures.results import INPUT
from ornstein.pictures.systems import System, combine
from ornstein.process.residual_shift import ResidualShift
from ornstein.samplers.ancestral import Ancestral
from ornstein.scoring import FILES
from ornstein_restoration.evaluate import evaluate, held_out
from ornstein_restoration.metrics import psnr_rgb
from ornstein_restoration.representation import PictureSpace
from ornstein_restoration.trial import PictureTrial

Save = Callable[[Path, np.ndarray], Path]


def tiny(path: Path, scale: int = 1) -> Path:
    torch.manual_seed(0)
    denoiser = Denoiser(UNet(channels=3, width=8, levels=1), ResidualShift(steps=4), OneShot())
    with torch.no_grad():
        for parameter in denoiser.parameters():  # the last layer begins as zeros, which no noise gets through
            parameter.add_(0.1 * torch.randn_like(parameter))
    space = PictureSpace(scale=scale)
    checkpoint.save(path, denoiser, app="restoration", representation=space, sampler=Ancestral(steps=2, eta=1.0))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, photo: Callable[..., np.ndarray], save: Save) -> Path:
    """Three pairs, the degraded one half as bright."""
    folder = tmp_path_factory.mktemp("pairs")
    for index in range(3):
        clean = photo(index, 24, 32)
        save(folder / "gt" / f"{index}.png", clean)
        save(folder / "lq" / f"{index}.png", clean // 2)
    return folder


def scores(output: Path) -> list[list[str]]:
    """All cells but the time."""
    return [row[:-1] for row in csv.reader((output / "scores.csv").open())]


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluate(workers: int, weights: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    words = ["--checkpoint", str(weights), "--steps", "1", "2", "--device", "cpu", "--workers", str(workers)]
    assert main(["restoration", "evaluate", str(pairs), "-o", str(output), *words]) == 0
    said = capsys.readouterr().out
    assert "tiny, NFE 2" in said
    assert "above the input" in said
    assert sorted(path.name for path in output.iterdir()) == sorted(FILES)
    summary = json.loads((output / "summary.json").read_text())
    assert list(summary["systems"]) == [INPUT, "tiny, NFE 1", "tiny, NFE 2"]
    assert summary["files"] == 3
    items = held_out(pairs)
    by_hand = [psnr_rgb(item["gt"].numpy(), item["lq"].numpy()) for item in (items[i] for i in range(3))]
    psnr = summary["systems"][INPUT]["metrics"]["psnr_rgb"]
    assert psnr["mean"] == pytest.approx(np.mean(by_hand))
    assert psnr["ci95"] > 0
    rows = list(csv.DictReader((output / "scores.csv").open()))
    assert len(rows) == 9
    gained = [float(rows[3 * i + 1]["psnr_rgb"]) - float(rows[3 * i]["psnr_rgb"]) for i in range(3)]
    assert summary["gains"]["tiny, NFE 1"]["psnr_rgb"]["mean"] == pytest.approx(np.mean(gained), abs=1e-4)
    page = (output / "report.html").read_text()
    assert page.count("whole picture") == 3 * 4
    assert main(["restoration", "evaluate", str(pairs), "-o", str(output), *words]) == 2  # nothing is overwritten
    assert "exists" in capsys.readouterr().err


def test_super_resolution_is_compared_with_bicubic(pairs: Path, tmp_path: Path) -> None:
    weights = tiny(tmp_path / "x2.safetensors", scale=2)
    options: dict[str, Any] = {"layout": "clean", "degradation": "bicubic", "workers": 0, "quiet": True}
    for name in ("train", "test"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for path in (pairs / "gt").iterdir():
        (tmp_path / "set/test" / path.name).write_bytes(path.read_bytes())
    summary = evaluate(tmp_path / "set", checkpoint=weights, protocol="upsr", **options)
    assert summary["scale"] == 2
    assert set(summary["systems"][INPUT]["metrics"]) == {"psnr_y_capped", "ssim_y_pyiqa"}
    assert summary["systems"][INPUT]["metrics"]["psnr_y_capped"]["mean"] > 15


def test_seeds_are_averaged(weights: Path, pairs: Path) -> None:
    options: dict[str, Any] = {"checkpoint": weights, "workers": 0, "quiet": True, "protocol": "lol"}
    one, other = (
        evaluate(pairs, seeds=[seed], **options)["systems"]["tiny, NFE 2"]["metrics"]["psnr_rgb_rounded"]
        for seed in (0, 7)
    )
    both = evaluate(pairs, seeds=[0, 7], **options)["systems"]["tiny, NFE 2"]["metrics"]["psnr_rgb_rounded"]
    assert one["mean"] != other["mean"]
    assert both["by_seed"] == pytest.approx([one["mean"], other["mean"]])
    assert both["mean"] == pytest.approx((one["mean"] + other["mean"]) / 2)


def test_degradation_is_the_same_for_the_same_seed(pairs: Path) -> None:
    first, again, other = (held_out(pairs / "gt", degradation="low-light", seed=seed)[0]["lq"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


def test_interrupted_evaluation_goes_on(
    weights: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"checkpoint": weights, "workers": 0, "quiet": True}
    evaluate(pairs, output=tmp_path / "whole", **options)
    calls = 0
    restore = PictureTrial.restore

    def interrupting(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return restore(*arguments)

    monkeypatch.setattr(PictureTrial, "restore", interrupting)
    output = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        evaluate(pairs, output=output, **options)
    assert [path.name for path in output.iterdir()] == [FOLDER]
    with pytest.raises(UserError, match="another seeds"):
        evaluate(pairs, output=output, **options, seeds=[1])
    evaluate(pairs, output=output, **options)
    assert calls == 3 + 1
    assert scores(output) == scores(tmp_path / "whole")


def test_a_bad_picture_is_told_of_at_the_end(
    weights: Path, pairs: Path, tmp_path: Path, save: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "set"
    for kind in ("lq", "gt"):
        for path in (pairs / kind).iterdir():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            (folder / kind / path.name).write_bytes(path.read_bytes())
    (folder / "lq/1.png").write_bytes(b"no picture")
    save(folder / "lq/2.png", np.zeros((5, 5, 3), np.uint8))
    words = ["--checkpoint", str(weights), "--workers", "0", "-o", str(tmp_path / "out"), "--quiet"]
    assert main(["restoration", "evaluate", str(folder), *words]) == 2
    said = capsys.readouterr().err
    assert "1.png" in said
    assert "5 x 5" in said
    assert said.strip().splitlines()[-1].endswith("2 of 3 pictures failed, see above; the others are scored")
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["files"] == 1
    assert len(summary["failed"]) == 2
    assert {row[0] for row in scores(tmp_path / "out")[1:]} == {"0"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "--limit"),
        ({"seeds": [1, 1]}, "twice"),
        ({"baseline": False}, "nothing to score"),
        ({"systems": ["a.safetensors:best:1"]}, "no sampler 'best'"),
        ({"systems": ["a.safetensors"], "steps": 3}, "leave --checkpoint, --sampler and --steps out"),
        ({"protocol": "istd"}, "all 3 pictures failed"),
        ({"scale": 4}, "all 3 pictures failed"),
        ({"lpips": Path("none.pth")}, "LPIPS needs"),
        ({"layout": "lol"}, "no folder"),
        ({"scale": 0}, "--scale 0 must be at least 1"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str, pairs: Path) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(pairs, **{"workers": 0, "quiet": True} | options)


def test_results_do_not_go_among_the_data(weights: Path, pairs: Path) -> None:
    with pytest.raises(UserError, match="is the folder of the data"):
        evaluate(pairs, checkpoint=weights, output=pairs / "gt" / "..")
    assert sorted(path.name for path in pairs.iterdir()) == ["gt", "lq"]


def test_checkpoints_of_one_name_are_told_apart(weights: Path, pairs: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tiny.safetensors").write_bytes(weights.read_bytes())
    options: dict[str, Any] = {"limit": 1, "steps": 1, "workers": 0, "quiet": True, "baseline": False}
    both = [tmp_path / folder / "tiny.safetensors" for folder in ("a", "b")]
    assert list(evaluate(pairs, checkpoint=both, **options)["systems"]) == ["a/tiny, NFE 1", "b/tiny, NFE 1"]
    with pytest.raises(UserError, match="'tiny, NFE 1': they are the same; leave one out"):
        evaluate(pairs, checkpoint=[weights, weights], **options)


def test_clean_pictures_need_a_degradation(pairs: Path) -> None:
    with pytest.raises(UserError, match="no clean partners of its pictures; name a --degradation"):
        evaluate(pairs / "gt", workers=0, quiet=True)


def test_systems() -> None:
    assert System.parse("a.safetensors:2m:5") == System(Path("a.safetensors"), "2m", 5)
    assert System.parse("a.safetensors::5") == System(Path("a.safetensors"), None, 5)
    assert len(combine([Path("a"), Path("b")], "ode", [1, 2])) == 4
    assert combine(None, None, None) == []
    for text in (":2m:5", "a:2m:five", "a:2m:5:more"):
        with pytest.raises(UserError):
            System.parse(text)


def test_equal_pictures_have_no_finite_score(pairs: Path, tmp_path: Path) -> None:
    for kind in ("lq", "gt"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "a.png").write_bytes((pairs / "gt/0.png").read_bytes())
    found = evaluate(tmp_path, workers=0, quiet=True)["systems"][INPUT]["metrics"]["psnr_rgb"]
    assert found["infinite"] == 1
    assert math.isnan(found["mean"])
