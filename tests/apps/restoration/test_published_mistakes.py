"""What a checkpoint file lacks or holds besides is one line; nothing in it is run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from published_checkpoints import (
    STORED,
    UNET,
    atd_file,
    dit_file,
    imported,
    own_tensors,
    rddm_file,
    resfusion_file,
    saved,
    upsr_file,
)
from reference_weights import (
    filled,
)
from restoration_networks import CASES
from torch import Tensor

from ornstein import checkpoint
from ornstein.cli import main
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.residual_unet import ResidualUNet
from ornstein.networks.unet import UNet
from ornstein.parameterization import X0, ResNoise
from ornstein.process.resfusion import LinearPro, Resfusion
from ornstein.process.vp import CosineVP
from ornstein.residual_outputs import ResidualOutputs
from ornstein.two_networks import TwoNetworks
from ornstein_restoration.export import export
from ornstein_restoration.published import import_checkpoint
from ornstein_restoration.representation import PictureSpace


def changed(path: Path, change: Callable[[Any], Any]) -> Path:
    """The file again, with its content changed in place."""
    content = torch.load(path, weights_only=True)
    change(content)
    return saved(path, content)


def wider(folder: Path) -> Path:
    def change(content: Any) -> None:
        content["params_ema"]["module.input_blocks.0.0.weight"] = torch.zeros(32, 147, 3, 3)

    return changed(upsr_file(folder), change)


def without(folder: Path, name: str) -> Path:
    return changed(resfusion_file(folder), lambda content: content["state_dict"].pop(f"denoising_module.{name}"))


def unmasked(folder: Path) -> Path:
    def change(content: Any) -> None:
        content["params_ema"] = {n: t for n, t in content["params_ema"].items() if not n.endswith("attn_mask")}

    return changed(upsr_file(folder), change)


def truncated(folder: Path) -> Path:
    path = resfusion_file(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def misshapen(folder: Path) -> Path:
    def change(content: Any) -> None:
        content["state_dict"]["denoising_module.time_mlp.1.bias"] = torch.zeros(31)

    return changed(resfusion_file(folder), change)


def text(folder: Path) -> Path:
    path = folder / "model.pth"
    path.write_text("no checkpoint")
    return path


def unknown_tables(folder: Path) -> Path:
    def change(content: Any) -> None:
        content["ema"]["ema_model.alphas"] = torch.linspace(0, 1, 40) ** 5

    return changed(rddm_file(folder, process=STORED), change)


MISTAKES: dict[str, tuple[Callable[[Path], Path], dict[str, Any], str]] = {
    "channels": (wider, {}, r"input_blocks.0.0.weight has the shape \(32, 147, 3, 3\) instead of \(32, 144, 3, 3\)"),
    "channels of a UNet": (
        lambda folder: resfusion_file(folder, 4),
        {},
        r"init_conv.weight has the shape \(8, 7, 7, 7\) instead of \(8, 3, 7, 7\) or \(8, 6, 7, 7\) or \(8, 8, 7, 7\)",
    ),
    "lacking": (lambda folder: without(folder, "final_conv.bias"), {}, "1 missing .final_conv.bias.*; give the file"),
    "lacking level": (lambda folder: without(folder, "downs.1.3.weight"), {}, "lacks the tensor downs.1.3.weight"),
    "misshapen": (misshapen, {}, r"time_mlp.1.bias \(31,\) instead of \(32,\)"),
    "truncated": (truncated, {}, "damaged"),
    "text": (text, {}, "no checkpoint of plain tensors|damaged"),
    "absent": (lambda folder: folder / "absent.pth", {}, "there is no file"),
    "kind": (rddm_file, {"kind": "upsr"}, "holds rddm, not upsr; give --kind rddm"),
    "kind of a UNet": (resfusion_file, {"kind": "rddm"}, "not rddm; give --kind resfusion"),
    "no network": (
        lambda folder: saved(folder / "x.pth", {"fc.weight": torch.ones(2)}),
        {},
        "no network that is known",
    ),
    "no tensors": (lambda folder: saved(folder / "x.pth", {"params": {"a": 1}}), {}, "its entry params holds no named"),
    "a list": (lambda folder: saved(folder / "x.pth", [torch.ones(2)]), {}, "holds a list and no weights"),
    "no averages": (lambda folder: rddm_file(folder, ema=False), {"weights": "ema"}, "has no averaged weights"),
    "no averages beside": (resfusion_file, {"weights": "ema"}, "has no averaged weights"),
    "option of another kind": (resfusion_file, {"sum_scale": 0.01}, "--sum_scale is for rddm"),
    "option of a transformer": (resfusion_file, {"num_heads": 2}, "--num_heads is for transformers"),
    "groups": (resfusion_file, {"groups": 3}, "groups divide"),
    "T": (resfusion_file, {"schedule_steps": 1}, "needs 2 steps or more"),
    "T against the file": (
        lambda folder: rddm_file(folder, process=STORED),
        {"schedule_steps": 1000},
        "stores schedule_steps 40, and --schedule_steps is 1000",
    ),
    "sum_scale against the file": (
        lambda folder: rddm_file(folder, process=STORED),
        {"sum_scale": 1.0},
        "stores sum_scale 0.01, and --sum_scale is 1",
    ),
    "tables": (unknown_tables, {}, "coefficients alphas are none"),
    "objective of one output": (
        rddm_file,
        {"objective": "pred_res_noise"},
        "has 1 outputs.*give pred_res or pred_noise",
    ),
    "objective of two": (lambda folder: rddm_file(folder, 2), {"objective": "pred_res"}, "has 2 outputs"),
    "schedule in the file": (lambda folder: resfusion_file(folder, noise_schedule="cubic"), {}, "schedule 'cubic'"),
    "mode in the file": (lambda folder: resfusion_file(folder, mode="noise"), {}, "mode 'noise'; give --mode"),
    "T in the file": (lambda folder: resfusion_file(folder, T=20.5), {}, "T = 20.5; give the number of steps"),
    "steps": (resfusion_file, {"steps": 6}, "--steps 6 must be at least 1 and at most 5"),
    "no masks": (unmasked, {}, "give --image_size"),
    "no predictor": (upsr_file, {}, "--predictor atd_real.pth"),
    "predictor of another kind": (atd_file, {"predictor": Path("atd.pth")}, "--predictor is for upsr"),
    "heads": (dit_file, {"num_heads": 3}, "num_heads 3"),
    "tokens": (atd_file, {"category_size": 0}, "must be at least 1"),
    "kappa": (
        lambda folder: saved(folder / "r.pth", own_tensors(CASES["Swin-UNet"].build())),
        {"noise_scale": 0.0},
        "noise_scale",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(name: str, tmp_path: Path) -> None:
    make, options, message = MISTAKES[name]
    with pytest.raises(UserError, match=message) as caught:
        import_checkpoint(make(tmp_path), tmp_path / "out.safetensors", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_predictor_that_is_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds resfusion, not atd"):
        imported(upsr_file(tmp_path), predictor=resfusion_file(tmp_path))
    imported(resfusion_file(tmp_path))
    with pytest.raises(UserError, match="holds a Denoiser"):
        imported(upsr_file(tmp_path), predictor=tmp_path / "model-imported.safetensors")


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    content = torch.load(resfusion_file(tmp_path), weights_only=True)
    content["hyper_parameters"] = {"T": 20, "denoising_module": Trap(sprung)}
    loaded = imported(saved(tmp_path / "trap.ckpt", content))
    assert loaded.denoiser.process == Resfusion(LinearPro(20))
    with pytest.raises(UserError, match="has no state_dict"):
        imported(saved(tmp_path / "trap.ckpt", {"state_dict": Trap(sprung)}))
    assert not sprung.exists()


def test_what_the_layout_cannot_say_is_refused(tmp_path: Path) -> None:
    def refuse(
        denoiser: Denoiser, target: str, message: str, space: PictureSpace | None = None, **options: Any
    ) -> None:
        own = tmp_path / "own.safetensors"
        checkpoint.save(own, denoiser, app="restoration", representation=space, overwrite=True)
        with pytest.raises(UserError, match=message):
            export(own, tmp_path / target, layout="published", **options)
        assert not (tmp_path / target).exists()

    network = filled(ResidualUNet(**UNET))
    refuse(Denoiser(network, Resfusion(), ResNoise()), "x.pth", "published files end in .ckpt")
    refuse(Denoiser(network, Resfusion(published_start=False), ResNoise()), "x.ckpt", "its process.*published_start")
    refuse(Denoiser(network, Resfusion(), X0()), "x.ckpt", "cannot say that the network gives X0")
    refuse(Denoiser(network, STORED, ResidualOutputs("pred_res", clip=False)), "x.pt", "its parameterization.*clip")
    refuse(Denoiser(network, CosineVP(), X0()), "x.pt", "no published layout for the process")
    refuse(Denoiser(network, Resfusion(), ResNoise()), "x.ckpt", "mask 'image'", PictureSpace(mask="image"))
    refuse(Denoiser(network, Resfusion(), ResNoise()), "x.ckpt", "no predictor", predictor=tmp_path / "g.pth")
    refuse(Denoiser(network, Resfusion(), ResNoise()), "x.ckpt", "--note", note="mine")
    pair = TwoNetworks(network, network, STORED, ResidualOutputs(), amounts=1000.0)
    refuse(pair, "x.pt", "amounts 1000.0 of its TwoNetworks")
    refuse(Denoiser(UNet(channels=3, width=8, levels=2), Resfusion(), ResNoise()), "x.ckpt", "no published code has")


def test_commands(tmp_path: Path, picture: Tensor) -> None:
    source, target, small = resfusion_file(tmp_path), tmp_path / "own.safetensors", tmp_path / "in.png"
    Image.fromarray((picture.permute(1, 2, 0) * 255).byte().numpy()).save(small)
    assert main(["restoration", "import", str(source), "-o", str(target), "--kind", "resfusion", "--half"]) == 0
    out = tmp_path / "out.png"
    assert main(["restoration", "restore", str(small), "-o", str(out), "--checkpoint", str(target)]) == 0
    assert Image.open(out).size == (24, 16)
    assert main(["restoration", "import", str(source), "-o", str(target)]) == 2
