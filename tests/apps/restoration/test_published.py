"""Published checkpoints come in, give the published outputs, and go out again bit by bit."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reference_vectors import ReferenceFile, reference_files
from reference_weights import (
    COMPUTED,
    CONDITION,
    X,
    filled,
    formula_weights,
    hashed,
    largest_error,
    published_entry,
    shapes_of,
)
from restoration_networks import CASES, swin
from torch import Tensor, nn

from ornstein import checkpoint
from ornstein.cli import main
from ornstein.config import describe
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.latent import LatentDenoiser
from ornstein.networks import atd, dit, residual_unet, swin_unet, unet_res
from ornstein.networks.residual_unet import ResidualUNet
from ornstein.networks.unet import UNet
from ornstein.networks.vq import VQAutoencoder
from ornstein.parameterization import X0, Residual, ResNoise
from ornstein.pictures.sampling import Model, restore_picture
from ornstein.process.rddm import RDDM, LinearIncrements, PowerIncrements
from ornstein.process.resfusion import CosinePro, LinearPro, Resfusion
from ornstein.process.residual_shift import JOURNAL4, ResidualShift
from ornstein.process.upsr import UPSR
from ornstein.process.vp import CosineVP
from ornstein.published_files import read
from ornstein.published_shapes import Shapes
from ornstein.published_shift import swin_unet as swin_of_shapes
from ornstein.residual_outputs import ResidualOutputs
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.compat_residual import PublishedResidual
from ornstein.samplers.ode_solvers import Euler
from ornstein.tiles import Tiling
from ornstein.two_networks import TwoNetworks
from ornstein.uncertainty import UncertaintyGuided
from ornstein.wrapped_parameterizations import ClippedX0, RangeScaling, ScaledInput
from ornstein_restoration import Restorer
from ornstein_restoration import published_networks as architectures
from ornstein_restoration.export import export
from ornstein_restoration.publish import coefficient_tables
from ornstein_restoration.published import import_checkpoint
from ornstein_restoration.regression import RegressionUpscaler
from ornstein_restoration.representation import PictureSpace

NETWORKS = ("UPSR Swin-UNet", "ATD", "RDDM_Unet", "DiT", "RDDM UnetRes", "RDDM ResidualDiffusion")


def published_tensors(keys: Mapping[str, Any], salt: int = 0) -> dict[str, Tensor]:
    """A published state dict by the formula; what is computed is there, but wrong."""
    computed = {n: torch.zeros(tuple(s)) for n, s in keys.items() if n.rpartition(".")[2] in COMPUTED}
    return formula_weights({name: tuple(shape) for name, shape in keys.items()}, salt) | computed


def own_tensors(network: nn.Module, prefix: str = "", salt: int = 0) -> dict[str, Tensor]:
    """The weights that `filled` gives the network, and empty masks, under published names."""
    masks = {
        f"{name}.attn_mask": torch.zeros_like(module.mask)
        for name, module in network.named_modules()
        if isinstance(module, swin_unet.SwinBlock) and module.mask is not None
    }
    return {prefix + name: t for name, t in (formula_weights(shapes_of(network), salt) | masks).items()}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def imported(path: Path, **options: Any) -> checkpoint.Checkpoint:
    target = path.with_name(f"{path.stem}-imported.safetensors")
    import_checkpoint(path, target, overwrite=True, **options)
    return checkpoint.load(target, app="restoration")


UNET = {"dim": 8, "dim_mults": (1, 2)}


def resfusion_file(folder: Path, channels: int = 3, name: str = "model.ckpt", **hyper_parameters: Any) -> Path:
    tensors = own_tensors(ResidualUNet(condition_channels=channels, **UNET), "denoising_module.")
    return saved(folder / name, {"state_dict": tensors, "hyper_parameters": hyper_parameters})


def rddm_file(
    folder: Path, networks: int = 1, process: RDDM | None = None, ema: bool = True, channels: int = 3
) -> Path:
    """As the trainer writes it; the raw weights are others than the averages."""
    network = unet_res.UNetRes(networks, condition_channels=channels, **UNET)  # type: ignore[arg-type]
    tables = {} if process is None else coefficient_tables(process)
    content: dict[str, Any] = {"step": 3, "model": tables | own_tensors(network, "model.", salt=7), "scaler": None}
    if ema:
        averages = {f"ema_model.{n}": t for n, t in (tables | own_tensors(network, "model.")).items()}
        online = {f"online_model.{n}": t for n, t in content["model"].items()}
        content["ema"] = {"initted": torch.tensor([True]), "step": torch.tensor([3])} | online | averages
    return saved(folder / "model-1.pt", content)


def dit_file(folder: Path) -> Path:
    return saved(folder / "dit.ckpt", {"state_dict": own_tensors(CASES["DiT"].build(), "denoising_module.")})


def atd_file(folder: Path) -> Path:
    network = CASES["ATD"].build()
    return saved(folder / "atd.pth", {"params": own_tensors(network, salt=5), "params_ema": own_tensors(network)})


def upsr_file(folder: Path) -> Path:
    return saved(folder / "upsr.pth", {"params_ema": own_tensors(CASES["UPSR"].build(), "module.")})


# -- architectures ---------------------------------------------------------------------------------------------------


def core_network(entry: Mapping[str, Any]) -> nn.Module:
    builders = zip(
        NETWORKS,
        (swin_unet, atd, residual_unet, dit, unet_res, unet_res),
        strict=True,
    )
    (module,) = (module for kind, module in builders if entry["kind"].partition(" (")[0].startswith(kind))
    return module.from_published(entry["config"])  # type: ignore[no-any-return, attr-defined]


def inferred(entry: Mapping[str, Any], shapes: Shapes) -> list[nn.Module]:
    config = entry["config"]
    groups = config.get("resnet_block_groups", 8)
    match architectures.guess(shapes):
        case "upsr":
            return [swin_of_shapes(shapes, 48, 96)]
        case "atd":
            return [architectures.atd(shapes, config["category_size"])]
        case "rddm" if any(name.startswith("ups_no_skip.") for name in shapes):
            return [architectures.shared_encoder(shapes, groups)]
        case "rddm":
            found = []
            for prefix in ("unet0.", "unet1."):
                part = {n.removeprefix(prefix): torch.empty(s) for n, s in shapes.items() if n.startswith(prefix)}
                found += [architectures.residual_unet(Shapes(part, shapes.path), 3, groups)] if part else []
            return found
        case "resfusion" if "x_embedder.proj.weight" in shapes:
            return [architectures.dit(shapes, config["num_heads"])]
        case "resfusion":
            return [architectures.residual_unet(shapes, 2, groups)]
        case other:
            raise AssertionError(other)


def importable(vectors: ReferenceFile) -> list[str]:
    """All but the network of generation."""
    return [name for name in vectors.names if vectors[name]["kind"].startswith(NETWORKS)]


@reference_files("restoration", "net_keys.json", cases=importable)
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


@pytest.fixture
def picture(photo: Callable[..., np.ndarray]) -> Tensor:
    return torch.from_numpy(photo(0, 16, 24).copy()).permute(2, 0, 1).float() / 255


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


STORED = RDDM(40, LinearIncrements(decreasing=True), LinearIncrements(), sum_scale=0.01)


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


# -- writing -----------------------------------------------------------------------------------------------------------


def atd_case() -> nn.Module:
    return CASES["ATD"].network()


OWN: dict[str, tuple[str, Callable[[], tuple[Denoiser, PictureSpace, Any]], list[str]]] = {
    "upsr": (
        ".pth",
        lambda: (
            UncertaintyGuided(CASES["UPSR"].network(), UPSR(steps=4), predictor=atd_case()),
            PictureSpace(scale=4, patch=4, multiple=64, enlarge=False),
            Euler(4),
        ),
        ["--schedule_steps", "4"],
    ),
    "resshift on pixels": (
        ".pth",
        lambda: (
            UncertaintyGuided(
                filled(swin(48, 48, num_feat=16)),
                ResidualShift(4, min_noise=0.2, power=0.5),
                ScaledInput(X0(), RangeScaling()),
            ),
            PictureSpace(scale=4, patch=4, multiple=64, enlarge=False),
            Ancestral(4),
        ),
        ["--schedule_steps", "4", "--power", "0.5"],
    ),
    "atd": (
        ".pth",
        lambda: (RegressionUpscaler(atd_case()), PictureSpace(scale=4, multiple=16, enlarge=False), None),
        ["--category_size", "12"],
    ),
    "resfusion": (
        ".ckpt",
        lambda: (
            Denoiser(filled(ResidualUNet(**UNET, groups=4)), Resfusion(CosinePro(25)), ClippedX0(X0())),
            PictureSpace(),
            Ancestral(17),
        ),
        ["--groups", "4"],
    ),
    "transformer": (
        ".ckpt",
        lambda: (Denoiser(CASES["DiT"].network(), Resfusion(), ResNoise()), PictureSpace(multiple=16), Ancestral(5)),
        ["--num_heads", "2"],
    ),
    "rddm": (
        ".pt",
        lambda: (
            Denoiser(filled(ResidualUNet(**UNET, condition_channels=6)), STORED, ResidualOutputs("pred_noise")),
            PictureSpace(mask="image"),
            PublishedResidual(5),
        ),
        ["--objective", "pred_noise"],
    ),
    "pair": (
        ".pt",
        lambda: (
            TwoNetworks(filled(ResidualUNet(**UNET)), filled(ResidualUNet(**UNET), 4), STORED, ResidualOutputs()),
            PictureSpace(equalize=True),
            PublishedResidual(2),
        ),
        ["--equalize"],
    ),
    "shared": (
        ".pt",
        lambda: (Denoiser(CASES["shared encoder"].network(), STORED, ResidualOutputs()), PictureSpace(), None),
        [],
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_round_trip(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suffix, build, options = OWN[name]
    denoiser, representation, sampler = build()
    own, published, again = (
        tmp_path / "own.safetensors",
        tmp_path / f"published{suffix}",
        tmp_path / "again.safetensors",
    )
    checkpoint.save(own, denoiser, app="restoration", representation=representation, sampler=sampler)
    extra = ["--predictor", str(tmp_path / "g.pth")] if name == "upsr" else []
    assert main(["restoration", "export", str(own), "-o", str(published), "--layout", "published", *extra]) == 0
    noted = capsys.readouterr().err
    assert all(option in noted for option in options if option.startswith("--"))
    if name == "upsr":  # g has an option of its own
        first = tmp_path / "g.safetensors"
        arguments = ["import", str(tmp_path / "g.pth"), "-o", str(first), "--category_size", "12"]
        assert main(["restoration", *arguments]) == 0
        extra = ["--predictor", str(first)]
    assert main(["restoration", "import", str(published), "-o", str(again), *options, *extra]) == 0
    before, after = (checkpoint.load(path, app="restoration") for path in (own, again))
    assert describe(after.denoiser) == describe(before.denoiser)
    assert after.denoiser.state_dict().keys() == before.denoiser.state_dict().keys()
    for key, tensor in after.denoiser.state_dict().items():
        assert torch.equal(tensor, before.denoiser.state_dict()[key])


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_checkpoint_of_fit(weights: str, tmp_path: Path) -> None:
    raw, averaged = (
        Denoiser(filled(ResidualUNet(**UNET), salt), STORED, ResidualOutputs("pred_res")) for salt in (1, 2)
    )
    states = [{f"denoiser.{n}": t for n, t in each.state_dict().items()} for each in (raw, averaged)]
    content = {
        "state_dict": states[0],
        "callbacks": {"EMA": {"averages": {"a": {"updates": 3, "decay": 0.9, "tensors": states[1]}}}},
        "ornstein": {
            "app": "restoration",
            "denoiser": describe(raw),
            "sampler": describe(PublishedResidual(5)),
            "representation": describe(PictureSpace()),
        },
        "epoch": 1,
        "global_step": 12,
    }
    published = tmp_path / "model-1.pt"
    export(saved(tmp_path / "fit.ckpt", content), published, layout="published")
    assert read(published)["step"] == 12
    loaded = imported(published, weights=weights)
    wanted = (raw if weights == "raw" else averaged).state_dict()
    assert loaded.weights == weights
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded.denoiser.state_dict().items())


@pytest.mark.parametrize(("name", "kind"), [("upsr", "upsr_swinunet_tiny"), ("atd", "atd_tiny")])
def test_written_names_are_the_published_ones(name: str, kind: str, tmp_path: Path) -> None:
    keys = published_entry(Path(__file__).parents[2] / f"reference/restoration/net_{kind}.npz")["keys"]
    content = {"params_ema": published_tensors(keys)}
    options = {"predictor": atd_file(tmp_path)} if name == "upsr" else {}
    imported(saved(tmp_path / "published.pth", content), **options)
    own, again = tmp_path / "published-imported.safetensors", tmp_path / "again.pth"
    assert main(["restoration", "export", str(own), "-o", str(again), "--layout", "published", "--weights", "ema"]) == 0
    written = read(again)
    assert written["params_ema"].keys() == keys.keys()
    assert all(list(tensor.shape) == keys[key] for key, tensor in written["params_ema"].items())


@reference_files("restoration", "net_keys.json", cases=lambda v: [n for n in v.names if "alphas" in v[n]["keys"]])
def test_written_names_of_rddm(vectors: ReferenceFile, case: str) -> None:
    tables = coefficient_tables(RDDM())
    wanted = {name: shape for name, shape in vectors[case]["keys"].items() if "." not in name}
    assert {name: list(table.shape) for name, table in tables.items()} == wanted


@reference_files("restoration", "schedules.npz", needs=["rddm/restore_s1_alphas"])
def test_written_coefficients_of_rddm(vectors: ReferenceFile) -> None:
    prefix = "rddm/restore_s1_"
    tables = {name: table for name, table in coefficient_tables(RDDM()).items() if prefix + name in vectors}
    assert len(tables) >= 8
    for name, table in tables.items():
        torch.testing.assert_close(table, vectors.tensor(prefix + name).float(), rtol=2e-4, atol=2e-6)


# -- mistakes ----------------------------------------------------------------------------------------------------------


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
        r"init_conv.weight has the shape \(8, 7, 7, 7\) instead of \(8, 6, 7, 7\) or \(8, 8, 7, 7\)",
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
