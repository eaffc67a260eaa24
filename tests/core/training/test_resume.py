"""A run that is stopped and resumed is the run that was not stopped, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import OnExceptionCheckpoint
from tiny_training import Points, Recorder, make_task, make_trainer

from ornstein.training.data import ResumableLoader
from ornstein.training.ema import EMA
from ornstein.training.schedule import Schedule

Run = dict[str, Any]
AT_EPOCH_END = {"save_on_train_epoch_end": True}
AFTER_VALIDATION = {"save_on_train_epoch_end": False}


def run(folder: Path, *, resume: Path | None = None, workers: int = 0, val: bool = True, **options: Any) -> Run:
    task, ema, recorder = make_task(), EMA(power=[0.1]), Recorder()
    trainer = make_trainer(folder, ema, recorder, **options)
    train = ResumableLoader(Points(), 2, train=True, seed=5, num_workers=workers)
    trainer.fit(task, train, ResumableLoader(Points(3), 2, train=False) if val else None, ckpt_path=resume)
    state = {"weights": task.state_dict(), "ema": ema.state_dict(), "optimizer": trainer.optimizers[0].state_dict()}
    return {"state": state, "seen": recorder.seen, "epochs": recorder.epochs, "step": trainer.global_step}


def assert_equal(a: Any, b: Any, where: str = "") -> None:
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_equal(one, other, f"{where}/{i}")
    else:
        assert a == b, where


def check_every_checkpoint(folder: Path, workers: int = 0, **options: Any) -> int:
    """Resume from every checkpoint of an uninterrupted run; each must see the rest of its batches and end as it did."""
    whole = run(folder / "whole", workers=workers, **options)
    checkpoints = sorted((folder / "whole").glob("*.ckpt"))
    for checkpoint in checkpoints:
        step = torch.load(checkpoint, weights_only=True)["global_step"]
        rest = run(folder / checkpoint.stem, resume=checkpoint, workers=workers, **options)
        assert rest["seen"] == [seen for seen in whole["seen"] if seen[0] >= step], checkpoint
        assert rest["step"] == whole["step"]
        assert_equal(rest["state"], whole["state"], checkpoint.name)
    return len(checkpoints)


@pytest.mark.parametrize(
    "options",
    [
        {"max_steps": 9},
        {"max_epochs": 2, "accumulate_grad_batches": 3},
        {"max_steps": 8, "save": AT_EPOCH_END, "limit_train_batches": 3},
        {"max_steps": 8, "save": AT_EPOCH_END, "limit_train_batches": 3, "val": False},
        {"max_epochs": 2, "save": AT_EPOCH_END, "val": False},
        {"max_steps": 9, "save": AFTER_VALIDATION},
        {"max_epochs": 2, "save": AFTER_VALIDATION, "val_check_interval": 4},
    ],
    ids=str,
)
def test_resumed_run_equals_uninterrupted_one(tmp_path: Path, options: dict[str, Any]) -> None:
    assert check_every_checkpoint(tmp_path, **options) > 0


@pytest.mark.parametrize("longer", [{"max_steps": 13}, {"max_epochs": 3}], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"save": {"save_last": True}},
        {"save": AT_EPOCH_END, "val": False},
        {"save": AT_EPOCH_END, "val_check_interval": 2, "check_val_every_n_epoch": None},
        {"save": AT_EPOCH_END, "accumulate_grad_batches": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("stop", [2, 3, 7, 10])
def test_extended_run_equals_uninterrupted_one(
    stop: int, options: dict[str, Any], longer: dict[str, int], tmp_path: Path
) -> None:
    """Epochs have 7 batches: a run that ends within one goes on in it when it is given more steps."""
    run(tmp_path / "part", max_steps=stop, **options)
    (last,) = (tmp_path / "part").glob(f"step={stop}.ckpt")
    rest = run(tmp_path / "rest", resume=last, **options, **longer)
    whole = run(tmp_path / "whole", **options, **longer)
    assert rest["seen"] == [seen for seen in whole["seen"] if seen[0] >= stop]
    assert rest["epochs"] == whole["epochs"][len(whole["epochs"]) - len(rest["epochs"]) :]
    assert_equal(rest["state"], whole["state"])


def test_resumed_run_equals_uninterrupted_one_with_workers(tmp_path: Path) -> None:
    options = {"max_steps": 9, "save": {"every_n_train_steps": 4}}
    assert check_every_checkpoint(tmp_path, workers=2, **options) == 2
    assert_equal(run(tmp_path / "alone", **options)["state"], run(tmp_path / "two", workers=2, **options)["state"])


def test_run_killed_by_an_error_resumes(tmp_path: Path) -> None:
    class Fails(Recorder):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 5:
                raise RuntimeError("power cut")

    trainer = make_trainer(tmp_path, EMA(power=[0.1]), Fails(), max_steps=9, save={"every_n_train_steps": 3})
    with pytest.raises(RuntimeError, match="power cut"):
        trainer.fit(make_task(), ResumableLoader(Points(), 2, train=True, seed=5))
    resumed = run(tmp_path / "b", resume=tmp_path / "step=3.ckpt", max_steps=9, val=False)
    assert_equal(resumed["state"], run(tmp_path / "c", max_steps=9, val=False)["state"])


def test_every_epoch_has_its_own_order_and_items(tmp_path: Path) -> None:
    whole = run(tmp_path, max_epochs=3, workers=1)
    per_epoch = [[i for _, _, batch in whole["seen"][7 * e : 7 * e + 7] for i in batch] for e in range(3)]
    assert all(sorted(items) == list(range(14)) for items in per_epoch)
    assert per_epoch[0] != per_epoch[1] != per_epoch[2]
    assert whole["epochs"] == [{0}] * 7 + [{1}] * 7 + [{2}] * 7


def test_optimizer_settings_of_the_resumed_run_win(tmp_path: Path) -> None:
    run(tmp_path / "a", max_steps=5)
    task = make_task(optimizer=lambda p: torch.optim.AdamW(p, lr=0.5, betas=(0.8, 0.9)), schedule=Schedule(8))
    trainer = make_trainer(tmp_path / "b", EMA(power=[0.1]), max_steps=6)
    trainer.fit(task, ResumableLoader(Points(), 2, train=True), ckpt_path=tmp_path / "a" / "step=5.ckpt")
    group = trainer.optimizers[0].param_groups[0]
    assert group["betas"] == (0.8, 0.9)
    assert group["lr"] == pytest.approx(0.5 * 7 / 8)  # step 6 of a warm-up of 8, about to be step 7
    assert int(next(iter(trainer.optimizers[0].state.values()))["step"]) == 6


def test_checkpoint_on_exception_is_readable(tmp_path: Path) -> None:
    class Fails(Recorder):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 3:
                raise RuntimeError("interrupted")

    trainer = make_trainer(tmp_path, EMA(power=[0.1]), Fails(), OnExceptionCheckpoint(tmp_path, "last"), max_steps=9)
    with pytest.raises(RuntimeError, match="interrupted"):
        trainer.fit(make_task(), ResumableLoader(Points(), 2, train=True, seed=5))
    assert run(tmp_path / "b", resume=tmp_path / "last.ckpt", max_steps=9, val=False)["step"] == 9
