"""How far a training is, in its progress bar."""

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar


class RunBar(TQDMProgressBar):
    """Lightning's bar over the batches of an epoch, which also says how much of the run is done.

    Lightning itself counts epochs from 0 and against a limit in epochs alone, -2 where the limit is one of steps.
    """

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        bar = self.train_progress_bar  # not by Lightning's method, which shows its own count first
        bar.set_description(position(trainer), refresh=False)
        bar.reset()
        bar.total = None if math.isinf(self.total_train_batches) else int(self.total_train_batches)
        bar.initial = 0
        bar.refresh()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.train_progress_bar.set_description(position(trainer), refresh=False)
        super().on_train_batch_end(trainer, pl_module, *args)


def position(trainer: Trainer) -> str:
    """The epoch, counted from 1, and the steps of the optimizer that are done, each with its limit if there is one."""
    epoch = f"Epoch {trainer.current_epoch + 1}"
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        epoch += f" of {trainer.max_epochs}"
    return epoch if trainer.max_steps < 0 else f"{epoch}, step {trainer.global_step} of {trainer.max_steps}"
