"""The part of benchmarks/speech_quality.py that makes tables and statements of stored rows."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import speech_quality as quality

from ornstein.analysis.statistics import interval
from ornstein.errors import UserError
from ornstein.report import write_json


def row(sampler: str, steps: int, calls: int, shift: float, machine: str = "A", spread: float = 0.1) -> dict[str, Any]:
    """A row whose scores are those of the reference, moved by `shift` on average."""
    rng = np.random.default_rng(steps + calls)
    common = np.random.default_rng(0).normal(size=24)
    scores = {name: list(2 + common + shift + spread * rng.normal(size=24)) for name in ("pesq", "estoi", "si_sdr")}
    found = {name: interval(values) for name, values in scores.items()}
    metrics = {name: {"mean": f.mean, "ci95": f.half_width} for name, f in found.items()}
    return {
        "system": "net", "checkpoint": "net", "sha256": "0", "sampler": sampler, "grid": None, "steps": steps,
        "nfe": calls, "machine": machine, "rtf": 0.5, "metrics": metrics, "scores": scores, "by_snr": {},
    }  # fmt: skip


def test_statement_names_the_fewest_calls_that_reach() -> None:
    reference = row("pc", 30, 60, 0.0)
    rows = [
        reference,
        row("2m", 5, 5, -0.3),
        row("2m", 10, 10, 0.02),
        row("2m", 15, 15, 0.02),
        row("ode", 30, 30, -0.3),
    ]
    assert quality.reaches(rows[2], reference)
    assert not quality.reaches(rows[1], reference)  # inside the wide interval of the mean, but lower on every file
    text = "\n".join(quality.statement(rows))
    assert "| net, 2m | 10 | 10 |" in text
    assert "| net, ode | none; PESQ is best at 30 | 30 | -0.3" in text
    assert "| 15 |" not in text
    assert "no solver does with fewer." in "\n".join(quality.statement([reference, rows[1]]))
    assert quality.statement(rows[1:]) == []
    lacking = row("2m", 10, 10, 0.02)
    lacking["scores"]["pesq"][0] = None
    assert math.isfinite(quality.difference(lacking, reference, "pesq").low)


def test_rows_of_two_machines_stand_side_by_side() -> None:
    results = {"data": "set", "mixes": 24, "seed": 0, "rows": [row("2m", 5, 5, 0.0), row("2m", 10, 10, 0.0)]}
    other = row("2m", 5, 5, 0.0, machine="B") | {"rtf": 0.01}
    results = quality.merged(results, [other])
    assert len(results["rows"]) == 3
    table = quality.markdown(results)
    assert table.count("| net, 2m | 5 | 5 |") == 1
    assert "| 0.5 | 0.01 |" in table
    assert "| 0.5 | - |" in table
    assert "RTF B: B." in table
    assert len(quality.merged(results, [other | {"rtf": 0.02}])["rows"]) == 3


def test_results_of_other_mixes_are_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"mixes": 24, "rows": []})
    with pytest.raises(UserError, match="mixes"):
        quality.load(tmp_path / "a.json", {"mixes": 12})
