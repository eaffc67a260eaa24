"""How fast a run trains, and whether the data keep up."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils._pytree import tree_leaves

from ornstein.errors import UserError
from ornstein.training.data import ResumableLoader


class Throughput(Callback):
    """Logs, with the losses, `train/samples_per_second` of all ranks and `train/data_wait`.

    `data_wait` is the share of the time that this process spent waiting for its ResumableLoader, 0 to 1. Times are the
    host's, from one line of the log to the next, so nothing is synchronised (Lightning's ThroughputMonitor waits for
    the GPU at every step); reading the losses for that line has kept the host within a step of the device. Validation
    is left out. The first step, which compiles and allocates, begins the first period and is not in it.

    Args:
        every_n_steps: length of a period in optimizer steps; None takes the Trainer's log_every_n_steps.

    Raises:
        UserError: every_n_steps is less than 1.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise UserError(f"every_n_steps is {every_n_steps}; it must be at least 1")
        self.every_n_steps = every_n_steps
        self._since: float | None = None
        self._samples = 0
        self._waited = 0.0
        self._paused_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        every = self.every_n_steps or int(trainer.log_every_n_steps)  # type: ignore[attr-defined]  # a connector sets it
        if self._since is None:
            self._begin(trainer)
            return
        self._samples += _size(batch) * trainer.world_size
        if every == 0 or trainer.global_step % every or trainer.fit_loop._should_accumulate():
            return
        seconds = time.perf_counter() - self._since
        values = {"train/samples_per_second": self._samples / seconds}
        if _loaders(trainer):
            values["train/data_wait"] = (_waited(trainer) - self._waited) / seconds
        for name, value in values.items():  # on the host, where the progress bar reads them
            pl_module.log(name, torch.tensor(value), prog_bar=True, batch_size=1)
        self._begin(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._paused_at = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._since is not None:
            self._since += time.perf_counter() - self._paused_at

    def _begin(self, trainer: Trainer) -> None:
        self._since, self._samples, self._waited = time.perf_counter(), 0, _waited(trainer)


def _size(batch: Any) -> int:
    """Items in a batch: the length of its first tensor, as far as the default ways of making batches go."""
    return next((len(leaf) for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor) and leaf.ndim), 1)


def _loaders(trainer: Trainer) -> list[ResumableLoader]:
    combined = trainer.fit_loop._combined_loader
    return [loader for loader in combined.flattened if isinstance(loader, ResumableLoader)] if combined else []


def _waited(trainer: Trainer) -> float:
    return sum(loader.waited for loader in _loaders(trainer))
