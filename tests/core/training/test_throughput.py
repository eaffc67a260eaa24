from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from tiny_training import Points, make_task, make_trainer

from ornstein.errors import UserError
from ornstein.training import data, throughput
from ornstein.training.data import ResumableLoader
from ornstein.training.task import Task
from ornstein.training.throughput import Throughput

READ, STEP, VALIDATE = 0.01, 0.03, 7.0  # seconds: an item, a step, an item of validation


class Clock:
    now = 0.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Time passes where the classes below say so, and nowhere else."""
    Clock.now = 0.0
    for module in (data, throughput):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: Clock.now))
    return


class Slow(Points):
    def __init__(self, items: int, seconds: float) -> None:
        super().__init__(items)
        self.seconds = seconds

    def __getitem__(self, index: int) -> dict[str, Any]:
        Clock.now += self.seconds
        return super().__getitem__(index)


class Steady(Task):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        Clock.now += STEP
        return super().training_step(batch, batch_idx)


def rows(folder: Path, callback: Throughput, **options: Any) -> list[dict[str, float]]:
    """The logged periods of 2 epochs of 7 batches of 2, each followed by validation."""
    trainer = make_trainer(
        folder / "c", callback, **{"logger": CSVLogger(folder), "log_every_n_steps": 2, "max_epochs": 2, **options}
    )
    train, val = Slow(14, READ), Slow(3, VALIDATE)
    trainer.fit(make_task(Steady), ResumableLoader(train, 2, train=True), ResumableLoader(val, 3, train=False))
    header, *lines = next(folder.rglob("metrics.csv")).read_text().splitlines()
    table = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    return [{k: float(v) for k, v in row.items() if v} for row in table if row["train/samples_per_second"]]


def test_logged_with_the_losses_and_without_validation(tmp_path: Path) -> None:
    found = rows(tmp_path, Throughput())
    assert [row["step"] for row in found] == [1, 3, 5, 7, 9, 11, 13]
    assert all("train/loss" in row for row in found)
    for row in found[1:2] + found[4:5]:  # neither the first nor the last of an epoch, which is read ahead
        assert row["train/samples_per_second"] == pytest.approx(2 / (2 * READ + STEP))
        assert row["train/data_wait"] == pytest.approx(2 * READ / (2 * READ + STEP))
    assert all(row["train/samples_per_second"] > 20 for row in found)  # validation would make it less than 1


def test_accumulated_batches_count(tmp_path: Path) -> None:
    found = rows(tmp_path, Throughput(), accumulate_grad_batches=2)
    assert [row["step"] for row in found] == [1, 3, 5, 7]
    assert found[0]["train/samples_per_second"] == pytest.approx(2 / (2 * READ + STEP))


def test_period_of_its_own(tmp_path: Path) -> None:
    found = rows(tmp_path, Throughput(4), max_epochs=1)
    assert found[0]["step"] == 3
    assert found[0]["train/samples_per_second"] == pytest.approx(2 / (2 * READ + STEP))


def test_progress_bar_and_other_loaders(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, Throughput(1), max_epochs=1)
    plain = torch.utils.data.DataLoader(Slow(14, READ), batch_size=2)  # type: ignore[arg-type]
    trainer.fit(make_task(Steady), plain)
    assert {"train/loss", "train/samples_per_second"} <= trainer.progress_bar_metrics.keys()
    assert "train/data_wait" not in trainer.callback_metrics  # only a ResumableLoader tells


def test_impossible_period() -> None:
    with pytest.raises(UserError, match="at least 1"):
        Throughput(0)
