"""Published files of DifIISR and ResShift come in with their schedule, and go out again bit by bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from reference_weights import filled, formula_weights, shapes_of
from torch import Tensor, nn

from ornstein import checkpoint
from ornstein.cli.apps import resolve
from ornstein.cli.parser import run_function
from ornstein.config import describe
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.latent import LatentDenoiser
from ornstein.networks import swin_unet
from ornstein.networks.swin_unet import SwinUNet
from ornstein.networks.vq import VQAutoencoder
from ornstein.process.residual_shift import DEFAULT15, JOURNAL4, ResidualShift
from ornstein.process.respaced_shift import RespacedShift
from ornstein.published_files import read
from ornstein.published_shift import computed
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler
from ornstein.samplers.ode_solvers import Heun
from ornstein.uncertainty import UncertaintyGuided
from ornstein_infrared.commands import app
from ornstein_infrared.export import export
from ornstein_infrared.published import import_checkpoint
from ornstein_infrared.representation import ThermalSpace


def swin(channels: int = 3) -> SwinUNet:
    return SwinUNet(
        3, channels, model_channels=32, channel_mult=(1, 2), num_res_blocks=(1, 1), attention_resolutions=(16, 8),
        image_size=16, swin_embed_dim=32, window_size=4,
    )  # fmt: skip


def vq(channels: int = 3) -> VQAutoencoder:
    return VQAutoencoder(channels, 32, (1, 1, 1), num_res_blocks=1, n_embed=16)


def saved(path: Path, network: nn.Module, wrap: bool = False, prefix: str = "") -> Path:
    tensors = formula_weights(shapes_of(network)) | computed(network)
    content: Any = {prefix + name: tensor for name, tensor in tensors.items()}
    torch.save({"state_dict": content} if wrap else content, path)
    return path


def imported(path: Path, **options: Any) -> checkpoint.Checkpoint:
    target = path.with_name(f"{path.stem}-imported.safetensors")
    import_checkpoint(path, target, overwrite=True, **options)
    return checkpoint.load(target, app="infrared")


@pytest.mark.parametrize(
    ("name", "process", "sampler"),
    [
        ("DifIISR.pth", DEFAULT15, Ancestral(1, eta=0.0)),
        ("resshift_realsrx4_s15_v2.pth", DEFAULT15, Ancestral(15)),
        ("resshift_bicsrx4_s4.pth", JOURNAL4, Ancestral(4)),
    ],
)
@pytest.mark.parametrize(("wrap", "prefix"), [(False, ""), (True, "module."), (False, "module._orig_mod.")])
def test_each_file_with_its_schedule(
    name: str, process: ResidualShift, sampler: Ancestral, wrap: bool, prefix: str, tmp_path: Path
) -> None:
    loaded = imported(saved(tmp_path / name, swin(), wrap, prefix), autoencoder=saved(tmp_path / "vq.pth", vq()))
    expected = LatentDenoiser(filled(swin()), process, filled(vq()))
    assert describe(loaded.denoiser) == describe(expected)
    assert loaded.sampler == sampler
    assert loaded.representation == ThermalSpace(channels=3, factor=4, multiple=64, bound=1.0)
    state = loaded.denoiser.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.state_dict().items())


@reference_files("infrared", "swin_unet_*.npz", needs=["config", "x0", "lq0", "t0", "y0", ".safetensors"])
def test_weights_of_the_published_code_give_its_output(vectors: ReferenceFile, tmp_path: Path) -> None:
    tensors = {n: w.float() if w.is_floating_point() else w for n, w in vectors.weights().items()}
    torch.save({"state_dict": tensors}, tmp_path / "DifIISR.pth")
    options = vectors.json("config")
    loaded = imported(tmp_path / "DifIISR.pth", autoencoder=saved(tmp_path / "vq.pth", vq()))
    assert loaded.denoiser.network.image_size == swin_unet.from_published(options).image_size
    with torch.no_grad():
        found = loaded.denoiser.network(*(vectors.tensor(name) for name in ("x0", "t0", "lq0")))
    torch.testing.assert_close(found, vectors.tensor("y0"), rtol=0, atol=1e-4)


def test_options_and_the_way_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, autoencoder = saved(tmp_path / "mine.pth", swin()), saved(tmp_path / "vq.pth", vq())
    loaded = imported(source, autoencoder=autoencoder, schedule_steps=7, noise_scale=1.5, steps=3)
    assert loaded.denoiser.process == ResidualShift(7, noise_scale=1.5)
    assert loaded.sampler == Ancestral(3)
    own = tmp_path / "mine-imported.safetensors"
    written, other = tmp_path / "again.pth", tmp_path / "again-vq.pth"
    export(own, written, layout="published", weights="raw", autoencoder=other)
    assert "--schedule_steps 7 --noise_scale 1.5 --steps 3" in capsys.readouterr().err
    first, second = read(source), read(written)["state_dict"]
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert all(torch.equal(tensor, read(other)[name]) for name, tensor in read(autoencoder).items())
    again = imported(written, autoencoder=other, schedule_steps=7, noise_scale=1.5, steps=3)
    assert describe(again.denoiser) == describe(loaded.denoiser)
    assert again.sampler == loaded.sampler
    export(own, tmp_path / "alone.pth", layout="published", weights="raw")
    assert "--autoencoder FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "sampler", "said"),
    [
        ("DifIISR.pth", Ancestral(1, eta=0.0), ""),
        ("mine.pth", Ancestral(1, eta=0.0), "import it with --steps 1"),
        ("mine.pth", Ancestral(15), ""),
        ("mine.pth", Heun(4), "it does not say how to sample, Heun("),
    ],
)
def test_how_to_sample_is_said_where_a_file_does_not(
    name: str, sampler: Sampler, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    denoiser = LatentDenoiser(filled(swin()), DEFAULT15, filled(vq()))
    own, space = tmp_path / "own.safetensors", ThermalSpace(channels=3, factor=4, bound=1.0)
    checkpoint.save(own, denoiser, app="infrared", representation=space, sampler=sampler, weights="raw")
    export(own, tmp_path / name, layout="published", weights="raw", autoencoder=tmp_path / "vq.pth")
    told = capsys.readouterr().err
    assert said in told if said else told == ""


def test_an_autoencoder_alone_in_both_directions(tmp_path: Path) -> None:
    source = saved(tmp_path / "vq.pth", vq(1), wrap=True)
    loaded = imported(source)
    assert isinstance(loaded.denoiser.network, VQAutoencoder)
    own = tmp_path / "vq-imported.safetensors"
    small = saved(tmp_path / "small_s4.pth", swin(1))
    model = imported(small, autoencoder=own)
    assert model.representation == ThermalSpace(channels=1, factor=4, bound=1.0)
    export(own, tmp_path / "back.pth", layout="published", weights="raw")
    back = read(tmp_path / "back.pth")
    assert all(torch.equal(tensor, back[name]) for name, tensor in read(source)["state_dict"].items())
    with pytest.raises(UserError, match="leave --autoencoder out"):
        export(own, tmp_path / "back2.pth", layout="published", weights="raw", autoencoder=tmp_path / "x.pth")


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    network, autoencoder = saved(tmp_path / "DifIISR.pth", swin()), saved(tmp_path / "vq.pth", vq())
    target = tmp_path / "out.safetensors"
    for source, options, message in (
        (network, {}, "add --autoencoder"),
        (network, {"autoencoder": network}, r"lacks the tensor encoder.conv_in.weight"),
        (network, {"autoencoder": autoencoder, "steps": 16}, "--steps 16"),
        (network, {"autoencoder": autoencoder, "noise_scale": -1.0}, "cannot be imported"),
        (autoencoder, {"schedule_steps": 4}, "leave the options out"),
        (tmp_path / "none.pth", {}, "there is no file"),
    ):
        with pytest.raises(UserError, match=message):
            import_checkpoint(source, target, **options)
    tensors: dict[str, Tensor] = torch.load(network, weights_only=True)
    for name, changed, message in (
        ("short", {n: t for n, t in tensors.items() if n != "time_embed.0.bias"}, "missing"),
        ("other", tensors | {"time_embed.0.bias": torch.zeros(3)}, r"time_embed.0.bias \(3,\) instead of \(128,\)"),
        ("more", tensors | {"extra": torch.zeros(3)}, "unexpected"),
        ("alien", {"w": torch.zeros(3)}, "neither a Swin-UNet nor"),
    ):
        path = tmp_path / f"{name}.pth"
        torch.save(changed, path)
        with pytest.raises(UserError, match=message):
            import_checkpoint(path, target, autoencoder=autoencoder)
    assert not target.exists()


def test_as_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, autoencoder = saved(tmp_path / "DifIISR.pth", swin()), saved(tmp_path / "vq.pth", vq())
    own, back = tmp_path / "own.safetensors", tmp_path / "back.pth"
    run_function(
        resolve(app.verbs["import"].target),
        [str(source), "-o", str(own), "--autoencoder", str(autoencoder), "--half"],
        prog="ornstein infrared import",
    )
    words = [str(own), "-o", str(back), "--layout", "published", "--weights", "raw"]
    run_function(resolve(app.verbs["export"].target), words, prog="ornstein infrared export")
    assert capsys.readouterr().out.split() == [str(own), str(back)]
    stored = read(back)["state_dict"]
    for name, tensor in read(source).items():
        torch.testing.assert_close(stored[name], tensor, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LatentDenoiser(filled(swin()), RespacedShift(), filled(vq())), "ResidualShift only"),
        (lambda: LatentDenoiser(filled(swin()), DEFAULT15, filled(vq()), scale=2), "scale 4 instead of 2"),
        (lambda: LatentDenoiser(filled(swin()), DEFAULT15, filled(vq()), quantize=False), "quantize True"),
        (lambda: UncertaintyGuided(filled(swin()), DEFAULT15, patch=1), "without an autoencoder"),
    ],
)
def test_what_the_layout_cannot_say_is_refused(build: Any, message: str, tmp_path: Path) -> None:
    denoiser: Denoiser = build()
    checkpoint.save(tmp_path / "own.safetensors", denoiser, app="infrared")
    with pytest.raises(UserError, match=message):
        export(tmp_path / "own.safetensors", tmp_path / "out.pth", layout="published")
    assert not (tmp_path / "out.pth").exists()
