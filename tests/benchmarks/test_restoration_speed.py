"""The parts of benchmarks/restoration_speed.py, and of what it shares, that need no GPU."""

import json
import sys
from pathlib import Path

import pytest
import torch

from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.residual_unet import ResidualUNet
from ornstein.objectives.outputs import OutputObjective
from ornstein.process.rddm import RDDM
from ornstein.residual_outputs import ResidualOutputs

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import restoration_speed as speed
import speed_rows
import timing


@pytest.mark.parametrize("name", speed.CASES)
def test_networks_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in speed.CASES[name].make().parameters())
    assert count == (119_418_319 if "Swin" in name else 36_261_187)
    x, t, y = speed.CASES[name].inputs("cpu")
    height, width = (4 * side for side in x.shape[2:]) if "Swin" in name else x.shape[2:]
    assert f"{height} x {width}" in name
    assert t.shape == (1,)
    assert y.shape[2:] == x.shape[2:]


def test_psnr() -> None:
    reference = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    worse = reference + 0.01 * reference.std()
    assert speed_rows.psnr(worse, reference) == pytest.approx(20 * torch.tensor(400.0).log10().item(), abs=1e-3)
    assert speed_rows.psnr(5 * worse, 5 * reference) == pytest.approx(speed_rows.psnr(worse, reference), abs=1e-3)
    assert speed_rows.psnr(reference, reference) == 200


def test_random_networks_show_rounding() -> None:
    """Layers that start at zero would hide it."""
    made = timing.random_network(lambda: torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)))
    again = timing.random_network(lambda: torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)))
    assert torch.equal(made[0].weight, again[0].weight)

    def silent() -> torch.nn.Module:
        layer = torch.nn.Linear(64, 64)
        torch.nn.init.zeros_(layer.weight)
        return layer

    assert timing.random_network(silent).weight.detach().std().item() == pytest.approx(1 / 8, rel=0.1)


@pytest.mark.parametrize("variant", ["eager float32", "eager bfloat16, channels last"])
def test_a_training_step_learns(variant: str) -> None:
    network = timing.random_network(lambda: ResidualUNet(dim=8, dim_mults=(1, 2)))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    x0, y = torch.randn(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).unbind()
    step = timing.one_step(Denoiser(network, RDDM(), ResidualOutputs("pred_res")), OutputObjective(), x0, y, variant)
    step()
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_a_variant_that_fails_has_a_row() -> None:
    def measure(variant: str) -> dict[str, float]:
        if variant == "bad":
            raise RuntimeError("out | of\nmemory")
        return {"ms": 1.0, "psnr": 50.0, "first_call_s": 2.0}

    name = "RDDM UNet, 256 x 256"
    found = {variant: speed_rows.attempt(measure, variant) for variant in ("good", "bad")}
    assert found["bad"] == {"failed": "RuntimeError: out | of"}
    steps = {"eager float32": {"ms": 300.0, "memory_gib": 20.0, "first_call_s": 1.0}}
    table = speed.markdown(
        {
            name: {"rows": found, "machine": "a machine"},
            speed.TRAINING: {"rows": steps, "machine": "a machine"},
        }
    )
    assert "| good | 1.0 | 50.0 | 2 |" in table
    assert "| bad | failed | RuntimeError: out / of |  |" in table
    assert "Published: 25.9 ms; goal: 4 ms. On a machine." in table
    assert "| eager float32 | 300.0 | 20.0 | 1 |" in table
    assert "Published: 279 ms; goal: 80 ms." in table


def test_results_and_table(tmp_path: Path) -> None:
    timing.write_json(tmp_path / "results.json", {"a": 1})
    timing.write_json(tmp_path / "results.json", {"a": 2})
    assert json.loads((tmp_path / "results.json").read_text()) == {"a": 2}
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- this -->\nold\n<!-- /this -->\nafter <!-- other --><!-- /other -->\n")
    timing.write_table("this", "new \\1\n", page)
    assert page.read_text() == "before\n<!-- this -->\nnew \\1\n<!-- /this -->\nafter <!-- other --><!-- /other -->\n"
    with pytest.raises(UserError, match="needs one place"):
        timing.write_table("missing", "new", page)
    assert "<!-- restoration speed -->" in timing.PAGE.read_text()


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["restoration_speed.py"])
    with pytest.raises(UserError, match="measures a GPU"):
        speed.main()
