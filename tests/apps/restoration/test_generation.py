"""Models of generation: their published files, and pictures drawn from them."""

from pathlib import Path

import pytest
import torch
from published_checkpoints import UNET, imported, own_tensors, resfusion_file, saved
from reference_weights import largest_error
from restoration_networks import CASES

from ornstein.cli import main
from ornstein.denoiser import Denoiser
from ornstein.networks.dit import DiT
from ornstein.networks.residual_unet import ResidualUNet
from ornstein.noise import SampleNoise
from ornstein.parameterization import X0, ResNoise
from ornstein.process.resfusion import LinearPro, Resfusion
from ornstein.samplers.ancestral import Ancestral
from ornstein.training.seeds import derive_seed
from ornstein.wrapped_parameterizations import ClippedX0, HiddenObservation
from ornstein_restoration.datasets import read_pixels
from ornstein_restoration.degradations import Blank
from ornstein_restoration.representation import PictureSpace


def test_blank_is_zero_on_the_range_of_the_process() -> None:
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    degraded = Blank()(image, torch.Generator()).image
    assert torch.equal(PictureSpace().observation(degraded[None]), torch.zeros(1, 3, 8, 8))


def test_generation_of_resfusion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {"state_dict": own_tensors(CASES["DDIM"].build(), "denoising_module.")}
    path = saved(tmp_path / "cifar10.ckpt", content)
    loaded = imported(path, schedule_steps=12, image_size=16)
    assert (loaded.denoiser.process, loaded.sampler) == (Resfusion(), Ancestral(5))
    target, folder = tmp_path / "cifar10-imported.safetensors", tmp_path / "out"
    words = [str(target), "-o", str(folder), "--count", "3", "--batch", "2", "--device", "cpu"]
    assert main(["restoration", "generate", *words]) == 0
    assert main(["restoration", "generate", *words]) == 2  # nothing is overwritten
    assert "exists" in capsys.readouterr().err
    denoiser = Denoiser(CASES["DDIM"].network(), Resfusion(), HiddenObservation(ResNoise()))
    blank = torch.zeros(1, 3, 16, 16)
    for i in range(3):
        noise = SampleNoise([derive_seed(0, "sample", i)])
        expected = Ancestral(5)(denoiser, Resfusion().start(noise(blank), blank), blank, noise)
        written = read_pixels(folder / f"{i:05d}.png")
        assert largest_error(written, ((expected[0] + 1) / 2).clamp(0, 1)) < 0.51 / 255
    restore = ["restore", str(folder / "00000.png"), "-o", str(tmp_path / "x.png"), "--checkpoint", str(target)]
    assert main(["restoration", *restore]) == 2
    assert "use `ornstein restoration generate`" in capsys.readouterr().err
    assert main(["restoration", "evaluate", str(folder), "--checkpoint", str(target), "--degradation", "rain"]) == 2
    assert "model of generation" in capsys.readouterr().err
    imported(resfusion_file(tmp_path))
    words[0] = str(tmp_path / "model-imported.safetensors")
    assert main(["restoration", "generate", *words, "--overwrite"]) == 2
    assert "restores pictures" in capsys.readouterr().err


@pytest.mark.parametrize("backbone", ["RDDM", "DiT", "DDIM"])
def test_backbones_of_generation(backbone: str, tmp_path: Path) -> None:
    """273 steps, of which 100 are left, and the network is shown x alone."""
    networks = {
        "RDDM": lambda: ResidualUNet(condition_channels=0, **UNET),
        "DiT": lambda: DiT(16, 4, condition_channels=0, hidden_size=16, depth=1, num_heads=2),
        "DDIM": CASES["DDIM"].build,
    }
    path = saved(tmp_path / "model.ckpt", {"state_dict": own_tensors(networks[backbone](), "denoising_module.")})
    loaded = imported(path, mode="sample", **({"num_heads": 2} if backbone == "DiT" else {}))
    assert loaded.denoiser.process == Resfusion(LinearPro(273))
    assert loaded.denoiser.parameterization == HiddenObservation(ClippedX0(X0()))
    assert loaded.sampler == Ancestral(100)


@pytest.mark.parametrize(("words", "message"), [(["--count", "0"], "at least 1"), (["--first", "-1"], "at least 0")])
def test_numbers_that_draw_nothing(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["restoration", "generate", "x.safetensors", "-o", str(tmp_path), *words]) == 2
    assert message in capsys.readouterr().err
