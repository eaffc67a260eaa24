"""Corrections to Lightning's counters, without which some resumed runs are not the run that was interrupted."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn


def correct_counters(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Make a checkpoint taken at the end of an epoch resume with the first batch of the next one, and one taken where
    a run stopped within an epoch (max_steps, max_time) with the next batch of that epoch; edits `checkpoint`.

    With max_steps, Lightning 2.6 counts the finished epoch twice: it announces the wrong epoch to the loader (so one
    epoch of the data is never seen) and, without validation, appends a batch to the finished epoch. With max_epochs,
    and within an epoch, it is right. A run that stops within an epoch saves as if that epoch were over: extended, it
    would never see the rest.
    """
    if trainer.state.fn != TrainerFn.FITTING:
        return
    loop = checkpoint["loops"]["fit_loop"]
    total, current = loop["epoch_progress"]["total"], loop["epoch_progress"]["current"]
    batches = loop["epoch_loop.batch_progress"]
    if not current["processed"] == current["ready"] == current["completed"] + 1:
        return
    if not batches["is_last_batch"]:
        for progress in (total, current):
            progress["processed"] -= 1
    elif trainer.max_steps != -1:
        total["completed"], current["completed"] = total["processed"], current["processed"]
        batches["current"] = dict.fromkeys(batches["current"], 0)
        batches["is_last_batch"] = False
