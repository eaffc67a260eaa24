"""DDP and FSDP2 on two processes: one program, tiny_distributed.py, makes all runs, since starting it takes seconds."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import FSDPStrategy
from tiny_distributed import Plain, Recorded, run, validate
from tiny_training import make_task
from torch import nn

from ornstein.errors import UserError
from ornstein.networks.ncsnpp import NCSNpp
from ornstein.training.ema import EMA
from ornstein.training.fsdp import FSDP2, _blocks

PROGRAM = Path(__file__).parent / "tiny_distributed.py"
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}
AVERAGES = ("exponential-0.999", "power-0.1")
STRATEGIES = pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("distributed")
    done = subprocess.run([sys.executable, str(PROGRAM), str(out)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One process with the double batch, as two accumulated ones."""
    folder = tmp_path_factory.mktemp("alone")
    result = run(folder, "auto", devices=1, accumulate_grad_batches=2)
    return result | {"state": load(folder)}


def load(folder: Path, step: int = 5) -> dict[str, Any]:
    return torch.load(folder / f"step={step}.ckpt", weights_only=True)


def averages(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return next(state["averages"] for name, state in checkpoint["callbacks"].items() if name.startswith("EMA"))


@STRATEGIES
def test_losses_are_those_of_one_process_with_the_double_batch(
    strategy: str, ranks: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    in_turn = [loss for pair in zip(*(rank[strategy]["losses"] for rank in ranks), strict=True) for loss in pair]
    assert len(in_turn) == 10
    assert in_turn == pytest.approx(alone["losses"], rel=1e-5)
    assert ranks[0][strategy]["losses"] != ranks[1][strategy]["losses"]  # other items, other draws


@STRATEGIES
def test_checkpoint_is_that_of_one_process(strategy: str, folder: Path, alone: dict[str, Any]) -> None:
    """Whole tensors with the plain names: raw weights, averages, moments."""
    found, expected = load(folder / strategy), alone["state"]
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    for name, tensor in expected["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][name], tensor, **CLOSE)
    for average in AVERAGES:
        one, other = averages(found)[average], averages(expected)[average]
        assert one["updates"] == other["updates"] == 5
        for name, tensor in other["tensors"].items():
            torch.testing.assert_close(one["tensors"][name], tensor, **CLOSE)
    one, other = (checkpoint["optimizer_states"][0]["state"] for checkpoint in (found, expected))
    assert one.keys() == other.keys()
    for number, moments in other.items():
        torch.testing.assert_close(one[number]["exp_avg"], moments["exp_avg"], **CLOSE)


@STRATEGIES
def test_validation_mean_is_that_of_one_process(
    strategy: str, folder: Path, ranks: list[dict[str, Any]], alone: dict[str, Any], tmp_path: Path
) -> None:
    """5 items on two ranks: one of them repeats an item, which must not count. Validation runs on the averages."""
    for rank in ranks:
        assert float(rank[strategy]["metrics"]["val/loss"]) == pytest.approx(
            float(alone["metrics"]["val/loss"]), rel=1e-5
        )
    expected = validate(tmp_path, "auto", folder / strategy / "step=5.ckpt", devices=1)
    assert [rank[f"{strategy} validated"] for rank in ranks] == pytest.approx([expected] * 2, rel=1e-6)


@STRATEGIES
def test_training_metrics_are_means_over_the_ranks(strategy: str, ranks: list[dict[str, Any]]) -> None:
    logged = 3  # the first step of the second epoch is read last
    expected = sum(rank[strategy]["losses"][logged] for rank in ranks) / 2
    assert [float(rank[strategy]["metrics"]["train/loss"]) for rank in ranks] == pytest.approx([expected] * 2)


@STRATEGIES
def test_resumed_run_is_the_uninterrupted_one(strategy: str, folder: Path, ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank[f"{strategy} resumed"]["losses"] == rank[strategy]["losses"][4:]
    whole, resumed = load(folder / strategy), load(folder / f"{strategy}_resumed")
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], tensor), name
    for average in AVERAGES:
        for name, tensor in averages(whole)[average]["tensors"].items():
            assert torch.equal(averages(resumed)[average]["tensors"][name], tensor), name


@STRATEGIES
def test_all_ranks_refuse_what_is_not_finite_on_one(strategy: str, folder: Path, ranks: list[dict[str, Any]]) -> None:
    """At the next checkpoint, which is not written; the NaN of rank 1 has reached no weight of any rank."""
    messages = {rank[f"{strategy} holes"]["message"] for rank in ranks}
    assert len(messages) == 1
    assert "the loss is not finite at step 1 on rank 1 (loss nan)" in messages.pop()
    assert all(rank[f"{strategy} holes"]["sound"] for rank in ranks)
    assert [path.name for path in (folder / f"{strategy}_holes").iterdir()] == ["step=1.ckpt"]


@pytest.mark.parametrize(("one", "other"), [("ddp", "fsdp2"), ("fsdp2", "ddp")])
def test_resumed_with_another_strategy(one: str, other: str, folder: Path, ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank[f"{other} after {one}"]["losses"] == pytest.approx(rank[one]["losses"][4:], rel=1e-5)
    whole, resumed = load(folder / one), load(folder / f"{other}_after")
    for name, tensor in whole["state_dict"].items():
        torch.testing.assert_close(resumed["state_dict"][name], tensor, **CLOSE)
    for number, moments in whole["optimizer_states"][0]["state"].items():
        torch.testing.assert_close(resumed["optimizer_states"][0]["state"][number], moments, **CLOSE)
    for average in AVERAGES:
        for name, tensor in averages(whole)[average]["tensors"].items():
            torch.testing.assert_close(averages(resumed)[average]["tensors"][name], tensor, **CLOSE)


def test_weights_are_split_under_fsdp_only(ranks: list[dict[str, Any]]) -> None:
    name = "denoiser.network.layers.0.weight"
    assert [rank["ddp"]["shapes"][name] for rank in ranks] == [(15, 13), (15, 13)]
    assert [rank["fsdp2"]["shapes"][name] for rank in ranks] == [(8, 13), (7, 13)]


def test_ranks_stop_together_and_save(folder: Path, ranks: list[dict[str, Any]]) -> None:
    """Only rank 0 got the signal."""
    steps = {rank["stopped"] for rank in ranks}
    assert len(steps) == 1
    saved = torch.load(folder / "stopped/rescued.ckpt", weights_only=True)
    assert saved["global_step"] == steps.pop() > 0


def test_blocks_are_the_outermost_large_ones() -> None:
    network = NCSNpp(nf=8, ch_mult=(1, 1, 2, 2), num_res_blocks=1, attn_resolutions=())
    every, none = _blocks(network, 1), _blocks(network, 10**6)
    assert none == []
    assert {id(block) for block in every} <= {id(layer) for layer in network.all_modules}
    sizes = [sum(weight.numel() for weight in block.parameters()) for block in _blocks(network, 1000)]
    assert len(sizes) > 5
    assert min(sizes) >= 1000
    nested = nn.ModuleList([nn.ModuleList([nn.Linear(2, 2), nn.Linear(9, 9)]), nn.Sequential(nn.Linear(9, 9))])
    assert _blocks(nn.Sequential(nested), 50) == [nested[0][1], nested[1]]


def test_half_precision_with_a_scaler_is_refused() -> None:
    strategy = FSDP2()
    strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises(UserError, match="bf16-mixed"):
        strategy.setup_environment()


def test_averages_refuse_the_strategy_that_flattens_weights() -> None:
    trainer = SimpleNamespace(strategy=FSDPStrategy())
    with pytest.raises(UserError, match="fsdp2"):
        EMA().on_fit_start(trainer, make_task(Recorded))  # type: ignore[arg-type]


def test_nothing_is_split_without_a_mesh() -> None:
    task = make_task(Recorded)
    task.configure_model()
    assert type(task.denoiser.network) is Plain
