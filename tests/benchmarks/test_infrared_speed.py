"""The parts of benchmarks/infrared_speed.py that need no GPU."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ornstein.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import infrared_speed as speed


def test_networks_are_those_of_the_publication_and_of_the_recipe() -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in speed.CASES[speed.CALL].make().parameters())
    assert count == 118_593_583
    recipe = yaml.safe_load((Path(__file__).parents[2] / "configs/infrared/roadscene_pixel.yaml").read_text())
    options = recipe["model"]["denoiser"]["init_args"]["network"]["init_args"]
    assert {name: list(v) if isinstance(v, tuple) else v for name, v in speed.SMALL.keywords.items()} == options


def test_whole_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SIDE", 32)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    row = speed.whole(speed.small, 1, "cpu", "eager float32")
    assert row["ms"] > 0
    assert len(speed.WHOLE) == 4


def test_page_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(iter(speed.WHOLE))
    results: dict[str, Any] = {
        speed.CALL: {"rows": {"a": {"ms": 7.5, "psnr": 50.0, "first_call_s": 3.0}}, "machine": "M"},
        name: {"rows": {"a": {"ms": 80.0, "first_call_s": 3.0}, "b": {"failed": "Error: a|b"}}, "machine": "M"},
    }
    table = speed.markdown(json.loads(json.dumps(results)))
    assert "| a | 7.5 | 50.0 | 3 |" in table
    assert "| b | failed | Error: a/b |" in table
    assert "Published: 63.0 ms; goal: 8 ms. On M." in table
    monkeypatch.setattr(speed, "RESULT", tmp_path / "none.json")
    monkeypatch.setattr(sys, "argv", ["infrared_speed.py", "--table"])
    with pytest.raises(UserError, match="run this without --table"):
        speed.main()
