from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from tiny_training import Points, make_task, make_trainer

from ornstein.errors import UserError
from ornstein.training.data import ResumableLoader
from ornstein.training.ema import EMA, Average, Exponential, PowerFunction
from ornstein.training.task import Task


@reference_files("speech", "metrics_ema*.npz", needs=["ema_decay", "ema_p0", "ema_s0"])
def test_published_sequence(vectors: ReferenceFile) -> None:
    names = [name for name in vectors.names if name.startswith("ema_p")]
    steps = [dict(zip(names, values, strict=True)) for values in zip(*(vectors.tensor(n) for n in names), strict=True)]
    average = Average(steps[0], Exponential(vectors.number("ema_decay")))
    for i, step in enumerate(steps[1:]):
        average.update(step)
        for name in names:
            torch.testing.assert_close(
                average.tensors[name], vectors.tensor(name.replace("ema_p", "ema_s"))[i], rtol=0, atol=1e-9
            )


def test_warmup_and_its_absence() -> None:
    assert Exponential(0.999).decay_at(1) == 2 / 11
    assert Exponential(0.5).decay_at(1000) == 0.5
    assert Exponential(0.999, warmup="none").decay_at(1) == 0.999


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.25])
def test_power_function_has_the_width_it_is_named_by(sigma_rel: float) -> None:
    profile, n = PowerFunction(sigma_rel), 20000
    weights = np.zeros(n)
    for step in range(1, n + 1):  # the average as weights on past steps
        d = profile.decay_at(step)
        weights[:step] *= d
        weights[step - 1] += 1 - d
    times = np.arange(1, n + 1) / n
    mean = (weights * times).sum()
    assert weights.sum() == pytest.approx(1)
    assert np.sqrt((weights * (times - mean) ** 2).sum()) == pytest.approx(sigma_rel, rel=1e-3)


@pytest.mark.parametrize("make", [lambda: EMA(decay=None), lambda: EMA(decay=1.0), lambda: EMA(power=[0.5])])
def test_impossible_settings(make: Any) -> None:
    with pytest.raises(UserError):
        make()


def test_low_precision_weights_are_averaged_in_float32() -> None:
    weights = {"w": torch.ones(3, dtype=torch.bfloat16)}
    average = Average(weights, Exponential(0.999, warmup="none"))
    average.update({"w": torch.full((3,), 2.0, dtype=torch.bfloat16)})
    torch.testing.assert_close(average.tensors["w"], torch.full((3,), 1.001))


class Watched(Task):
    """Keeps the weights that validation runs on, and can fail there."""

    fail_in_epoch = -1

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.used = {name: weight.detach().clone() for name, weight in self.named_parameters()}
        if self.current_epoch == self.fail_in_epoch:
            raise ValueError("bad item")
        super().validation_step(batch, batch_idx)


def fit(folder: Path, task: Task, ema: EMA, **options: Any) -> Any:
    trainer = make_trainer(folder, ema, **({"max_epochs": 2} | options))
    trainer.fit(task, ResumableLoader(Points(), 2, train=True), ResumableLoader(Points(3), 2, train=False))
    return trainer


def trainable(task: Task) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in task.named_parameters() if weight.requires_grad}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(a[name], b[name]) for name in b)


def test_one_update_per_optimizer_step(tmp_path: Path) -> None:
    ema = EMA(power=[0.05, 0.1])
    fit(tmp_path, make_task(), ema, accumulate_grad_batches=3)
    assert {name: average.updates for name, average in ema.averages.items()} == {
        "exponential-0.999": 6,
        "power-0.05": 6,
        "power-0.1": 6,
    }


def test_validation_runs_on_the_average_and_leaves_the_weights_alone(tmp_path: Path) -> None:
    task, ema = make_task(Watched), EMA()
    fit(tmp_path, task, ema, save={"save_on_train_epoch_end": False})  # saves right after validation
    average = ema.averages["exponential-0.999"].tensors
    assert set(average) == set(trainable(task))  # no frozen weights, no buffers
    assert_same(task.used, average)
    saved = torch.load(next(tmp_path.glob("*14.ckpt")), weights_only=True)
    assert_same(saved["state_dict"], trainable(task))
    assert not torch.equal(
        trainable(task)["denoiser.network.layers.0.weight"], average["denoiser.network.layers.0.weight"]
    )
    assert_same(saved["callbacks"]["EMA"]["averages"]["exponential-0.999"]["tensors"], average)


def test_exception_in_validation_does_not_leave_averaged_weights(tmp_path: Path) -> None:
    task, ema = make_task(Watched), EMA()
    task.fail_in_epoch = 1
    with pytest.raises(ValueError, match="bad item"):
        fit(tmp_path, task, ema)
    twin = make_task(Watched)
    fit(tmp_path / "twin", twin, EMA())
    assert_same(trainable(task), trainable(twin))
    assert_same(task.used, ema.averages["exponential-0.999"].tensors)


def test_averaged_block_ends_with_the_raw_weights() -> None:
    task, ema = make_task(), EMA()
    ema._create(task)
    with torch.no_grad():
        for weight in task.parameters():
            weight.add_(1)
    raw, average = trainable(task), ema.averages["exponential-0.999"].tensors

    def fail_inside() -> None:
        with ema.averaged(task):
            assert_same(trainable(task), average)
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert_same(trainable(task), raw)


def test_checkpoint_written_within_validation_holds_raw_weights(tmp_path: Path) -> None:
    class Saves(Watched):
        def on_validation_epoch_end(self) -> None:
            self.trainer.save_checkpoint(tmp_path / "inside.ckpt")

    task = make_task(Saves)
    fit(tmp_path, task, EMA(), max_epochs=1)
    assert_same(torch.load(tmp_path / "inside.ckpt", weights_only=True)["state_dict"], trainable(task))


def test_validate_command_uses_the_average_of_the_checkpoint(tmp_path: Path) -> None:
    ema = EMA()
    fit(tmp_path, make_task(), ema)
    task, fresh = make_task(Watched), EMA()
    loader = ResumableLoader(Points(3), 2, train=False)
    make_trainer(tmp_path / "b", fresh).validate(
        task, loader, ckpt_path=tmp_path / "step=14.ckpt", verbose=False, weights_only=True
    )
    assert_same(task.used, ema.averages["exponential-0.999"].tensors)


def test_resuming_with_other_averages_is_refused(tmp_path: Path) -> None:
    fit(tmp_path, make_task(), EMA())
    trainer = make_trainer(tmp_path / "b", EMA(power=[0.1]), max_epochs=3)
    with pytest.raises(UserError, match=r"no average power-0\.1, only exponential-0\.999"):
        trainer.fit(make_task(), ResumableLoader(Points(), 2, train=True), ckpt_path=tmp_path / "step=14.ckpt")
