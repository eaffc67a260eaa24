"""The recipes of StoRM, of its predictive model and of DCUNet at tiny size, from training to an enhanced file."""

from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import yaml

from ornstein import checkpoint
from ornstein.cli import main
from ornstein_speech.enhance import Enhancer
from ornstein_speech.published import read_published

ROOT = Path(__file__).parents[3]
NOISY = ROOT / "data/speech/noisy/it_pink_2.5dB.flac"
SMALL = {"nf": 8, "ch_mult": [1, 1, 2, 2]}
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


def fit(recipe: str, folder: Path) -> Path:
    """Two steps of the recipe on the real recordings in data/speech/tiny, with a small network; the last checkpoint."""
    callbacks = [
        {"class_path": "ornstein.training.ema.EMA"},
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"save_last": True}},
    ]
    trainer = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "default_root_dir": str(folder), "logger": False}
    trainer |= {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
    steps = {} if recipe == "voicebank_predictive" else {"sampler": {"init_args": {"steps": 2}}}
    model = {"denoiser": {"init_args": NETWORKS[recipe]}, **steps}
    overlay = folder / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({"model": model, "data": DATA, "trainer": {**trainer, "callbacks": callbacks}}))
    words = ["--config", str(ROOT / f"configs/speech/{recipe}.yaml"), "--config", str(overlay)]
    assert main(["speech", "fit", *words]) == 0
    (last,) = folder.rglob("last.ckpt")
    return last


@pytest.mark.parametrize("recipe", NETWORKS)
def test_from_recipe_to_enhanced_file(recipe: str, tmp_path: Path) -> None:
    trained = fit(recipe, tmp_path)
    own, published = tmp_path / "own.safetensors", tmp_path / "published.ckpt"
    assert main(["speech", "export", str(trained), "-o", str(own)]) == 0
    output = tmp_path / "out.wav"
    assert main(["speech", "enhance", str(NOISY), "-o", str(output), "--checkpoint", str(own), "--device", "cpu"]) == 0
    wave, rate = soundfile.read(output)
    assert (rate, len(wave)) == (16000, soundfile.info(NOISY).frames)
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
