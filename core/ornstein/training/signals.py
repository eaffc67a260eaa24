"""Signals that end or requeue a run: acted on between two steps, by all ranks together."""

from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException


class Signals:
    """Lets the ranks of a fit stop (SIGTERM) or save and requeue (SLURM's SIGUSR1) after the same step.

    Lightning 2.6 acts within the signal handler, where this rank may be halfway through a step and the others may be
    summing gradients, and broadcasts and reads a flag before each batch of a distributed run, so that the host never
    queues work ahead of the GPU. Here the handlers only take note, and the ranks compare notes every `every` steps.
    After SIGTERM a callback such as OnExceptionCheckpoint can save.
    """

    def __init__(self, trainer: Trainer, every: int = 10) -> None:
        self.trainer = trainer
        self.every = every if trainer.world_size > 1 else 1
        self.stop = False
        self.requeue: int | None = None
        self._connector: Any = trainer._signal_connector
        self._save_and_requeue: Any = self._connector._slurm_sigusr_handler_fn

    def install(self) -> None:
        """Take the place of Lightning's functions; before the fit registers its signal handlers."""
        self._connector._sigterm_notifier_fn = self.note_stop
        self._connector._slurm_sigusr_handler_fn = self.note_requeue
        loop: Any = self.trainer.fit_loop.epoch_loop
        loop._broadcast_sigterm_tensor = lambda: None

    def note_stop(self, signum: int, frame: FrameType | None) -> None:
        """The handler of SIGTERM."""
        launcher = self.trainer.strategy.launcher
        if not self.stop and launcher is not None:
            launcher.kill(signum)  # the processes that this one has started
        self.stop = True
        if not self.trainer.training:  # validation asks nobody; there the process stops by itself
            self._connector.received_sigterm = True

    def note_requeue(self, signum: int, frame: FrameType | None) -> None:
        """The handler of SLURM's signal that the time is nearly over."""
        self.requeue = signum

    def compare(self) -> None:
        """Between two steps: do what any rank has been told to; a synchronisation at every `every`-th step only."""
        if self.trainer.global_step % self.every:  # the same number on every rank
            return
        notes = torch.tensor([float(self.stop), float(self.requeue or 0)])
        if self.trainer.world_size > 1:
            notes = self.trainer.strategy.reduce(notes.to(self.trainer.strategy.root_device), reduce_op="max")
        stop, requeue = notes.tolist()
        if requeue:
            self.requeue = None
            self._save_and_requeue(int(requeue), None)
        if stop:
            self._connector.received_sigterm = True
            raise SIGTERMException
