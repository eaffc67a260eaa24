"""Published files of ResShift and DifIISR: schedules by their names, autoencoders of any size."""

from pathlib import Path

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from reference_weights import shapes_of

from ornstein.checkpoint import save
from ornstein.config import describe
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.swin_unet import SwinUNet
from ornstein.networks.unet import UNet
from ornstein.networks.vq import VQAutoencoder, from_published
from ornstein.parameterization import OneShot
from ornstein.process.prediction import Prediction
from ornstein.process.residual_shift import DEFAULT15, JOURNAL4
from ornstein.published_shapes import Shapes
from ornstein.published_shift import (
    on_latents,
    read_autoencoder,
    reconstruction,
    residual_shift,
    swin_unet,
    vq_autoencoder,
)


@pytest.mark.parametrize(
    ("name", "process"),
    [
        ("DifIISR.pth", DEFAULT15),
        ("resshift_realsrx4_s15_v1.pth", DEFAULT15),
        ("resshift_realsrx4_s15_v2.pth", DEFAULT15),
        ("resshift_realsrx4_s4_v3.pth", JOURNAL4),
        ("resshift_bicsrx4_s4.pth", JOURNAL4),
        ("my_s4x.pth", DEFAULT15),
    ],
)
def test_the_schedule_goes_by_the_name(name: str, process: object) -> None:
    assert residual_shift(Path(name)) == process
    assert residual_shift(Path(name), 4) == JOURNAL4
    with pytest.raises(UserError, match="cannot be imported"):
        residual_shift(Path(name), 0)


@reference_files("infrared", "unet_full_keys.json")
def test_architecture_of_the_published_file(vectors: ReferenceFile) -> None:
    with torch.device("meta"):
        tensors = {name: torch.empty(tuple(vectors[name][0])) for name in vectors.names}
        network = swin_unet(Shapes(tensors, Path("DifIISR.pth")), 3, 3)
        free = {"attention_resolutions"}
        found, expected = (describe(each)["init_args"] for each in (network, SwinUNet()))
    assert {n: v for n, v in found.items() if n not in free} == {n: v for n, v in expected.items() if n not in free}
    assert shapes_of(network) == shapes_of_meta()


def shapes_of_meta() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return shapes_of(SwinUNet())


@reference_files("infrared", "vq_tiny_*.npz", needs=["config", "x", "dec", ".safetensors"])
def test_an_autoencoder_of_any_size(vectors: ReferenceFile, tmp_path: Path) -> None:
    weights = {name: weight.float() for name, weight in vectors.weights().items()}
    torch.save({"state_dict": {f"_orig_mod.{n}": w for n, w in weights.items()}}, tmp_path / "vq.pth")
    found = read_autoencoder(tmp_path / "vq.pth")
    expected = describe(from_published(vectors.json("config")))["init_args"]
    assert describe(found)["init_args"] == {**expected, "resolution": 256}  # which places no attention here
    with torch.no_grad():
        torch.testing.assert_close(found.decode(vectors.tensor("z")), vectors.tensor("dec"), rtol=1e-4, atol=1e-4)

    denoiser = reconstruction(found)
    assert (denoiser.process, denoiser.parameterization) == (Prediction(), OneShot())
    save(tmp_path / "vq.safetensors", denoiser, app="core")
    again = read_autoencoder(tmp_path / "vq.safetensors", "core")
    assert all(torch.equal(w, again.state_dict()[n]) for n, w in weights.items())


def test_damaged_and_other_files_are_refused(tmp_path: Path) -> None:
    network = VQAutoencoder(ch=32, ch_mult=(1, 1), num_res_blocks=1, n_embed=16)
    state = network.state_dict()
    with pytest.raises(UserError, match="1 missing"):
        vq_autoencoder({n: t for n, t in state.items() if n != "decoder.conv_out.bias"}, Path("vq.pth"))
    with pytest.raises(UserError, match="1 unexpected"):
        vq_autoencoder(state | {"more": torch.zeros(1)}, Path("vq.pth"))
    with pytest.raises(UserError, match="there is no file"):
        read_autoencoder(tmp_path / "none.pth")
    (tmp_path / "bad.pth").write_bytes(b"0")
    with pytest.raises(UserError, match="damaged"):
        read_autoencoder(tmp_path / "bad.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match="no weights"):
        read_autoencoder(tmp_path / "empty.pth")
    save(tmp_path / "unet.safetensors", Denoiser(UNet(1, 8, 1), Prediction(), OneShot()), app="core")
    with pytest.raises(UserError, match="no autoencoder"):
        read_autoencoder(tmp_path / "unet.safetensors", "core")
    with pytest.raises(UserError, match=r"lacks the tensor out.2.weight"):
        on_latents(Shapes(state, Path("vq.pth")), state, DEFAULT15, network)
