"""Small checkpoints in the layouts of the published codes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from reference_weights import (
    COMPUTED,
    formula_weights,
    shapes_of,
)
from restoration_networks import CASES
from torch import Tensor, nn

from ornstein import checkpoint
from ornstein.networks import atd, ddim_unet, dit, residual_unet, swin_unet, unet_res
from ornstein.networks.residual_unet import ResidualUNet
from ornstein.process.rddm import RDDM, LinearIncrements
from ornstein.published_shapes import Shapes
from ornstein.published_shift import swin_unet as swin_of_shapes
from ornstein_restoration import published_networks as architectures
from ornstein_restoration.publish import coefficient_tables
from ornstein_restoration.published import import_checkpoint

STORED = RDDM(40, LinearIncrements(decreasing=True), LinearIncrements(), sum_scale=0.01)
NETWORKS = ("UPSR Swin-UNet", "ATD", "RDDM_Unet", "DiT", "RDDM UnetRes", "RDDM ResidualDiffusion", "DDIM_Unet")


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
        (swin_unet, atd, residual_unet, dit, unet_res, unet_res, ddim_unet),
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
        case "resfusion" if "temb.dense.0.weight" in shapes:
            return [architectures.ddim_unet(shapes, config["image_size"])]
        case "resfusion":
            return [architectures.residual_unet(shapes, 2, groups)]
        case other:
            raise AssertionError(other)
