"""Recipes of published models at tiny size, from training to an enhanced file."""

from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import yaml
from scipy.signal import resample_poly

from ornstein import checkpoint
from ornstein.cli import main
from ornstein_speech.enhance import Enhancer
from ornstein_speech.published import read_published

ROOT = Path(__file__).parents[3]
NAME = "it_pink_2.5dB.flac"
SMALL = {"nf": 4, "ch_mult": [1, 1, 1, 2]}
NETWORKS: dict[str, Any] = {
    "voicebank_storm": {
        "network": {"init_args": SMALL},
        "predictor": {"init_args": {"network": {"init_args": SMALL}}},
    },
    "voicebank_predictive": {"network": {"init_args": SMALL}},
    "voicebank_dcunet": {"network": {"init_args": {"architecture": "DCUNet-10", "embed_dim": 8}}},
}
DATA = {
    "root": str(ROOT / "data/speech/tiny"),
    "layout": "mixes",
    "batch_size": 2,
    "samples": 3968,
    "epoch_length": 4,
    "valid_files": 1,
    "num_workers": 0,
}


def fit(recipe: str, folder: Path, network: dict[str, Any], **data: Any) -> Path:
    """The last checkpoint of two steps of the recipe on real recordings, with a small network."""
    callbacks = [
        {"class_path": "ornstein.training.ema.EMA"},
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"save_last": True}},
    ]
    trainer = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "default_root_dir": str(folder), "logger": False}
    trainer |= {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
    steps = {} if recipe == "voicebank_predictive" else {"sampler": {"init_args": {"steps": 2}}}
    model = {"denoiser": {"init_args": network}, **steps}
    overlay = folder / "overlay.yaml"
    overlay.write_text(
        yaml.safe_dump({"model": model, "data": DATA | data, "trainer": {**trainer, "callbacks": callbacks}})
    )
    words = ["--config", str(ROOT / f"configs/speech/{recipe}.yaml"), "--config", str(overlay)]
    assert main(["speech", "fit", *words]) == 0
    (last,) = folder.rglob("last.ckpt")
    return last


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """A second of a noisy recording."""
    wave, rate = soundfile.read(ROOT / "data/speech/noisy" / NAME)
    soundfile.write(tmp_path / "noisy.wav", wave[rate : 2 * rate], rate)
    return tmp_path / "noisy.wav"


@pytest.mark.parametrize("recipe", NETWORKS)
def test_from_recipe_to_enhanced_file(recipe: str, noisy: Path, tmp_path: Path) -> None:
    trained = fit(recipe, tmp_path, NETWORKS[recipe])
    own, published = tmp_path / "own.safetensors", tmp_path / "published.ckpt"
    assert main(["speech", "export", str(trained), "-o", str(own)]) == 0
    output = tmp_path / "out.wav"
    assert main(["speech", "enhance", str(noisy), "-o", str(output), "--checkpoint", str(own), "--device", "cpu"]) == 0
    wave, rate = soundfile.read(output)
    assert (rate, len(wave)) == (16000, soundfile.info(noisy).frames)
    assert abs(wave).max() > 0  # two steps teach a predictor little more than silence

    # the published layout holds the raw and the averaged weights, in full precision
    words = ["speech", "export", str(trained), "-o", str(published), "--layout", "published"]
    uniform = recipe == "voicebank_dcunet"
    assert main([*words, *(["--default_sampler"] if uniform else [])]) == 0
    original = checkpoint.read_lightning(trained)
    for weights, state in (("ema", original.ema_state_dict()), ("raw", original.state_dict)):
        denoiser, *_ = read_published(published, weights, "uniform" if uniform else "current")  # type: ignore[arg-type]
        for name, tensor in denoiser.state_dict().items():
            assert torch.equal(tensor, state[f"denoiser.{name}"]), name
    differ = [n for n, t in original.ema_state_dict().items() if not torch.equal(t, original.state_dict[n])]
    assert any(name.startswith("denoiser.network.") for name in differ)
    if recipe == "voicebank_storm":
        assert any(name.startswith("denoiser.predictor.network.") for name in differ)
        assert Enhancer(own, device="cpu").evaluations == 3


def test_48_khz_pairs(noisy: Path, tmp_path: Path) -> None:
    """The recipe of EARS-WHAM on pairs of its layout and rate; a file of 16 kHz comes back at 16 kHz."""
    for side in ("clean", "noisy"):
        wave, rate = soundfile.read(ROOT / "data/speech" / side / NAME)
        for split in ("train", "valid"):
            target = tmp_path / "ears" / split / side / "speaker/a.wav"
            target.parent.mkdir(parents=True)
            soundfile.write(target, resample_poly(wave[rate : 2 * rate], 3, 1), 48000)
    small = {"network": {"init_args": SMALL}}
    trained = fit(
        "ears_wham_48k", tmp_path, small, root=str(tmp_path / "ears"), layout="pairs", samples=31 * 384, batch_size=1
    )
    own, output = tmp_path / "own.safetensors", tmp_path / "out.wav"
    assert main(["speech", "export", str(trained), "-o", str(own)]) == 0
    assert main(["speech", "enhance", str(noisy), "-o", str(output), "--checkpoint", str(own), "--device", "cpu"]) == 0
    assert soundfile.info(output).samplerate == 16000
    assert soundfile.info(output).frames == soundfile.info(noisy).frames
    published = tmp_path / "published.ckpt"
    assert main(["speech", "export", str(trained), "-o", str(published), "--layout", "published"]) == 0
    denoiser, representation, sampler, info = read_published(published)
    loaded = checkpoint.load(own)
    assert (info["backbone"], representation, sampler) == ("ncsnpp_48k", loaded.representation, loaded.sampler)
    assert denoiser.process == loaded.denoiser.process
