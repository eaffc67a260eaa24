"""Checkpoints go out in the published layouts, bit by bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published_checkpoints import STORED, UNET, atd_file, imported, published_tensors, saved
from reference_vectors import ReferenceFile, reference_files
from reference_weights import (
    filled,
    published_entry,
)
from restoration_networks import CASES, swin
from torch import nn

from ornstein import checkpoint
from ornstein.cli import main
from ornstein.config import describe
from ornstein.denoiser import Denoiser
from ornstein.networks.residual_unet import ResidualUNet
from ornstein.parameterization import X0, ResNoise
from ornstein.process.rddm import RDDM
from ornstein.process.resfusion import CosinePro, LinearPro, Resfusion
from ornstein.process.residual_shift import ResidualShift
from ornstein.process.upsr import UPSR
from ornstein.published_files import read
from ornstein.residual_outputs import ResidualOutputs
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.compat_residual import PublishedResidual
from ornstein.samplers.ode_solvers import Euler
from ornstein.two_networks import TwoNetworks
from ornstein.uncertainty import UncertaintyGuided
from ornstein.wrapped_parameterizations import ClippedX0, HiddenObservation, RangeScaling, ScaledInput
from ornstein_restoration.export import export
from ornstein_restoration.publish import coefficient_tables
from ornstein_restoration.regression import RegressionUpscaler
from ornstein_restoration.representation import PictureSpace


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
    "generation": (
        ".ckpt",
        lambda: (
            Denoiser(CASES["DDIM"].network(), Resfusion(LinearPro(273)), HiddenObservation(ResNoise())),
            PictureSpace(multiple=2),
            Ancestral(100),
        ),
        ["--image_size", "16"],
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
