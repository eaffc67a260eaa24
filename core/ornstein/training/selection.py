"""What follows when automatic objective selection has chosen: new weights for one objective (RDDM's AOSA)."""

from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from ornstein.config import build, describe
from ornstein.errors import UserError
from ornstein.objectives.selection import AutomaticObjectiveSelection
from ornstein.parameterization import Parameterization
from ornstein.training.ema import EMA
from ornstein.training.seeds import derive_seed
from ornstein.training.task import Task
from ornstein.wrapped_parameterizations import Wrapped


class ObjectiveSelection(Callback):
    """Carries out the choice of the Task's `AutomaticObjectiveSelection`, in the same run.

    After the step that makes the choice, the network begins anew with other initial weights, the optimizer and the
    averages of `EMA` forget the old ones, and the denoiser's parameterization becomes that of the objective, for
    sampling and export. The learning rate schedule goes on. A resumed run finds the choice in its checkpoint.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        _objective(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if pl_module.device_mesh is not None:
            raise UserError("automatic objective selection begins with new weights, which are not sharded; use ddp")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _read_as_chosen(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _read_as_chosen(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _read_as_chosen(pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _read_as_chosen(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        task, objective = _objective(pl_module)
        if objective.held or objective.choice is None:
            return
        balance = float(objective.balance.detach())
        objective.decide()
        _begin_anew(task.denoiser.network, derive_seed(task.seed, "selection"))
        for optimizer in trainer.optimizers:
            optimizer.state.clear()
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # a connector sets it
            if isinstance(callback, EMA):
                callback.restart(pl_module)
        _read_as_chosen(pl_module)
        rank_zero_info(
            f"step {trainer.global_step}: lam is {balance:.4f}; the {objective.choice} is learned from here on, "
            "with new weights"
        )


def _objective(pl_module: LightningModule) -> tuple[Task, AutomaticObjectiveSelection]:
    objective = getattr(pl_module, "objective", None)
    if not isinstance(pl_module, Task) or not isinstance(objective, AutomaticObjectiveSelection):
        raise UserError(
            "ObjectiveSelection serves AutomaticObjectiveSelection; make that the objective, or leave the callback out"
        )
    return pl_module, objective


def _read_as_chosen(pl_module: LightningModule) -> None:
    task, objective = _objective(pl_module)
    if objective.held and objective.parameterization is not None:
        task.denoiser.parameterization = _with_inner(task.denoiser.parameterization, objective.parameterization)


def _with_inner(parameterization: Parameterization, inner: Parameterization) -> Parameterization:
    """`inner`, in what is wrapped around the present one."""
    if not isinstance(parameterization, Wrapped):
        return inner
    return replace(parameterization, parameterization=_with_inner(parameterization.parameterization, inner))


def _begin_anew(network: nn.Module, seed: int) -> None:
    """Other initial weights, the same on every rank."""
    try:
        spec = describe(network)
    except TypeError as error:
        raise UserError(f"the network cannot begin with new weights: {error}; take a network of the package") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.load_state_dict(build(spec, nn.Module).state_dict())
