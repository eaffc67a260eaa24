"""Runs on two processes (gloo) under DDP and FSDP2, for test_distributed.py: python tiny_distributed.py OUT."""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import OnExceptionCheckpoint
from tiny_training import CHANNELS, Points, make_task, make_trainer
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein.training.data import ResumableLoader
from ornstein.training.ema import EMA
from ornstein.training.task import Task

STEPS = 5


class Plain(nn.Module):
    """A perceptron with a frozen part, in blocks that FSDP2 may split; no running statistics, no dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * CHANNELS + 1, 15), nn.SiLU(), nn.Linear(15, CHANNELS))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.layers(torch.cat([x, y, t[:, None]], dim=1)) * self.frozen.mean()


class Recorded(Task):
    """Keeps the loss of every batch, and the weights that validation ran on."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.denoiser.network = Plain()
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(float(loss.detach()))
        return loss


class InTurn(Recorded):
    """One process that accumulates two batches draws what two ranks draw in one step."""

    def _draws(self, *purpose: int | str) -> torch.Generator:
        if purpose[0] == "train":
            _, step, batch, _ = purpose
            purpose = ("train", step, int(batch) // 2, int(batch) % 2)
        return super()._draws(*purpose)


class Holes(Points):
    """The batch that rank 1 gets in the second step of the first epoch is NaN."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        return item | {"x0": item["x0"] * float("nan")} if index == train(Points(12)).order(0)[6] else item


def train(items: Points) -> ResumableLoader:
    return ResumableLoader(items, 2, train=True, seed=3)


def run(
    folder: Path, strategy: str, devices: int = 2, resume: Path | None = None, items: Points | None = None, **more: Any
) -> dict[str, Any]:
    """Five steps of 2 x 2 items, three per epoch, with validation of 5 items."""
    task, ema = make_task(Recorded if devices > 1 else InTurn), EMA(power=[0.1])
    trainer = make_trainer(
        folder,
        ema,
        devices=devices,
        strategy=strategy,
        max_steps=STEPS,
        gradient_clip_val=0.5,
        num_sanity_val_steps=1,  # what validation has gathered must not hinder training
        **more,
    )
    message = ""
    try:
        loaders = train(items or Points(12)), ResumableLoader(Points(5), 1, train=False)
        trainer.fit(task, *loaders, ckpt_path=resume)
    except UserError as error:
        message = str(error)
    return {
        "losses": task.losses,
        "message": message,
        "step": trainer.global_step,
        "ema": {} if message else ema.state_dict()["averages"],
        "metrics": dict(trainer.callback_metrics),
        "shapes": {name: tuple(getattr(w, "_local_tensor", w).shape) for name, w in task.named_parameters()},
        "sound": all(bool(getattr(w, "_local_tensor", w).isfinite().all()) for w in task.parameters()),
        "checkpoint": trainer.checkpoint_callback.best_model_path,  # type: ignore[union-attr]
    }


def validate(folder: Path, strategy: str, checkpoint: Path, devices: int = 2) -> float:
    trainer = make_trainer(folder, EMA(power=[0.1]), devices=devices, strategy=strategy)
    loader = ResumableLoader(Points(5), 1, train=False)
    task = make_task(Recorded)
    return trainer.validate(task, loader, ckpt_path=checkpoint, verbose=False)[0]["val/loss"]


def stop(folder: Path) -> int:
    """Rank 0 alone gets SIGTERM; returns the step at which this rank stopped."""
    rescue, rarely = OnExceptionCheckpoint(folder, "rescued"), {"every_n_epochs": 10**6}
    trainer = make_trainer(folder, rescue, devices=2, strategy="ddp", save=rarely, max_epochs=10**6)
    if trainer.global_rank == 0:
        trainer.strategy.launcher.kill = lambda signum: None  # type: ignore[method-assign,union-attr]  # tells nobody
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    try:
        trainer.fit(make_task(Recorded), train(Points(12)))
    except SystemExit:
        return trainer.global_step
    return -1


if __name__ == "__main__":
    out = Path(sys.argv[1])
    results: dict[str, Any] = {}
    for strategy in ("ddp", "fsdp2"):
        results[strategy] = run(out / strategy, strategy)
        last = out / strategy / f"step={STEPS}.ckpt"
        results[f"{strategy} resumed"] = run(
            out / f"{strategy}_resumed", strategy, resume=out / strategy / "step=4.ckpt"
        )
        results[f"{strategy} validated"] = validate(out, strategy, last)
        results[f"{strategy} holes"] = run(out / f"{strategy}_holes", strategy, items=Holes(12), log_every_n_steps=3)
    for one, other in (("ddp", "fsdp2"), ("fsdp2", "ddp")):
        results[f"{other} after {one}"] = run(out / f"{other}_after", other, resume=out / one / "step=4.ckpt")
    results["stopped"] = stop(out / "stopped")
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    torch.save(results, out / f"rank{rank}.pt")
