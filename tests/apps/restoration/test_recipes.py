"""Recipes run as they are, but for small networks, small data and two steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from ornstein import checkpoint
from ornstein.cli import main
from ornstein.networks.vq import VQAutoencoder
from ornstein.published_shift import reconstruction
from ornstein_restoration.regression import RegressionUpscaler

FOLDER = Path(__file__).parents[3] / "configs/restoration"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml") if not path.stem.startswith("photos"))

SMALL: dict[str, dict[str, Any]] = {
    "ResidualUNet": {"dim": 8, "dim_mults": [1, 2]},
    "SharedEncoderUNet": {"dim": 8, "dim_mults": [1, 2]},
    "DiT": {"input_size": 32, "hidden_size": 16, "depth": 1, "num_heads": 2},
    "DDIMUNet": {"ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1},
    "ATD": {
        "embed_dim": 16, "depths": [1], "num_heads": [2], "window_size": 4, "category_size": 12, "num_tokens": 4,
        "reducted_dim": 4, "convffn_kernel_size": 3,
    },
    "SwinUNet": {
        "model_channels": 32, "channel_mult": [1, 1], "num_res_blocks": [1, 1], "attention_resolutions": [8],
        "image_size": 8, "swin_embed_dim": 32, "swin_depth": 1, "num_head_channels": 16, "window_size": 4,
    },
    "VQAutoencoder": {"ch": 32, "ch_mult": [1, 1, 1], "num_res_blocks": 1, "n_embed": 16},
}  # fmt: skip


def shrink(node: Any) -> Any:
    """`node` with the networks of SMALL."""
    if isinstance(node, list):
        return [shrink(each) for each in node]
    if not isinstance(node, dict):
        return node
    changed = {name: shrink(value) for name, value in node.items()}
    name = str(changed.get("class_path", "")).rpartition(".")[2]
    if name in SMALL:
        small = SMALL[name] | ({"num_feat": 16} if "num_feat" in changed.get("init_args", {}) else {})
        changed["init_args"] = changed.get("init_args", {}) | small
    return changed


@pytest.fixture(scope="module")
def data(
    tmp_path_factory: pytest.TempPathFactory,
    photo: Callable[..., np.ndarray],
    save: Callable[[Path, np.ndarray], Path],
) -> Path:
    """A few pairs in every layout."""
    root = tmp_path_factory.mktemp("data")
    mask = np.zeros((32, 32, 3), np.uint8)
    mask[8:16] = 255
    for i in range(4):
        picture = photo(i, 32, 32)
        for kind, pixels in (("A", picture // 2), ("B", mask), ("C", picture)):
            save(root / f"istd/train/train_{kind}/{i}-1.png", pixels)
        for side, pixels in (("low", picture // 4), ("high", picture)):
            save(root / f"lol/our485/{side}/{i}.png", pixels)
        for side, name, pixels in (("data", "rain", picture // 2), ("gt", "clean", picture)):
            save(root / f"raindrop/train/{side}/{i}_{name}.png", pixels)
        for folder in ("imagenet/train", "imagenet/val", "cifar10/train", "cifar10/test"):
            save(root / folder / f"{i}.png", picture)
    return root


def run(name: str, data: Path, folder: Path, *words: str) -> None:
    settings = shrink(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))
    settings["model"] |= {"tile": 32} if name == "resfusion_dit" else {}
    settings["model"]["representation"]["init_args"] |= {"multiple": 32}
    settings["data"] |= {
        "root": str(data / Path(settings["data"]["root"]).name),
        "batch_size": 2,
        "num_workers": 0,
        "valid_files": 1,
        **{side: 32 for side in ("crop", "resize") if settings["data"].get(side)},
    }
    settings["trainer"] |= {
        "accelerator": "cpu",
        "devices": 1,
        "precision": "32-true",
        "max_steps": 2,
        "val_check_interval": 1,
        "accumulate_grad_batches": 1,
        "check_val_every_n_epoch": 1,
        "default_root_dir": str(folder),
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    assert main(["restoration", "fit", "--config", str(path), *words]) == 0


@pytest.mark.filterwarnings("ignore:.*published")
@pytest.mark.parametrize("name", RECIPES)
def test_recipe_trains_and_is_exported(
    name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = []
    if name == "upsr_imagenet":
        from ornstein.networks.atd import ATD

        words = ["--model.predictor_from", str(tmp_path / "g.safetensors")]
        checkpoint.save(tmp_path / "g.safetensors", RegressionUpscaler(ATD(**SMALL["ATD"])), app="restoration")
    if name == "resshift_latent":
        words = ["--model.autoencoder_from", str(tmp_path / "vq.safetensors")]
        network = reconstruction(VQAutoencoder(**SMALL["VQAutoencoder"]))
        checkpoint.save(tmp_path / "vq.safetensors", network.eval(), app="restoration")
    run(name, data, tmp_path, *words)
    said = capsys.readouterr().err
    assert ("of which" in said) == name.startswith("resfusion")
    (last,) = tmp_path.rglob("last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 2
    words = ["export", str(last), "-o", str(tmp_path / "out.safetensors")]
    words += ["--weights", "raw"] if name.startswith("resfusion") and name != "resfusion_cifar10" else []
    assert main(["restoration", *words]) == 0
    loaded = checkpoint.load(tmp_path / "out.safetensors", app="restoration")
    if name == "resshift_latent":  # frozen; exported in float16
        own, given = loaded.denoiser.autoencoder, network.network  # type: ignore[attr-defined]
        assert all(torch.equal(t, given.state_dict()[key].half().float()) for key, t in own.state_dict().items())


def test_an_autoencoder_with_random_weights_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AssertionError):
        run("resshift_latent", data, tmp_path)
    assert "the autoencoder of this model has random weights" in capsys.readouterr().err.splitlines()[-1]
