"""Automatic objective selection in a run: the choice, new weights, resuming, export."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from tiny_training import make_trainer

from ornstein.checkpoint import export, load
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.unet import UNet
from ornstein.objectives.outputs import OutputObjective
from ornstein.objectives.selection import AutomaticObjectiveSelection
from ornstein.process.rddm import RDDM
from ornstein.residual_outputs import ResidualOutputs
from ornstein.samplers.compat_residual import PublishedResidual
from ornstein.training.data import ResumableLoader
from ornstein.training.ema import EMA
from ornstein.training.selection import ObjectiveSelection
from ornstein.training.task import Task
from ornstein.wrapped_parameterizations import HiddenObservation


class Pictures:
    """Pairs whose residual is always 0.2: easy to learn, unlike the noise."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Any]:
        x0 = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(index)) - 0.5
        return {"x0": x0, "y": x0 + 0.2}


class Watching(ObjectiveSelection):
    """Notes the weights before and after the choice."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []
        self.chosen_at: list[int] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *others: Any) -> None:
        before, held = pl_module.denoiser.network.first.weight.detach().clone(), pl_module.objective.held
        super().on_train_batch_end(trainer, pl_module, *others)
        if pl_module.objective.held and not held:
            self.chosen_at.append(trainer.global_step)
            self.weights = [before, pl_module.denoiser.network.first.weight.detach().clone()]
            assert not trainer.optimizers[0].state


def make_task(objective: Any = None, lr: float = 4e-3) -> Task:
    torch.manual_seed(0)
    denoiser = Denoiser(UNet(1, 8, 1), RDDM(10), HiddenObservation(ResidualOutputs("pred_res")))
    selecting = AutomaticObjectiveSelection() if objective is None else objective
    return Task(denoiser, selecting, PublishedResidual(2), lambda weights: torch.optim.Adam(weights, lr=lr))


def fit(folder: Path, task: Task, *callbacks: Any, steps: int = 8, **options: Any) -> Trainer:
    trainer = make_trainer(folder, *callbacks, max_steps=steps, save={"every_n_train_steps": 4})
    loaders = ResumableLoader(Pictures(), 2, train=True), ResumableLoader(Pictures(), 2, train=False)
    trainer.fit(task, *loaders, **options)
    return trainer


def test_a_run_chooses_and_begins_anew(tmp_path: Path) -> None:
    task, selection, ema = make_task(), Watching(), EMA(decay=0.99)
    fit(tmp_path, task, selection, ema)
    assert isinstance(task.objective, AutomaticObjectiveSelection)
    choice = task.objective.choice
    assert choice == "residual"  # its error is the smaller one
    assert len(selection.chosen_at) == 1  # 3 or 4 steps of 0.004 make 0.01
    chosen = selection.chosen_at[0]
    assert 2 <= chosen <= 6
    assert not torch.allclose(*selection.weights)
    assert task.denoiser.parameterization == HiddenObservation(ResidualOutputs("pred_res"))
    assert ema.averages["exponential-0.99"].updates == 8 - chosen + 1
    # validation, the files and a resumed run know the choice
    checkpoint = sorted(tmp_path.glob("*.ckpt"))[-1]
    export(checkpoint, tmp_path / "model.safetensors")
    assert load(tmp_path / "model.safetensors").denoiser.parameterization == task.denoiser.parameterization
    again = make_task()
    again.denoiser.parameterization = HiddenObservation(ResidualOutputs("pred_noise"))
    second = Watching()
    fit(tmp_path / "again", again, second, EMA(decay=0.99), steps=12, ckpt_path=checkpoint)
    assert second.chosen_at == []
    assert again.denoiser.parameterization == task.denoiser.parameterization


def test_the_noise_is_a_choice_as_well(tmp_path: Path) -> None:
    task, selection = make_task(), Watching()
    with torch.no_grad():
        task.objective.balance.fill_(0.4)  # type: ignore[union-attr]
    fit(tmp_path, task, selection, steps=3)
    assert selection.chosen_at == [1]
    assert task.objective.choice == "noise"  # type: ignore[union-attr]
    assert task.denoiser.parameterization == HiddenObservation(ResidualOutputs("pred_noise"))


def test_two_runs_begin_anew_alike(tmp_path: Path) -> None:
    runs = []
    for name in "ab":
        task = make_task()
        fit(tmp_path / name, task, Watching(), steps=6)
        runs.append(task.denoiser.state_dict())
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_it_serves_one_objective(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make that the objective"):
        fit(tmp_path, make_task(OutputObjective()), ObjectiveSelection(), steps=1)


def test_sharded_networks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    ObjectiveSelection().on_fit_start(Trainer(logger=False), task)
    monkeypatch.setattr(Task, "device_mesh", "two devices")
    with pytest.raises(UserError, match="use ddp"):
        ObjectiveSelection().on_fit_start(Trainer(logger=False), task)
