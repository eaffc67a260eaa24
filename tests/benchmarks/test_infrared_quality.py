"""The rows of benchmarks/infrared_quality.py and the tables made of them."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ornstein.analysis.statistics import interval

sys.path.insert(0, str(Path(__file__).parents[1] / "apps/infrared"))

from benchmarks import infrared_quality as quality
from infrared_models import model


def row(system: str, sampler: str | None, asked: int | None, shift: float, **more: Any) -> dict[str, Any]:
    values = list(20 + shift + np.random.default_rng(0).normal(size=8))
    found = interval(values)
    metrics = {name: {"mean": found.mean, "ci95": found.half_width} for name in quality.NAMES}
    return {
        "data": "RoadScene", "system": system, "sha256": None if sampler is None else system, "sampler": sampler,
        "asked": asked, "guidance": None if sampler is None else "off", "strength": None, "machine": "A",
        "metrics": metrics, "scores": dict.fromkeys(quality.NAMES, values), "seconds": 0.5, "nfe": asked or 15,
        "control": False,
    } | more  # fmt: skip


def test_tables() -> None:
    rows = [
        row("ours", "stored", None, 1.0),
        row("ours", "sde", 1, 1.2),
        row("ours", "unipc", 4, 1.3),
        row("ours", "stored", None, 1.5, guidance="spectrum", strength=0.01),
        row("control", "stored", None, 2.0, control=True),
        row("input", None, None, 0.0),
    ]
    results = quality.merged({"about": "frames", "rows": []}, rows)
    assert results["rows"][0]["system"] == "input"
    table = quality.markdown(results)
    assert "| bicubic | " in table
    assert "+1.000 [+1.000, +1.000]" in table  # ours above bicubic, on the same frames
    assert "control (regression)" in table
    assert "| ours, spectrum 0.01 | +0.500 [+0.500, +0.500]" in table  # guided less unguided
    assert "| sampler | 1 | 4 |" in table
    assert "| unipc | - | 21." in table
    assert len(quality.merged(results, rows[:1])["rows"]) == 6


def test_table_goes_between_the_markers(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    quality.write_table({"about": "frames", "rows": [row("ours", "stored", None, 2.0)]}, readme)
    text = readme.read_text()
    assert text.startswith("before\n<!-- results -->\n| RoadScene")
    assert text.endswith("<!-- /results -->\nafter\n")
    assert "old" not in text


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    rng = np.random.default_rng(0)
    for i in range(3):
        (tmp_path / "roadscene").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 64)).astype(np.uint8)).save(tmp_path / f"roadscene/{i}.png")
    return argparse.Namespace(
        roadscene=tmp_path / "roadscene", m3fd=tmp_path / "none", frames=20, device="cpu", precision="auto",
        compile=False, workers=0, work=tmp_path / "work", again=False, samplers=list(quality.SAMPLERS),
        steps=[1, 3, 15], guidance=["spectrum", "both"], strengths=[0.01], features="filters",
    )  # fmt: skip


def test_every_row_comes_as_soon_as_it_is_measured(
    tmp_path: Path, options: argparse.Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = model(tmp_path / "ours.safetensors", scale=4, size=0.05)
    control = model(tmp_path / "control.safetensors", scale=4, regression=True)
    found = list(quality.measure(weights, options, set()))
    said = capsys.readouterr().err
    assert "left out: M3FD" in said
    assert {(r["sampler"], r["asked"]) for r in found} >= {(None, None), ("stored", None), ("sde", 1), ("lml", 3)}
    assert all(r["asked"] != 15 for r in found)  # it has 4 levels
    assert {r["guidance"] for r in found} == {None, "off", "spectrum", "both"}
    assert len(found[1]["metrics"]["psnr_gray"]["by_seed"]) == 3
    assert "lite0" in found[1]["metrics"]
    json.dumps(found)
    again = list(quality.measure(weights, options, {quality.key(r) for r in found}))
    assert again == []
    (one,) = quality.measure(control, options, {quality.key(r) for r in found})
    assert one["control"]
    psnr = [r["metrics"]["psnr_gray"]["mean"] for r in (found[0], one)]
    assert psnr[0] == pytest.approx(psnr[1], abs=0.01)  # a residual of 0 is the enlargement
    text = quality.markdown(quality.merged({"about": "frames", "rows": []}, [*found, one]))
    assert "ours, both 0.01" in text
