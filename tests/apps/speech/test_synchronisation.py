"""No training step of a shipped recipe waits for the device, but those whose losses are logged."""

from pathlib import Path

import pytest
import torch
import yaml
from device_reads import Reads, ReadsPerStep

from ornstein.training.cli import LightningCommand, run_lightning
from ornstein_speech.data import SpeechData
from ornstein_speech.representation import CompressedSpectrogram
from ornstein_speech.task import SpeechTask

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("recipe", sorted(path.stem for path in (ROOT / "configs/speech").glob("*.yaml")))
def test_steps_between_two_lines_of_the_log_read_nothing(
    recipe: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(LightningCommand, "_run_subcommand", lambda self, verb: None)
    content = yaml.safe_load((ROOT / f"configs/speech/{recipe}.yaml").read_text())["model"]
    network = content["denoiser"]["init_args"]["network"]["class_path"].rpartition(".")[2]
    hop = content["representation"].get("init_args", {}).get("hop", 128)
    options = {
        "trainer.accelerator": "cpu",
        "trainer.precision": "32-true",
        "trainer.devices": "1",
        "trainer.default_root_dir": str(tmp_path),
        "trainer.logger": "false",
        "trainer.max_steps": "6",
        "trainer.log_every_n_steps": "4",
        "trainer.limit_val_batches": "0",
        "trainer.enable_checkpointing": "false",
        "trainer.enable_progress_bar": "false",
        "trainer.callbacks": "[ornstein.training.ema.EMA, ornstein.training.throughput.Throughput]",
        "data.root": str(ROOT / "data/speech/tiny"),
        "data.layout": "mixes",
        "data.samples": str((24 if hop > 128 else 64) * hop - hop),
        "data.batch_size": "1",
        "data.epoch_length": "6",
        "data.num_workers": "0",
    }
    if network == "NCSNpp":
        prefix = "model.denoiser.init_args.network.init_args"
        options |= {f"{prefix}.nf": "8", f"{prefix}.ch_mult": "[1, 1, 1, 1]"}
    words = ["--config", str(ROOT / f"configs/speech/{recipe}.yaml")]
    words += [word for name, value in options.items() for word in (f"--{name}", value)]
    command = run_lightning(SpeechTask, SpeechData, "fit", words, "ornstein speech")
    reads = ReadsPerStep()
    command.trainer.callbacks.append(reads)
    command.trainer.fit(command.model, command.datamodule)
    assert [step for step, count in enumerate(reads.steps) if count] == [0, 3]


def test_the_count_finds_what_the_library_reads() -> None:
    """torch.istft checks its window, so the representation has its own inverse, with the same values."""
    representation = CompressedSpectrogram(transform="none")
    wave = torch.randn(2, 1, 4000, generator=torch.Generator().manual_seed(0), requires_grad=True)
    spec, window = representation.forward(wave), representation._window(wave)
    for length in (3968, 3500, 100):
        with Reads() as own:
            inverse = representation.inverse(spec, length)
        with Reads() as library:
            expected = torch.istft(spec[:, 0], 510, 128, window=window, length=length)
        assert (own.count, library.count) == (0, 1)
        torch.testing.assert_close(inverse[:, 0], expected, rtol=0, atol=2e-6)
    (gradient,) = torch.autograd.grad(representation.inverse(spec, 3968).abs().sum(), wave)
    assert gradient.isfinite().all()
