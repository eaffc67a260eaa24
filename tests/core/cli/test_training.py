"""fit, validate, test and predict through Lightning's command line: every trap that it has is closed."""

import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

from ornstein.cli import main

RECIPE: dict[str, Any] = {
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
    "model": {"network": {"class_path": "ornstein_fake.training.Layer", "init_args": {"width": 3}}, "lr": 0.01},
}


@pytest.fixture
def recipe(fake_app: Path) -> str:
    """A recipe in the working folder."""
    Path("recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return "recipe.yaml"


def fit(*words: str) -> int:
    return main(["fake", "fit", *words])


def complaint(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """Run, expect code 2; return the one line that starts with `ornstein:`, which is also the last."""
    capfd.readouterr()
    assert fit(*words) == 2
    lines = capfd.readouterr().err.splitlines()
    assert [line.startswith("ornstein: ") for line in lines].count(True) == 1
    assert lines[-1].startswith("ornstein: ")
    assert not any(line.startswith("usage") for line in lines)
    return lines[-1]


def checkpoint() -> Path:
    return max(Path("checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime)


def test_fit_and_predict_from_one_recipe(recipe: str) -> None:
    assert fit("--config", recipe) == 0
    assert main(["fake", "predict", "--config", recipe, "--ckpt_path", str(checkpoint())]) == 0


def test_fast_dev_run(recipe: str) -> None:
    assert fit("--config", recipe, "--trainer.fast_dev_run", "true") == 0
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize("logger", ["CSVLogger", "TensorBoardLogger"])
def test_loggers(logger: str, recipe: str) -> None:
    assert fit("--config", recipe, "--trainer.logger", logger, "--trainer.logger.save_dir", "logs") == 0
    assert list(Path("logs").rglob("config.yaml"))


def test_arguments_bring_no_warning_and_leave_sys_argv(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["ornstein", "fake", "fit", "--config", recipe, "--trainer.fast_dev_run", "true"]
    monkeypatch.setattr(sys, "argv", list(words))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main() == 0
    assert sys.argv == words
    assert not [w for w in caught if "args parameter" in str(w.message)]


def test_advertising_is_filtered(recipe: str, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addHandler(caplog.handler)
    try:
        assert fit("--config", recipe) == 0
    finally:
        logger.removeHandler(caplog.handler)
    assert "GPU available" in caplog.text  # what Lightning has to say still arrives
    assert "Tip" not in caplog.text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trainer.max_epochs", "2"], "Epoch 2 of 2:"),
        (["--trainer.max_epochs", "-1", "--trainer.max_steps", "3"], "step 3 of 3:"),
    ],
)
def test_the_bar_says_how_far_the_run_is(
    words: list[str], said: str, recipe: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fit("--config", recipe, "--trainer.enable_progress_bar", "true", *words) == 0
    shown = "".join(capfd.readouterr())
    assert said in shown
    assert "-2" not in shown
    assert "Epoch 0" not in shown


def test_a_bar_of_the_recipe_is_kept(recipe: str, capfd: pytest.CaptureFixture[str]) -> None:
    content = yaml.safe_load(Path(recipe).read_text())
    content["trainer"] |= {"enable_progress_bar": True, "callbacks": [{"class_path": "TQDMProgressBar"}]}
    Path("own.yaml").write_text(yaml.safe_dump(content))
    assert fit("--config", "own.yaml") == 0
    assert "Epoch 0:" in "".join(capfd.readouterr())


def test_second_run_into_the_same_folder(recipe: str) -> None:
    assert fit("--config", recipe) == 0
    assert fit("--config", recipe, "--model.lr", "0.5") == 0
    assert yaml.safe_load(Path("config.yaml").read_text())["model"]["lr"] == 0.5


def test_checkpoint_loads_with_weights_only_and_carries_the_recipe(recipe: str) -> None:
    assert fit("--config", recipe) == 0
    content = torch.load(checkpoint(), weights_only=True)
    assert not content.get("hyper_parameters")
    assert yaml.safe_load(content["ornstein_config"])["model"]["lr"] == 0.01


@pytest.mark.parametrize("schedule", [False, True])
def test_resuming_honours_changed_options(
    schedule: bool, recipe: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Lightning alone would train on with the checkpoint's learning rate and say nothing."""
    words = ["--model.schedule", "{gamma: 0.5}"] if schedule else []
    assert fit("--config", recipe, *words) == 0
    rates = record_rates(monkeypatch)
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addHandler(caplog.handler)
    try:
        resume = ["--ckpt_path", str(checkpoint()), "--trainer.max_epochs", "3", "--model.lr", "0.5"]
        assert fit("--config", recipe, *words, *resume) == 0
    finally:
        logger.removeHandler(caplog.handler)
    assert rates[0] == 0.5
    assert rates[-1] == (0.25 if schedule else 0.5)
    assert "resuming with model.lr = 0.5 (the checkpoint has 0.01)" in caplog.text


def test_resuming_unchanged_keeps_the_saved_schedule(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--config", recipe, "--model.schedule", "{gamma: 0.5}"]
    assert fit(*words) == 0
    rates = record_rates(monkeypatch)
    assert fit(*words, "--ckpt_path", str(checkpoint()), "--trainer.max_epochs", "2") == 0
    assert rates == [0.005, 0.005]


def test_last_is_the_newest_of_all_runs(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run has its own version folder, where Lightning alone would look, find nothing and start anew."""
    callback = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"save_last": True}}
    trainer = {"callbacks": [callback], "default_root_dir": "runs", "max_epochs": -1}
    Path("overlay.yaml").write_text(yaml.safe_dump({"trainer": trainer}))
    words = ["--config", recipe, "--config", "overlay.yaml", "--trainer.logger", "CSVLogger"]
    words += ["--trainer.logger.save_dir", "logs"]
    rates = record_rates(monkeypatch)
    for steps in (2, 5, 6):  # the third continues the second
        resume = ["--ckpt_path", "last"] if steps > 2 else []
        assert fit(*words, "--trainer.max_steps", str(steps), *resume) == 0
        newest = max(Path("logs").rglob("last.ckpt"), key=lambda path: path.stat().st_mtime_ns)
        assert torch.load(newest, weights_only=True)["global_step"] == steps
        assert len(rates) == steps
    assert len(list(Path("logs").rglob("last.ckpt"))) == 3
    assert main(["fake", "predict", *words, "--ckpt_path", "last"]) == 0


def test_last_in_the_folder_of_the_callback(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a logger a second run finds last.ckpt taken and writes last-v1.ckpt."""
    options = {"save_last": True, "dirpath": str(tmp_path / "kept")}
    callback = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": options}
    Path("overlay.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [callback], "max_epochs": -1}}))
    words = ["--config", recipe, "--config", "overlay.yaml"]
    assert fit(*words, "--trainer.max_steps", "2") == 0
    assert fit(*words, "--trainer.max_steps", "4") == 0
    rates = record_rates(monkeypatch)
    assert fit(*words, "--trainer.max_steps", "5", "--ckpt_path", "last") == 0
    assert len(rates) == 1


@pytest.mark.parametrize("verb", ["fit", "predict"])
def test_last_and_best_without_a_checkpoint(verb: str, recipe: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["fake", verb, "--config", recipe, "--trainer.default_root_dir", "runs", "--ckpt_path"]
    assert main([*words, "last"]) == 2
    assert "there is no last.ckpt below runs;" in capfd.readouterr().err.splitlines()[-1]
    assert main([*words, "best"]) == 2
    assert "give the file" in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_random_weights_are_not_used(verb: str, recipe: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fake", verb, "--config", recipe]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith(f"ornstein: {verb} was given no weights")
    assert "--ckpt_path" in line
    assert "--model.init_from" in line


def record_rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Collect the learning rate of every step from now on."""
    from ornstein_fake.training import TinyTask

    rates: list[float] = []
    step = TinyTask.training_step

    def spy(self: Any, batch: Any, index: int) -> Any:
        rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return step(self, batch, index)

    monkeypatch.setattr(TinyTask, "training_step", spy)
    return rates


def test_default_recipe_is_read_and_the_command_line_wins(recipe: str) -> None:
    Path(recipe).rename("fake-defaults.yaml")
    assert fit("--model.lr", "0.25") == 0
    saved = yaml.safe_load(Path("config.yaml").read_text())
    assert saved["model"]["lr"] == 0.25
    assert saved["model"]["network"]["init_args"]["width"] == 3


def test_what_is_no_checkpoint_of_fit(recipe: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, expected in (("a.ckpt", "is no checkpoint of fit"), ("a.safetensors", "--model.init_from")):
        (tmp_path / name).write_bytes(b"RIFF")
        assert expected in complaint(capfd, "--config", recipe, "--ckpt_path", str(tmp_path / name))


def test_a_checkpoint_of_another_network_or_program(
    recipe: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", recipe, "--trainer.max_steps", "1"]
    assert fit(*words) == 0
    made = next(Path().rglob("*.ckpt"))
    torch.save({"state_dict": {}, "object": Path}, tmp_path / "published.ckpt")
    assert "import command" in complaint(capfd, *words, "--ckpt_path", str(tmp_path / "published.ckpt"))
    content = torch.load(made, weights_only=True)
    content["state_dict"] = {name: tensor[..., :0] for name, tensor in content["state_dict"].items()}
    torch.save(content, tmp_path / "other.ckpt")
    told = complaint(capfd, *words, "--ckpt_path", str(tmp_path / "other.ckpt"))
    assert "another network than the recipe (size mismatch for" in told


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--trainer.max_epoch", "1"], "did you mean --trainer.max_epochs?"),
        (["--trainer.max_ep=1"], "did you mean --trainer.max_epochs?"),
        (["--model.lr", "abc"], "--model.lr abc is no number"),
        (["--trainer.gradient_clip_val", "nan"], "--trainer.gradient_clip_val nan is no number"),
        (["--model.network", "nonsense.Layer"], "No module named 'nonsense'"),
        (["--model.network", "torch.nn.Linear"], "torch.nn.Linear"),
        (["--model.network.init_args.wid", "3"], "wid"),
        (["--config", "none.yaml"], "none.yaml"),
        (["--ckpt_path", "none.ckpt"], "there is no checkpoint none.ckpt"),
        (["--ckpt_path", ""], "--ckpt_path is empty"),
        (["--seed_everything", "-3"], "--seed_everything: -3 is not in bounds"),
        (["--trainer.accumulate_grad_batches", "0"], "--trainer.accumulate_grad_batches 0 is too small"),
        (["--trainer.check_val_every_n_epoch", "0"], "it must be at least 1"),
        (["--trainer.gradient_clip_val", "-1"], "--trainer.gradient_clip_val -1 is too small"),
        (["--trainer.log_every_n_steps", "-1"], "--trainer.log_every_n_steps -1 is too small"),
        (["--trainer.default_root_dir", "/proc/x"], "cannot create the folder /proc/x: /proc takes no new files"),
        (["--data.folder", "missing"], "there is no folder missing; give --data.folder"),
    ],
)
def test_mistakes_give_one_line(
    words: list[str], expected: str, recipe: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert expected in complaint(capfd, "--config", recipe, *words)


def test_missing_gpu(recipe: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    for accelerator in (CUDAAccelerator, MPSAccelerator):
        monkeypatch.setattr(accelerator, "is_available", staticmethod(lambda: False))
    assert "gpu" in complaint(capfd, "--config", recipe, "--trainer.accelerator", "gpu")


@pytest.mark.parametrize("section", ["trainer", "model", "data"])
def test_unknown_key_in_a_recipe(section: str, recipe: str, capfd: pytest.CaptureFixture[str]) -> None:
    content = yaml.safe_load(Path(recipe).read_text())
    content.setdefault(section, {})["nonsense"] = 1
    Path(recipe).write_text(yaml.safe_dump(content))
    assert "nonsense" in complaint(capfd, "--config", recipe)


def test_mistyped_keys_and_files_without_settings(recipe: str, capfd: pytest.CaptureFixture[str]) -> None:
    content = yaml.safe_load(Path(recipe).read_text())
    content["trainer"]["max_stepps"] = 1
    Path("typo.yaml").write_text(yaml.safe_dump(content))
    told = complaint(capfd, "--config", "typo.yaml")
    assert "there is no option 'trainer.max_stepps'; did you mean --trainer.max_steps?" in told
    for text, seen in (("hello", " but hello"), ("", "; it is empty")):
        Path("text.yaml").write_text(text)
        assert f"holds no settings (name: value){seen}" in complaint(capfd, "--config", "text.yaml")


def test_missing_argument_is_named(fake_app: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "model.network" in complaint(capfd)


def test_interrupt_gives_130(shell: Callable[..., "subprocess.CompletedProcess[str]"], recipe: str) -> None:
    result = shell("-m", "ornstein", "fake", "fit", "--config", recipe, "--model.interrupt", "true")
    assert result.returncode == 130
    assert result.stderr.endswith("ornstein: interrupted\n")


def test_full_help_and_print_config(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        fit("--help-all")
    assert stop.value.code == 0
    assert "--trainer.accumulate_grad_batches" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        fit("--config", recipe, "--print_config")
    assert stop.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["lr"] == 0.01


def test_two_processes_start_from_the_same_words(
    shell: Callable[..., "subprocess.CompletedProcess[str]"], recipe: str
) -> None:
    """The second process is started from sys.argv; both end with the same weights."""
    words = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_epochs", "2"]
    result = shell("-m", "ornstein", "fake", "fit", "--config", recipe, *words)
    assert result.returncode == 0, result.stderr
    # the two write at the same time, at times on one line
    found = dict(re.findall(r"(rank \d of 2): (\S+?)(?=rank|\s|$)", result.stdout))
    assert found.keys() == {"rank 0 of 2", "rank 1 of 2"}
    assert len(set(found.values())) == 1
