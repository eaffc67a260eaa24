"""Networks of restoration against the published implementations: names, counts and outputs."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from reference_weights import (
    COMPUTED,
    CONDITION,
    MASK,
    X,
    filled,
    formula_weights,
    hashed,
    largest_error,
    parameters,
    published_entry,
    published_shapes,
    shapes_of,
)
from safetensors.torch import load_file
from torch import Tensor, nn

from ornstein.networks import atd, ddim_unet, dit, residual_unet, swin_unet, unet_res

BUILDERS: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "UPSR Swin-UNet": swin_unet.from_published,
    "ATD": atd.from_published,
    "RDDM_Unet": residual_unet.from_published,
    "DiT": dit.from_published,
    "DDIM_Unet": ddim_unet.from_published,
    "RDDM UnetRes": unet_res.from_published,
    "RDDM ResidualDiffusion": unet_res.from_published,
}


def built(entry: Mapping[str, Any]) -> nn.Module:
    (build,) = (build for kind, build in BUILDERS.items() if entry["kind"].partition(" (")[0].startswith(kind))
    return build(entry["config"])


def inputs(vectors: ReferenceFile, entry: Mapping[str, Any]) -> dict[str, Tensor]:
    """The arguments of the network, made by the formula."""
    config, salt = entry["config"], entry["salt"]
    shape = [int(side) for side in vectors["x_shape"]]
    x = hashed(shape, X + salt).float()
    if entry["kind"] == "ATD":
        return {"x": 0.5 * x + 0.5}
    given = {"x": x, "t": vectors.tensor("t")}
    if entry["kind"].startswith("RDDM UnetRes"):  # one tensor with all channels
        channels = config.get("channels", 3)
        return given | {"x": x[:, :channels], "y": x[:, channels:]}
    if "lq_shape" in vectors:
        given["y"] = 0.8 * hashed([int(side) for side in vectors["lq_shape"]], CONDITION + salt).float()
    elif config.get("input_condition"):
        given["y"] = hashed([shape[0], config["input_condition_channels"], *shape[2:]], CONDITION + salt).float()
    if config.get("mask_condition"):
        given["mask"] = hashed([shape[0], config["mask_condition_channels"], *shape[2:]], MASK + salt).float()
    return given


def published_order(similarity: Tensor) -> Tensor:
    """The sort of the published code, which orders equal categories as the processor's library happens to."""
    return similarity.argmax(dim=2).sort(dim=1, stable=False).indices


@reference_files("restoration", "net_keys.json", cases=lambda vectors: vectors.names)
def test_published_names_and_number_of_parameters(vectors: ReferenceFile, case: str) -> None:
    entry = vectors[case]
    with torch.device("meta"):
        network = built(entry)
    shapes = {name: shape for name, shape in shapes_of(network).items() if name.rpartition(".")[2] not in COMPUTED}
    assert shapes == published_shapes(entry)
    assert parameters(network) == entry["params"]


@reference_files("restoration", "net_*.npz", needs=["x_shape"])
def test_output_is_the_published_one(vectors: ReferenceFile, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = published_entry(vectors.path)
    if vectors.has("*_order.npz"):
        orders = iter(torch.from_numpy(ReferenceFile(vectors.beside("*_order.npz"))["order"]))
        monkeypatch.setattr(atd, "category_order", lambda similarity: checked_order(next(orders), similarity))
    else:
        monkeypatch.setattr(atd, "category_order", published_order)
    network = filled(built(entry), entry["salt"])
    out = network(**inputs(vectors, entry))
    tolerance = 1e-4 if entry["params"] > 1e6 else 2e-5
    if "y0" in vectors:
        expected = torch.cat([vectors.tensor(name) for name in ("y0", "y1") if name in vectors], dim=1)
    elif "sub" in vectors:
        step = int(vectors["sub"])
        assert float(out.double().mean()) == pytest.approx(vectors.number("y_mean"), abs=tolerance)
        assert float(out.double().std()) == pytest.approx(vectors.number("y_std"), abs=tolerance)
        out, expected = out[:, :, ::step, ::step], vectors.tensor("y_sub")
    else:
        expected = vectors.tensor("y")
    assert largest_error(out, expected) < tolerance


def checked_order(order: Tensor, similarity: Tensor) -> Tensor:
    """`order` (N,) as that of the one item, if it sorts the categories of `similarity` (1, N, M)."""
    categories = similarity.argmax(dim=2)[0, order]
    assert bool((categories.diff() >= 0).all())
    assert torch.equal(order.sort().values, torch.arange(len(order)))
    return order[None]


@reference_files("restoration", "net_dit_*.npz", needs=["pos_embed"])
def test_positions_of_the_transformer(vectors: ReferenceFile) -> None:
    network = dit.from_published(published_entry(vectors.path)["config"])
    assert largest_error(network.pos_embed.detach(), vectors.tensor("pos_embed")) < 1e-6


@reference_files("restoration", "fill_check_*.safetensors")
def test_the_formula_of_the_weights(vectors: ReferenceFile) -> None:
    stored = load_file(vectors.path)
    made = formula_weights({name: tensor.shape for name, tensor in stored.items()})
    assert made.keys() == stored.keys()
    assert all(torch.equal(made[name], stored[name]) for name in stored)
    channels = stored["init_conv.weight"].shape[1]
    network = residual_unet.ResidualUNet(3, channels - 3, dim=8, dim_mults=(1, 2), groups=4)
    network.load_state_dict(stored)


def numbered(vectors: ReferenceFile) -> list[str]:
    """What follows "y" in the names of the outputs."""
    return [name[1:] for name in vectors.names if name[0] == "y" and name[1:].isdigit()]


TINY = ["config", "nparams", ".safetensors"]


@reference_files("infrared", "swin_unet_*.npz", cases=numbered, needs=[*TINY, "x{case}", "lq{case}"])
def test_output_on_latents(vectors: ReferenceFile, case: str) -> None:
    network = swin_unet.from_published(vectors.json("config")).eval()
    weights = {name: w.float() if w.is_floating_point() else w for name, w in vectors.weights().items()}
    network.load_state_dict(weights)
    with torch.no_grad():
        out = network(*(vectors.tensor(name + case) for name in ("x", "t", "lq")))
    assert largest_error(out, vectors.tensor("y" + case)) < 1e-4


@reference_files("infrared", "swin_unet_*.npz", needs=TINY)
def test_masks_and_indices_are_those_of_the_checkpoint(vectors: ReferenceFile) -> None:
    network = swin_unet.from_published(vectors.json("config"))
    weights = vectors.weights()
    assert parameters(network) == int(vectors["nparams"])
    shifted = 0
    for name, block in network.named_modules():
        if isinstance(block, swin_unet.SwinBlock):
            assert torch.equal(block.attn.index, weights[f"{name}.attn.relative_position_index"].long())
            assert (f"{name}.attn_mask" in weights) == (block.mask is not None)
            if block.mask is not None:
                assert torch.equal(block.mask, weights[f"{name}.attn_mask"].float())
                shifted += 1
    assert shifted


@reference_files("infrared", "unet_full_keys.json")
def test_published_names_on_latents(vectors: ReferenceFile) -> None:
    with torch.device("meta"):
        network = swin_unet.SwinUNet()
    published = {name: tuple(vectors[name][0]) for name in vectors.names}
    assert shapes_of(network) == {n: s for n, s in published.items() if n.rpartition(".")[2] not in COMPUTED}
    assert parameters(network) == sum(math.prod(shape) for shape in shapes_of(network).values()) == 118_593_583
