"""A training run of milliseconds, for the tests; also a program, because DDP starts its processes from one.

python tiny_training.py OUT
"""

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from ornstein.denoiser import Denoiser
from ornstein.objectives.denoising import DenoisingObjective
from ornstein.objectives.time_sampling import UniformTimes
from ornstein.parameterization import X0
from ornstein.process.ouve import OUVE
from ornstein.samplers.ancestral import Ancestral
from ornstein.training.data import ResumableLoader, is_repeat
from ornstein.training.ema import EMA
from ornstein.training.schedule import Schedule
from ornstein.training.seeds import derive_seed
from ornstein.training.task import Task

ITEMS, CHANNELS = 14, 6


class Points:
    """Pairs (x0, y) that change with the epoch, like cuts of longer recordings."""

    def __init__(self, items: int = ITEMS) -> None:
        self.items = items
        self.epoch = 0

    def __len__(self) -> int:
        return self.items

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(derive_seed("points", self.epoch, index))
        x0 = torch.randn(CHANNELS, generator=generator)
        return {"x0": x0, "y": x0 + 0.5 * torch.randn(CHANNELS, generator=generator), "epoch": self.epoch}


class Network(nn.Module):
    """A perceptron with all that makes resuming hard: dropout, a buffer that training moves, a frozen part."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * CHANNELS + 1, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Dropout(0.2), nn.Linear(16, CHANNELS)
        )
        self.frozen = nn.Parameter(torch.randn(3), requires_grad=False)
        self.output_dtype: torch.dtype | None = None

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        output = self.layers(torch.cat([x, y, t[:, None]], dim=1))
        self.output_dtype = output.dtype
        return output


class Recorder(Callback):
    """What each step was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, tuple[int, ...]]] = []
        self.epochs: list[set[int]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.seen.append((trainer.global_step, batch_idx, tuple(batch["index"].tolist())))
        self.epochs.append(set(batch["epoch"].tolist()))


def make_task(task_class: type[Task] = Task, **options: Any) -> Task:
    torch.manual_seed(1)
    denoiser = Denoiser(Network(), OUVE(), X0())
    objective = DenoisingObjective(compare="x0", time_sampling=UniformTimes(t_min=0.03))
    options = {"optimizer": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True), "schedule": Schedule(3), **options}
    return task_class(denoiser, objective, Ancestral(steps=3), **options)


def make_trainer(folder: Path, *callbacks: Callback, save: dict[str, Any] | None = None, **options: Any) -> Trainer:
    """A Trainer on the CPU that keeps every checkpoint in `folder`."""
    checkpoints = ModelCheckpoint(
        dirpath=folder, filename="{step}", save_top_k=-1, **(save if save is not None else {"every_n_train_steps": 1})
    )
    settings = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "deterministic": True,
    }
    return Trainer(callbacks=[*callbacks, checkpoints], **(settings | options))


class Validated(Task):
    """Remembers which items validation met."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.validated: list[int] = []

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.validated += [] if is_repeat(batch) else batch["index"].tolist()
        super().validation_step(batch, batch_idx)


def run_distributed(folder: Path, workers: int = 0, resume: Path | None = None) -> dict[str, Any]:
    """Five steps on two processes, three per epoch."""
    task, ema, recorder = make_task(Validated), EMA(), Recorder()
    trainer = make_trainer(folder, ema, recorder, devices=2, strategy="ddp", max_steps=5)
    trainer.fit(
        task,
        ResumableLoader(Points(), 2, train=True, seed=3, num_workers=workers),
        ResumableLoader(Points(5), 2, train=False),
        ckpt_path=resume,
    )
    return {
        "rank": trainer.global_rank,
        "weights": task.state_dict(),
        "ema": ema.state_dict(),
        "optimizer": trainer.optimizers[0].state_dict(),
        "seen": recorder.seen,
        "validated": task.validated,
        "val_loss": trainer.callback_metrics.get("val/loss"),
    }


if __name__ == "__main__":
    out = Path(sys.argv[1])
    whole = run_distributed(out / "whole")
    resumed = run_distributed(out / "resumed", workers=1, resume=out / "whole" / "step=4.ckpt")
    torch.save({"whole": whole, "resumed": resumed}, out / f"rank{whole['rank']}.pt")
