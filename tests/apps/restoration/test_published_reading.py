"""Published checkpoints come in and give the published outputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_checkpoints import (
    STORED,
    UNET,
    atd_file,
    core_network,
    imported,
    inferred,
    own_tensors,
    published_tensors,
    rddm_file,
    resfusion_file,
    saved,
    upsr_file,
)
from reference_vectors import ReferenceFile, reference_files
from reference_weights import (
    COMPUTED,
    CONDITION,
    X,
    filled,
    hashed,
    largest_error,
    published_entry,
)
from restoration_networks import CASES, swin
from torch import Tensor, nn

from ornstein.config import describe
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.latent import LatentDenoiser
from ornstein.networks import atd, unet_res
from ornstein.networks.residual_unet import ResidualUNet
from ornstein.networks.vq import VQAutoencoder
from ornstein.parameterization import X0, Residual, ResNoise
from ornstein.pictures.sampling import Model, restore_picture
from ornstein.process.rddm import RDDM, PowerIncrements
from ornstein.process.resfusion import CosinePro, LinearPro, Resfusion
from ornstein.process.residual_shift import JOURNAL4, ResidualShift
from ornstein.process.upsr import UPSR
from ornstein.published_files import read
from ornstein.published_shapes import Shapes
from ornstein.residual_outputs import ResidualOutputs
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.compat_residual import PublishedResidual
from ornstein.samplers.ode_solvers import Euler
from ornstein.tiles import Tiling
from ornstein.uncertainty import UncertaintyGuided
from ornstein.wrapped_parameterizations import ClippedX0
from ornstein_restoration import Restorer
from ornstein_restoration.export import export
from ornstein_restoration.representation import PictureSpace


@reference_files("restoration", "net_keys.json", cases=lambda vectors: vectors.names)
def test_architecture_is_read_from_names_and_shapes(vectors: ReferenceFile, case: str) -> None:
    entry = vectors[case]
    with torch.device("meta"):
        whole = any(name.startswith("model.") for name in entry["keys"])
        tensors = {n.removeprefix("model."): torch.empty(s) for n, s in entry["keys"].items() if "." in n or not whole}
        wanted = core_network(entry)
        parts = [wanted.unet0, wanted.unet1] if isinstance(wanted, unet_res.UNetRes) else [wanted]
        found = inferred(entry, Shapes(tensors, Path("file")))
    assert [describe(each) for each in found] == [describe(part) for part in parts if part is not None]


# -- outputs -----------------------------------------------------------------------------------------------------------


@reference_files("restoration", "net_*_tiny.npz", needs=["x_shape"])
def test_imported_network_gives_the_published_output(
    vectors: ReferenceFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = published_entry(vectors.path)
    config, salt = entry["config"], entry["salt"]
    tensors = published_tensors(entry["keys"], salt)
    x = hashed([int(side) for side in vectors["x_shape"]], X + salt).float()
    condition = hashed([x.shape[0], 3, *x.shape[2:]], CONDITION + salt).float()
    options: dict[str, Any] = {}
    given: tuple[Tensor, ...]
    match entry["kind"]:
        case "UPSR Swin-UNet":
            content: dict[str, Any] = {"params_ema": {f"module.{name}": t for name, t in tensors.items()}}
            options = {"predictor": atd_file(tmp_path)}
            seen = 0.8 * hashed([int(side) for side in vectors["lq_shape"]], CONDITION + salt).float()
            given = (x, vectors.tensor("t"), seen)
        case "ATD":
            content, options = {"params_ema": tensors}, {"category_size": config["category_size"]}
            given = (0.5 * x + 0.5,)
            if vectors.has("*_order.npz"):
                orders = iter(torch.from_numpy(ReferenceFile(vectors.beside("*_order.npz"))["order"]))
                monkeypatch.setattr(atd, "category_order", lambda similarity: next(orders)[None])
        case "RDDM UnetRes":
            content = {"model": {f"model.{name}": t for name, t in tensors.items()}}
            options = {"groups": config["resnet_block_groups"]}
            given = (x[:, :3], vectors.tensor("t"), x[:, 3:])
        case _:
            content = {"state_dict": {f"denoising_module.{name}": t for name, t in tensors.items()}}
            options = {"num_heads": config["num_heads"]} if "num_heads" in config else {}
            given = (x, vectors.tensor("t"), condition)
    network = imported(saved(tmp_path / "published.pth", content), **options).denoiser.network
    with torch.no_grad():
        out = network(*given)
    names = [name for name in ("y", "y0", "y1") if name in vectors]
    assert largest_error(out, torch.cat([vectors.tensor(name) for name in names], dim=1)) < 2e-5


@pytest.mark.parametrize(
    ("hyper_parameters", "options", "process", "parameterization"),
    [
        ({}, {}, Resfusion(), ResNoise()),
        ({"T": 20, "mode": "residual"}, {}, Resfusion(LinearPro(20)), ClippedX0(Residual())),
        (
            {"T": 20},
            {"schedule_steps": 25, "schedule": "cosine", "mode": "sample"},
            Resfusion(CosinePro(25)),
            ClippedX0(X0()),
        ),
    ],
)
def test_resfusion(
    hyper_parameters: dict[str, Any],
    options: dict[str, Any],
    process: Resfusion,
    parameterization: Any,
    tmp_path: Path,
    picture: Tensor,
) -> None:
    path = resfusion_file(tmp_path, **hyper_parameters)
    loaded = imported(path, **options)
    assert (loaded.denoiser.process, loaded.weights) == (process, "raw")
    published = Denoiser(filled(ResidualUNet(**UNET)), process, parameterization)
    expected = restore_picture(Model(published, Ancestral(process.acceleration_step), PictureSpace()), picture, seed=3)
    assert torch.equal(Restorer(path.with_name("model-imported.safetensors"))(picture, seed=3), expected)


@pytest.mark.parametrize(
    ("hyper_parameters", "options", "said"),
    [
        (
            {},
            {},
            "schedule_steps 12 (default), schedule linear (default), mode epsilon (default): "
            "12 steps, of which 5 are left (T' = 5)",
        ),
        (
            {"T": 20, "noise_schedule": "LinearPro", "mode": "sample"},
            {"schedule_steps": 50, "schedule": "cosine"},
            "schedule_steps 50 (given), schedule cosine (given), mode sample (stored): "
            "50 steps, of which 34 are left (T' = 34)",
        ),
    ],
)
def test_what_is_assumed_of_resfusion_is_said(
    hyper_parameters: dict[str, Any],
    options: dict[str, Any],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    imported(resfusion_file(tmp_path, **hyper_parameters), **options)
    assert capsys.readouterr().err == f"note: {said}\n"


def test_a_transformer_takes_tiles_of_its_size(tmp_path: Path, photo: Callable[..., np.ndarray]) -> None:
    tensors = own_tensors(CASES["DiT"].build(), "denoising_module.")
    tensors["denoising_module.pos_embed"] = torch.zeros(1, 16, 16)  # 4 x 4 patches of 4 pixels
    content = {"state_dict": tensors}
    loaded = imported(saved(tmp_path / "dit.ckpt", content), num_heads=2)
    model = Model(loaded.denoiser, Ancestral(5), loaded.representation)
    picture = torch.from_numpy(photo(0, 40, 20).copy()).permute(2, 0, 1).float() / 255
    restorer = Restorer(tmp_path / "dit-imported.safetensors")
    expected = restore_picture(model, picture, seed=3, tiling=Tiling(size=16, overlap=0))
    assert torch.equal(restorer(picture, seed=3), expected)
    with pytest.raises(UserError, match="squares of 16 pixels only"):
        Restorer(tmp_path / "dit-imported.safetensors", tile=32)


def test_resfusion_with_a_mask(tmp_path: Path, picture: Tensor) -> None:
    loaded = imported(resfusion_file(tmp_path, channels=5))
    assert loaded.representation == PictureSpace(mask="one_hot")
    restored = Restorer(tmp_path / "model-imported.safetensors")(picture, torch.ones(16, 24), seed=3)
    assert restored.shape == picture.shape


def test_averages_of_resfusion_lie_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = resfusion_file(tmp_path)
    averages = own_tensors(ResidualUNet(**UNET), "denoising_module.", salt=9)
    saved(tmp_path / "model-EMA.ckpt", {"state_dict": averages})
    loaded = imported(path)
    assert loaded.weights == "ema"
    assert "model-EMA.ckpt" in capsys.readouterr().err
    name = "init_conv.weight"
    assert torch.equal(loaded.denoiser.state_dict()[f"network.{name}"], averages[f"denoising_module.{name}"])
    assert imported(path, weights="raw").weights == "raw"


@pytest.mark.parametrize("process", [None, STORED, RDDM(100, PowerIncrements(0.0), PowerIncrements(1.0))])
@pytest.mark.parametrize("networks", [1, 2])
def test_rddm(process: RDDM | None, networks: int, tmp_path: Path, picture: Tensor) -> None:
    loaded = imported(rddm_file(tmp_path, networks, process))
    wanted = RDDM() if process is None else process
    assert (loaded.denoiser.process, loaded.weights) == (wanted, "ema")
    whole = filled(unet_res.UNetRes(networks, **UNET))  # type: ignore[arg-type]
    published = Denoiser(whole, wanted, ResidualOutputs("pred_res" if networks == 1 else "pred_res_noise"))
    expected = restore_picture(Model(published, PublishedResidual(5), PictureSpace()), picture, seed=3)
    assert torch.equal(Restorer(tmp_path / "model-1-imported.safetensors")(picture, seed=3), expected)


def test_options_of_rddm(tmp_path: Path) -> None:
    loaded = imported(
        rddm_file(tmp_path, channels=6), sum_scale=0.01, objective="pred_noise", equalize=True, weights="raw"
    )
    assert loaded.denoiser.process == RDDM(sum_scale=0.01)
    assert loaded.denoiser.parameterization == ResidualOutputs("pred_noise")
    assert loaded.representation == PictureSpace(mask="image", equalize=True)
    assert (loaded.sampler, loaded.weights) == (PublishedResidual(2), "raw")
    raw = own_tensors(unet_res.UNetRes(1, condition_channels=6, **UNET), salt=7)["unet0.init_conv.weight"]
    assert torch.equal(loaded.denoiser.state_dict()["network.init_conv.weight"], raw)


def test_atd(tmp_path: Path, picture: Tensor) -> None:
    imported(atd_file(tmp_path), category_size=12)
    with torch.no_grad():
        expected = filled(CASES["ATD"].build())(picture[None])[0].clamp(0, 1)
    assert largest_error(Restorer(tmp_path / "atd-imported.safetensors")(picture), expected) < 1e-5


@pytest.mark.parametrize("own", [False, True])
def test_upsr(own: bool, tmp_path: Path, picture: Tensor) -> None:
    predictor = atd_file(tmp_path)
    if own:
        imported(predictor)
        predictor = tmp_path / "atd-imported.safetensors"
    loaded = imported(upsr_file(tmp_path), predictor=predictor)
    assert loaded.sampler == Euler(5)
    first = atd.ATD(**{**describe(CASES["ATD"].build())["init_args"], "category_size": 128})
    published = UncertaintyGuided(filled(CASES["UPSR"].build()), UPSR(), predictor=filled(first))
    space = PictureSpace(scale=4, patch=4, multiple=64, enlarge=False)
    expected = restore_picture(Model(published, Euler(5), space), picture, seed=3)
    assert torch.equal(Restorer(tmp_path / "upsr-imported.safetensors")(picture, seed=3), expected)


@pytest.mark.parametrize(
    ("steps", "process"), [(None, ResidualShift()), (4, ResidualShift(4, min_noise=0.2)), (7, ResidualShift(7))]
)
def test_resshift_on_latents(
    steps: int | None, process: ResidualShift, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = own_tensors(CASES["Swin-UNet"].build(), "module.")
    loaded = imported(saved(tmp_path / "resshift.pth", tensors), schedule_steps=steps)
    assert (loaded.denoiser.process, loaded.sampler) == (process, Ancestral(process.steps))
    assert loaded.representation is None
    assert "latents" in capsys.readouterr().err
    case = CASES["Swin-UNet"]
    with torch.no_grad():
        assert torch.equal(loaded.denoiser.network(*case.signals()), case.network()(*case.signals()))
    with pytest.raises(UserError, match="says nothing about its pictures"):
        Restorer(tmp_path / "resshift-imported.safetensors")


def small_autoencoder() -> VQAutoencoder:
    return VQAutoencoder(ch=32, ch_mult=(1, 1, 1), num_res_blocks=1, n_embed=16)


@pytest.mark.parametrize("wrapped", [False, True])
def test_resshift_with_the_autoencoder_of_its_latents(wrapped: bool, tmp_path: Path, picture: Tensor) -> None:
    tensors = own_tensors(CASES["Swin-UNet"].build())
    weights = own_tensors(small_autoencoder()) | {"loss.discriminator.weight": torch.zeros(1)}
    content = {"state_dict": {f"module.{n}": t for n, t in weights.items()}} if wrapped else weights
    autoencoder = saved(tmp_path / "vq.pth", content)
    source = saved(tmp_path / "resshift_bicsrx4_s4.pth", {"state_dict": tensors})
    target = tmp_path / "resshift_bicsrx4_s4-imported.safetensors"
    loaded = imported(source, autoencoder=autoencoder)
    assert (loaded.denoiser.process, loaded.sampler) == (JOURNAL4, Ancestral(4))
    space = PictureSpace(scale=4, multiple=64, enlarge=False, factor=4)
    assert loaded.representation == space
    expected = LatentDenoiser(filled(CASES["Swin-UNet"].build()), JOURNAL4, filled(small_autoencoder()))
    restored = Restorer(target)(picture, seed=3)
    assert torch.equal(restored, restore_picture(Model(expected, Ancestral(4), space), picture, seed=3))
    assert restored.shape == (3, 4 * picture.shape[1], 4 * picture.shape[2])

    again, written = tmp_path / "again_s4.pth", tmp_path / "again-vq.pth"
    export(target, again, layout="published", weights="raw", autoencoder=written)
    assert all(torch.equal(tensor, read(again)["params"][name]) for name, tensor in tensors.items()
               if name.rpartition(".")[2] not in COMPUTED)  # fmt: skip
    assert all(torch.equal(tensor, weights[name]) for name, tensor in read(written).items())
    second = imported(again, autoencoder=written, schedule_steps=4)
    assert describe(second.denoiser) == describe(loaded.denoiser)
    state = loaded.denoiser.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in second.denoiser.state_dict().items())


def test_tiles_of_latents_share_one_field_of_noise(picture: Tensor) -> None:
    """Where nothing crosses the border of a tile, tiles and the whole picture agree."""

    class Half(nn.Module):
        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return x / 2

    class Blocks(VQAutoencoder):
        def encode(self, x: Tensor) -> Tensor:
            return torch.nn.functional.avg_pool2d(x, 4)

        def decode(self, z: Tensor, quantize: bool = True) -> Tensor:
            return z.repeat_interleave(4, -1).repeat_interleave(4, -2)

    denoiser = LatentDenoiser(Half(), ResidualShift(3), Blocks(ch=32, ch_mult=(1, 1, 1), num_res_blocks=1, n_embed=16))
    space = PictureSpace(scale=4, multiple=8, enlarge=False, factor=4)
    model = Model(denoiser, Ancestral(3), space)
    flat = torch.full((3, 24, 40), 0.25)
    whole = restore_picture(model, flat, seed=3)
    for blending in ("outputs", "steps"):
        tiles = restore_picture(model, flat, seed=3, tiling=Tiling(size=16, overlap=8, blending=blending))
        assert largest_error(tiles, whole) < 1e-5


def test_what_does_not_fit_the_autoencoder_is_refused(tmp_path: Path) -> None:
    autoencoder = saved(tmp_path / "vq.pth", own_tensors(small_autoencoder()))
    with pytest.raises(UserError, match="--autoencoder is for resshift"):
        imported(atd_file(tmp_path), autoencoder=autoencoder)
    pixels = saved(tmp_path / "pixels.pth", own_tensors(swin(48, 48, num_feat=16)))
    with pytest.raises(UserError, match="works on pixels"):
        imported(pixels, autoencoder=autoencoder)
    other = VQAutoencoder(ch=32, ch_mult=(1, 1), num_res_blocks=1, embed_dim=4, n_embed=16)
    latents = saved(tmp_path / "latents.pth", own_tensors(CASES["Swin-UNet"].build()))
    with pytest.raises(UserError, match="latents of 3 channels"):
        imported(latents, autoencoder=saved(tmp_path / "other.pth", own_tensors(other)))
    with pytest.raises(UserError, match=r"lacks the tensor encoder.conv_in.weight"):
        imported(latents, autoencoder=latents)
