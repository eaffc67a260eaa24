"""SIGTERM in distributed training: all ranks leave together, and no step waits for the device to ask whether to."""

from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException


class StopTogether:
    """Lets all ranks of a distributed fit stop after the same batch when one of them is told to.

    Lightning 2.6 broadcasts a flag and reads it before each batch, so the host never queues work ahead of the GPU, and
    broadcasts again within the signal handler, where the other ranks may be summing gradients. Here the handler only
    takes note and the ranks compare notes every `every` batches. A callback such as OnExceptionCheckpoint then saves.
    """

    def __init__(self, trainer: Trainer, every: int) -> None:
        self.trainer = trainer
        self.every = every
        self.told = False

    def install(self) -> None:
        """Take the place of Lightning's two functions; before the fit registers its signal handlers."""
        connector: Any = self.trainer._signal_connector
        connector._sigterm_notifier_fn = self.note
        loop: Any = self.trainer.fit_loop.epoch_loop
        loop._broadcast_sigterm_tensor = self.compare

    def note(self, signum: Any, frame: FrameType | None) -> None:
        """The signal handler."""
        launcher = self.trainer.strategy.launcher
        if not self.told and launcher is not None:
            launcher.kill(signum)  # the processes that this one has started
        self.told = True
        if not self.trainer.training:  # validation asks nobody; there the process stops by itself
            self.trainer._signal_connector.received_sigterm = True

    def compare(self) -> None:
        """Before a batch: stop if any rank has been told to."""
        if self.trainer.fit_loop.epoch_loop.total_batch_idx % self.every:  # the same number on every rank
            return
        told = torch.tensor(float(self.told), device=self.trainer.strategy.root_device)
        if float(self.trainer.strategy.reduce(told, reduce_op="max")) > 0:
            self.trainer._signal_connector.received_sigterm = True
            raise SIGTERMException
