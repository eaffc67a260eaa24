from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tiny_training import Points, Recorder, make_task, make_trainer

from ornstein.acceleration.training import COMPILER, GraphedTraining
from ornstein.errors import UserError
from ornstein.objectives.time_sampling import UniformTimes
from ornstein.samplers.ancestral import Ancestral
from ornstein.training.data import ResumableLoader
from ornstein.training.ema import EMA
from ornstein.training.schedule import Schedule
from ornstein.training.task import Task


def fit(folder: Path, task: Task, *callbacks: Any, **options: Any) -> Any:
    trainer = make_trainer(folder, EMA(), *callbacks, **({"max_epochs": 1} | options))
    trainer.fit(task, ResumableLoader(Points(), 2, train=True), ResumableLoader(Points(3), 2, train=False))
    return trainer


def test_schedule() -> None:
    assert [Schedule(4).factor(step, 0) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    cosine = [Schedule(2, "cosine", final=0.1).factor(step, 12) for step in (0, 1, 2, 7, 12, 20)]
    assert cosine == pytest.approx([0.5, 1, 1, 0.55, 0.1, 0.1])


def test_cosine_takes_the_length_of_the_run_from_the_trainer(tmp_path: Path) -> None:
    trainer = fit(tmp_path, make_task(schedule=Schedule(2, "cosine")), max_steps=10)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    with pytest.raises(UserError, match="length of the run"):
        fit(tmp_path, make_task(schedule=Schedule(2, "cosine")), max_epochs=-1)


def test_fast_dev_run(tmp_path: Path) -> None:
    assert fit(tmp_path, make_task(), fast_dev_run=True).global_step == 1


def test_accumulation_steps_once_per_group(tmp_path: Path) -> None:
    recorder = Recorder()
    assert fit(tmp_path, make_task(), recorder, accumulate_grad_batches=3).global_step == 3
    assert [step for step, _, _ in recorder.seen] == [0, 0, 0, 1, 1, 1, 2]


def test_bf16_mixed_casts_the_network_only(tmp_path: Path) -> None:
    class Watched(Task):
        def prepare_batch(self, batch: dict[str, Any]) -> Any:
            product = batch["x0"] @ batch["x0"].T  # would be bfloat16 under autocast, like the bands of a filter bank
            assert product.dtype == torch.float32
            return super().prepare_batch(batch)

        def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
            loss = super().training_step(batch, batch_idx)
            assert loss.dtype == torch.float32
            return loss

    task = make_task(Watched)
    assert fit(tmp_path, task, precision="bf16-mixed").global_step == 7
    assert task.denoiser.network.output_dtype == torch.bfloat16
    assert {weight.dtype for weight in task.parameters()} == {torch.float32}


@pytest.mark.parametrize(("algorithm", "kind"), [("norm", 2.0), ("value", float("inf"))])
def test_fused_optimizers_are_clipped_under_bf16_mixed(algorithm: str, kind: float, tmp_path: Path) -> None:
    class Watched(Task):
        norms: ClassVar[list[float]] = []

        def optimizer_step(self, *args: Any, **options: Any) -> None:
            super().optimizer_step(*args, **options)
            self.norms.append(max_or_norm(self, kind))

    options = {"precision": "bf16-mixed", "gradient_clip_val": 1e-3, "gradient_clip_algorithm": algorithm}
    fit(tmp_path, make_task(Watched), **options)
    assert Watched.norms == pytest.approx([1e-3] * 7, rel=1e-3)


def max_or_norm(task: Task, kind: float) -> float:
    return float(torch.nn.utils.get_total_norm([w.grad for w in task.parameters() if w.grad is not None], kind))


def test_loggers_receive_losses_and_learning_rate(tmp_path: Path) -> None:
    loggers = [CSVLogger(tmp_path / "csv"), TensorBoardLogger(tmp_path / "tensorboard")]
    fit(tmp_path, make_task(log_grad_norm=True), logger=loggers, log_every_n_steps=1)
    table = next((tmp_path / "csv").rglob("metrics.csv")).read_text().splitlines()
    assert {"train/loss", "train/learning_rate", "train/grad_norm", "val/loss"} <= set(table[0].split(","))
    assert list((tmp_path / "tensorboard").rglob("events.out*"))


def test_overfit_batches_repeats_the_same_batches(tmp_path: Path) -> None:
    recorder = Recorder()
    fit(tmp_path, make_task(), recorder, overfit_batches=2, max_epochs=3)
    batches = [batch for _, _, batch in recorder.seen]
    assert batches == batches[:2] * 3
    assert recorder.epochs == [{0}] * 6


def test_non_finite_loss_is_refused(tmp_path: Path) -> None:
    class Holes(Points):
        def __getitem__(self, index: int) -> dict[str, Any]:
            item = super().__getitem__(index)
            return item | {"x0": item["x0"] * float("nan")} if index == 5 else item

    task = make_task()
    with pytest.raises(UserError, match=r"not finite at step \d+ \(loss nan\); .*learning rate") as caught:
        make_trainer(tmp_path, max_epochs=1).fit(task, ResumableLoader(Holes(), 2, train=True))
    assert "\n" not in str(caught.value)
    assert all(weight.isfinite().all() for weight in task.parameters())


def test_same_seed_same_run_other_seed_other_run(tmp_path: Path) -> None:
    def weights(seed: int) -> torch.Tensor:
        task = make_task(seed=seed)
        fit(tmp_path, task)
        return task.denoiser.network.layers[0].weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_validation_draws_are_fixed_per_item(tmp_path: Path) -> None:
    task = make_task()
    like = torch.zeros(2, 4)
    both = task.validation_noise({"index": torch.tensor([3, 8])}, 0)(like)
    alone = task.validation_noise({"index": torch.tensor([8])}, 5)(like[:1])
    assert torch.equal(both[1:], alone)
    make_trainer(tmp_path, max_epochs=1).fit(task, ResumableLoader(Points(), 2, train=True))
    loader = ResumableLoader(Points(4), 2, train=False)
    first, second = (make_trainer(tmp_path).validate(task, loader, verbose=False)[0]["val/loss"] for _ in range(2))
    assert first == second


def test_compile_keeps_the_names_of_the_weights(tmp_path: Path) -> None:
    task = make_task(compile=True)
    compiled: list[dict[str, bool]] = []
    task.denoiser.network.compile = lambda **how: compiled.append(how["options"])  # type: ignore[method-assign]
    names = set(task.state_dict())
    fit(tmp_path, task, max_steps=1)
    assert compiled == [COMPILER]
    assert set(COMPILER) <= set(torch._inductor.list_options())
    assert set(task.state_dict()) == names


def test_graphs_are_begun_at_every_step_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.compile", lambda function, **_: function)
    begun: list[bool] = []
    monkeypatch.setattr(GraphedTraining, "begin_step", lambda self: begun.append(self.network.forward is self))
    task, plain = make_task(compile="graphs"), make_task()
    names = set(task.state_dict())
    fit(tmp_path / "graphs", task, max_steps=3)
    fit(tmp_path / "plain", plain, max_steps=3)
    assert begun == [True] * 3
    assert set(task.state_dict()) == names
    assert "forward" not in vars(task.denoiser.network)
    assert all(torch.equal(a, b) for a, b in zip(task.parameters(), plain.parameters(), strict=True))


def test_graphs_cannot_accumulate(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot accumulate"):
        fit(tmp_path, make_task(compile="graphs"), max_steps=1, accumulate_grad_batches=2)


def test_channels_last(tmp_path: Path) -> None:
    task = make_task()
    network = torch.nn.Conv2d(4, 4, 3)
    network.gain = torch.nn.Parameter(torch.ones(1, 4, 1, 1))  # a compiled backward pass wants its plain strides
    before = network.gain.stride()
    task.denoiser.network = network
    task = Task(task.denoiser, task.objective, task.sampler, channels_last=True)
    assert network.weight.is_contiguous(memory_format=torch.channels_last)
    assert network.gain.stride() == before


def test_network_from_elsewhere_still_saves(tmp_path: Path) -> None:
    fit(tmp_path, make_task())
    saved = torch.load(tmp_path / "step=7.ckpt", weights_only=True)
    assert "Network is no component" in saved["ornstein"]["problem"]
    assert "hyper_parameters" not in saved


@pytest.mark.parametrize("options", [{"warmup_steps": -4}, {"final": 7.0}, {"steps": 0}])
def test_impossible_schedules_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        Schedule(**options)


def test_impossible_steps_are_refused_when_the_task_is_made() -> None:
    task = make_task()
    with pytest.raises(UserError, match="0 steps"):
        Task(task.denoiser, task.objective, Ancestral(steps=0))


@pytest.mark.parametrize("options", [{"t_min": -0.1}, {"t_min": 0.5, "t_max": 0.2}])
def test_impossible_training_times_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match="t_min"):
        UniformTimes(**options)
