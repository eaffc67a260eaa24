"""A correction to Lightning's counters, without which some resumed runs are not the run that was interrupted."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn


def begin_next_epoch(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Make a checkpoint taken at the end of an epoch resume with the first batch of the next one; edits `checkpoint`.

    With max_steps, Lightning 2.6 counts the finished epoch twice: it announces the wrong epoch to the loader (so one
    epoch of the data is never seen) and, without validation, appends a batch to the finished epoch. With max_epochs,
    and within an epoch, it is right.
    """
    if trainer.state.fn != TrainerFn.FITTING or trainer.max_steps == -1:
        return
    loop = checkpoint["loops"]["fit_loop"]
    total, current = loop["epoch_progress"]["total"], loop["epoch_progress"]["current"]
    if current["processed"] == current["ready"] == current["completed"] + 1:
        total["completed"], current["completed"] = total["processed"], current["processed"]
        batches = loop["epoch_loop.batch_progress"]
        batches["current"] = dict.fromkeys(batches["current"], 0)
        batches["is_last_batch"] = False
