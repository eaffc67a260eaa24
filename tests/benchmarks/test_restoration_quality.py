"""The rows of benchmarks/restoration_quality.py and the tables made of them."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import restoration_quality as quality
from PIL import Image

from ornstein import checkpoint
from ornstein.analysis.statistics import interval
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.unet import UNet
from ornstein.parameterization import OneShot
from ornstein.process.residual_shift import ResidualShift
from ornstein.samplers.ancestral import Ancestral
from ornstein_restoration.representation import PictureSpace


def row(system: str, sampler: str | None, asked: int | None, shift: float, control: bool = False) -> dict[str, Any]:
    values = list(20 + shift + np.random.default_rng(0).normal(size=8))
    found = interval(values)
    metrics = {name: {"mean": found.mean, "ci95": found.half_width} for name in quality.NAMES}
    return {
        "task": "rain", "scale": 1, "system": system, "sha256": None if sampler is None else "0", "sampler": sampler,
        "asked": asked, "machine": "A", "metrics": metrics, "scores": dict.fromkeys(quality.NAMES, values),
        "seconds": 0.5, "nfe": asked or 5, "control": control,
    }  # fmt: skip


def test_tables() -> None:
    rows = [
        row("rain", "stored", None, 2.0),
        row("rain", "native", 1, 1.0),
        row("rain", "unipc", 3, 1.5),
        row("rain-regression", "stored", None, 1.0, control=True),
        row("input", None, None, 0.0),
    ]
    results = quality.merged({"data": "set", "rows": []}, rows)
    assert results["rows"][0]["system"] == "input"
    table = quality.markdown(results)
    assert "+1.000 [+1.000, +1.000]" in table  # above the control, on the same pictures
    assert "rain-regression (regression)" in table
    assert "| sampler | 1 | 3 |" in table
    assert "| unipc | - | 2" in table
    assert len(quality.merged(results, rows[:1])["rows"]) == 5


def test_table_goes_between_the_markers(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    quality.write_table({"data": "set", "rows": [row("rain", "stored", None, 2.0)]}, readme)
    text = readme.read_text()
    assert text.startswith("before\n<!-- results -->\n| task")
    assert text.endswith("<!-- /results -->\nafter\n")
    assert "old" not in text


def test_every_row_comes_as_soon_as_it_is_measured(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "low-light.safetensors"
    denoiser = Denoiser(UNet(channels=3, width=8, levels=1), ResidualShift(steps=4), OneShot())
    sampler = Ancestral(steps=2, eta=0.0)
    checkpoint.save(weights, denoiser, app="restoration", representation=PictureSpace(), sampler=sampler)
    (tmp_path / "test").mkdir()
    (tmp_path / "train").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (2, 24, 24, 3), dtype=np.uint8)
    for i, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / "test" / f"{i}.png")
    options = argparse.Namespace(
        data=tmp_path, pictures=2, device="cpu", precision="auto", compile=False, workers=0, work=tmp_path / "work",
        again=False, samplers=list(quality.SAMPLERS), steps=[1, 3, 10],
    )  # fmt: skip
    rows = []
    for found in quality.measure(weights, options, set()):
        rows.append(found)
        if len(rows) == 3:
            break  # cut off: three rows are there
    there = {quality.key(found) for found in rows}
    rest = list(quality.measure(weights, options, there))
    assert {found["sampler"] for found in rows + rest} == {None, "stored", *quality.SAMPLERS}
    assert not there & {quality.key(found) for found in rest}
    assert len(rows) + len(rest) == 2 + 2 * len(quality.SAMPLERS)  # 10 steps are more than the levels
    assert {found["asked"] for found in rest} <= {None, 1, 3}
    assert all(np.isfinite(found["scores"]["psnr_rgb"]).all() for found in rest)


def test_names_say_the_task() -> None:
    assert quality.task_of(Path("low_light-mine.safetensors")) == "low-light"
    with pytest.raises(UserError, match="begins with none of"):
        quality.task_of(Path("mine.safetensors"))
