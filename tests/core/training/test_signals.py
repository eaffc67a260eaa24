"""SIGTERM and SLURM's requeue signal in one process; test_distributed.py has them in two."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import OnExceptionCheckpoint
from test_resume import assert_equal
from tiny_training import Points, make_task, make_trainer

from ornstein.training.data import ResumableLoader
from ornstein.training.ema import EMA
from ornstein.training.task import Task


class Halfway(Task):
    """Gets a signal in the middle of its fourth step, when the gradient is there and the weights have not moved."""

    signal: int | None = None

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        if self.global_step == 3 and self.signal is not None:
            os.kill(os.getpid(), self.signal)


def fit(folder: Path, number: int | None, *callbacks: Callback) -> dict[str, Any]:
    """Nine steps, from an epoch of seven; the state at the end."""
    task, ema = make_task(Halfway), EMA()
    task.signal = number
    options = {"max_steps": 9, "save": {"every_n_epochs": 9}, "default_root_dir": folder}
    trainer = make_trainer(folder, ema, *callbacks, **options)
    trainer.fit(task, ResumableLoader(Points(), 2, train=True, seed=5))
    return {"weights": task.state_dict(), "ema": ema.state_dict(), "optimizer": trainer.optimizers[0].state_dict()}


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The environment of a batch job of one task; returns the file that the stand-in for scontrol writes to."""
    names = {"NTASKS": "1", "JOB_ID": "77", "JOB_NAME": "fit", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in (names | {"NTASKS_PER_NODE": "1", "JOB_NODELIST": "localhost"}).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/requeued\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return tmp_path / "requeued"


def test_requeued_job_goes_on_as_if_it_had_not_been_stopped(slurm: Path, tmp_path: Path) -> None:
    """The signal comes within a step; what is saved is the state between two steps."""
    whole = fit(tmp_path / "whole", None)
    fit(tmp_path / "job", signal.SIGUSR1)
    assert slurm.read_text() == "requeue 77\n"
    saved = torch.load(tmp_path / "job/hpc_ckpt_1.ckpt", weights_only=True)
    assert saved["global_step"] == 4
    assert_equal(fit(tmp_path / "job", None), whole)  # found without being named


def test_sigterm_ends_the_run_between_two_steps(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        fit(tmp_path, signal.SIGTERM, OnExceptionCheckpoint(tmp_path, "rescued"))
    assert torch.load(tmp_path / "rescued.ckpt", weights_only=True)["global_step"] == 4
