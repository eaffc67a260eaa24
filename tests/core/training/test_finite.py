"""A loss that is not finite stops the run, without the host waiting for the device at every step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from device_reads import ReadsPerStep
from lightning.pytorch.callbacks import OnExceptionCheckpoint
from tiny_training import Points, make_task, make_trainer

from ornstein.errors import UserError
from ornstein.training.data import ResumableLoader
from ornstein.training.ema import EMA
from ornstein.training.throughput import Throughput


class Holes(Points):
    """Item 5 is NaN."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        return item | {"x0": item["x0"] * float("nan")} if index == 5 else item


CLIP, HALF = {"gradient_clip_val": 1.0}, {"precision": "bf16-mixed"}


@pytest.mark.parametrize("options", [{}, CLIP, HALF, CLIP | HALF], ids=str)
def test_no_step_between_two_lines_of_the_log_reads_a_number(tmp_path: Path, options: dict[str, Any]) -> None:
    reads = ReadsPerStep()
    callbacks = (EMA(power=[0.1]), Throughput(), reads)  # the last one ends the count
    trainer = make_trainer(tmp_path, *callbacks, max_epochs=1, log_every_n_steps=5, save={}, **options)
    trainer.fit(make_task(log_grad_norm=True), ResumableLoader(Points(24), 2, train=True))
    read = [step for step, count in enumerate(reads.steps) if count]
    assert len(reads.steps) == 12
    assert read == [0, 4, 9]  # the first one, and those that are logged


def optimizers() -> list[Any]:
    return [
        lambda w: torch.optim.AdamW(w, lr=1e-2, fused=True),
        lambda w: torch.optim.Adam(w, lr=1e-2),
        lambda w: torch.optim.SGD(w, lr=1e-2),
    ]


@pytest.mark.parametrize("optimizer", optimizers())
@pytest.mark.parametrize("clip", [None, 1.0])
def test_stops_at_the_epoch_end_with_sound_weights(optimizer: Any, clip: float | None, tmp_path: Path) -> None:
    task, ema, rescue = make_task(optimizer=optimizer), EMA(), OnExceptionCheckpoint(tmp_path, "rescued")
    trainer = make_trainer(tmp_path, ema, rescue, max_epochs=1, save={"every_n_epochs": 9}, gradient_clip_val=clip)
    with pytest.raises(UserError, match=r"^the loss is not finite at step \d+ \(loss nan\); .*learning rate"):
        trainer.fit(task, ResumableLoader(Holes(), 2, train=True))
    assert trainer.global_step == 7
    assert all(weight.isfinite().all() for weight in task.parameters())
    assert all(tensor.isfinite().all() for tensor in ema.averages["exponential-0.999"].tensors.values())
    saved = torch.load(tmp_path / "rescued.ckpt", weights_only=True)["state_dict"]
    assert all(saved[name].isfinite().all() for name, _ in task.named_parameters())


def test_fused_optimizers_skip_the_step_altogether(tmp_path: Path) -> None:
    """Weights, moments and step counter go on as if the batch had not been."""
    weight = torch.nn.Parameter(torch.ones(3))
    twin = torch.nn.Parameter(torch.ones(3))
    from ornstein.training.finite import FiniteGuard

    guard = FiniteGuard()
    one, other = (torch.optim.Adam([w], lr=0.1, fused=True) for w in (weight, twin))
    for step, gradient in enumerate([1.0, float("inf"), 2.0]):
        weight.grad = torch.full((3,), gradient)
        guard.protect(one, [weight], step)
        one.step()
        if step != 1:
            twin.grad = weight.grad.clone()
            other.step()
    assert torch.equal(weight, twin)
    for name, value in one.state[weight].items():
        assert torch.equal(value, other.state[twin][name]), name


def test_named_before_a_checkpoint_and_before_validation(tmp_path: Path) -> None:
    def fit(folder: str, **options: Any) -> Path:
        trainer = make_trainer(tmp_path / folder, max_epochs=1, **options)
        with pytest.raises(UserError, match="not finite"):
            trainer.fit(
                make_task(), ResumableLoader(Holes(), 2, train=True), ResumableLoader(Points(3), 2, train=False)
            )
        return tmp_path / folder

    for checkpoint in fit("steps").glob("*.ckpt"):
        content = torch.load(checkpoint, weights_only=True)["state_dict"]
        assert all(tensor.isfinite().all() for tensor in content.values()), checkpoint
    assert not list(fit("validated", val_check_interval=7, save={"save_on_train_epoch_end": False}).glob("*.ckpt"))


def test_gradient_that_is_not_finite_is_named(tmp_path: Path) -> None:
    task = make_task()
    task.denoiser.network.layers[4].bias.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(UserError, match="the gradient is not finite at step 0"):
        make_trainer(tmp_path, max_epochs=1, save={}).fit(task, ResumableLoader(Points(), 2, train=True))
    assert all(weight.isfinite().all() for weight in task.parameters())
