"""Published files of ResShift, SinSR and DifIISR: the Swin-UNet and the autoencoder of its latents, in and out.

Nothing but weights is in them: the schedule goes by the name of the file, the architecture by names and shapes.
"""

import re
from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ornstein.checkpoint import load
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.latent import LatentDenoiser
from ornstein.networks.swin_unet import SwinBlock, SwinUNet
from ornstein.networks.vq import VQAutoencoder
from ornstein.parameterization import OneShot
from ornstein.process.prediction import Prediction
from ornstein.process.residual_shift import ResidualShift
from ornstein.published_files import plain_copy, read_weights
from ornstein.published_shapes import Shapes, checked, filled, window
from ornstein.wrapped_parameterizations import ScaledInput

IMAGE_SIZE = 64
"""Of all published Swin-UNets."""


def residual_shift(path: Path, steps: int | None = None, **settings: Any) -> ResidualShift:
    """The process of a file: 4 steps where its name has _s4 (or as many as it says), 15 otherwise.

    Args:
        path: the file; resshift_bicsrx4_s4.pth, resshift_realsrx4_s15_v1.pth, DifIISR.pth.
        steps: T, where the name does not say it.
        settings: other arguments of `ResidualShift`; min_noise is 0.2 for 4 steps and 0.04 for others.

    Raises:
        UserError: a process that cannot be.
    """
    if steps is None:
        named = re.search(r"_s(\d+)(?![0-9a-z])", path.stem.lower())
        steps = int(named[1]) if named else 15
    return checked(lambda: ResidualShift(steps=steps, **{"min_noise": 0.2 if steps == 4 else 0.04} | settings), path)


def on_latents(
    shapes: Shapes,
    tensors: Mapping[str, Tensor],
    process: ResidualShift,
    autoencoder: VQAutoencoder | None,
    image_size: int | None = None,
) -> Denoiser:
    """The denoiser of a file that works on latents; without `autoencoder` one that knows no pictures.

    Raises:
        UserError: weights of another network, or an autoencoder with other latents.
    """
    state = shapes.size("out.2.weight")
    observed = shapes.size("input_blocks.0.0.weight", 1) - state
    network = filled(lambda: swin_unet(shapes, state, observed, image_size), tensors, shapes.path)
    if autoencoder is None:
        return Denoiser(network, process, ScaledInput())
    if autoencoder.embed_dim != state:
        raise UserError(
            f"{shapes.path} works on latents of {state} channels, its autoencoder gives {autoencoder.embed_dim}; give "
            "the one that it was trained with"
        )
    return LatentDenoiser(network, process, autoencoder)


def swin_unet(shapes: Shapes, state: int, condition: int, image_size: int | None = None) -> SwinUNet:
    """The Swin-UNet of UPSR or ResShift for `state` and `condition` channels; `image_size` for a file without masks."""
    first = "input_blocks.0.0.weight"
    shapes.check(first, 1, [state + condition], "the channels of the state and of what is observed")
    width, embed = shapes.size(first), shapes.size("middle_block.1.patch_embed.proj.weight")
    multiples: list[int] = []
    blocks = [0]
    swins: dict[int, str] = {}  # level to layer
    for index in range(1, shapes.count("input_blocks.")):
        stage = f"input_blocks.{index}"
        if f"{stage}.0.op.weight" in shapes:
            blocks.append(0)
            continue
        if blocks[-1] == 0:
            multiples.append(shapes.size(f"{stage}.0.in_layers.2.weight") // width)
            if f"{stage}.1.patch_embed.proj.weight" in shapes:
                swins[len(blocks) - 1] = f"{stage}.1"
        blocks[-1] += 1
    if len(multiples) != len(blocks):
        raise UserError(f"{shapes.path} lacks the tensors of a whole level of input_blocks; give a complete file")
    layers = [*swins.items(), (len(blocks) - 1, "middle_block.1")]
    windows = {layer: window(shapes, f"{layer}.blocks.0.attn") for _, layer in layers}
    side = _image_size(shapes, layers, windows) if image_size is None else image_size
    arguments: dict[str, Any] = (
        {"num_feat": shapes.size(name)} if (name := "conv_before_upsample.0.weight") in shapes else {}
    )
    table = "middle_block.1.blocks.0.attn.relative_position_bias_table"
    return SwinUNet(
        state,
        condition,
        out_channels=shapes.size("conv_last.weight" if arguments else "out.2.weight"),
        model_channels=width,
        channel_mult=multiples,
        num_res_blocks=blocks,
        attention_resolutions=[side // 2**level for level in swins],
        image_size=side,
        num_head_channels=embed // max(1, shapes.size(table, 1)),
        swin_depth=shapes.count("middle_block.1.blocks."),
        swin_embed_dim=embed,
        window_size=max(windows.values()),
        mlp_ratio=shapes.size("middle_block.1.blocks.0.mlp.fc1.weight") / embed,
        **arguments,
    )


def _image_size(shapes: Shapes, layers: list[tuple[int, str]], windows: dict[str, int]) -> int:
    """The side that places the layers: a mask has one entry a window, and a window that is smaller fills its level.

    Raises:
        UserError: neither is there, nor is it the published 64 with windows of 8.
    """
    for level, layer in layers:
        mask = f"{layer}.blocks.1.attn_mask"
        if mask in shapes:
            return windows[layer] * isqrt(shapes.size(mask)) * 2**level
    level, layer = layers[-1]
    side = windows[layer] * 2**level
    if windows[layer] == max(windows.values()) and side != IMAGE_SIZE:
        raise UserError(f"{shapes.path} lacks {layers[0][1]}.blocks.1.attn_mask and other masks; give --image_size")
    return side


def vq_autoencoder(tensors: Mapping[str, Tensor], path: Path) -> VQAutoencoder:
    """The autoencoder with these weights, of any size.

    Raises:
        UserError: weights that make none.
    """
    shapes = Shapes(tensors, path)
    width = shapes.size("encoder.conv_in.weight")
    levels = shapes.count("encoder.down.")
    multiples = [shapes.size(f"encoder.down.{level}.block.0.conv1.weight") // max(1, width) for level in range(levels)]
    attentive = [256 >> level for level in range(levels) if f"encoder.down.{level}.attn.0.q.weight" in shapes]
    network = filled(
        lambda: VQAutoencoder(
            in_channels=shapes.size("encoder.conv_in.weight", 1),
            ch=width,
            ch_mult=multiples,
            num_res_blocks=shapes.count("encoder.down.0.block."),
            z_channels=shapes.size("encoder.conv_out.weight"),
            embed_dim=shapes.size("quantize.embedding.weight", 1),
            n_embed=shapes.size("quantize.embedding.weight"),
            attn_resolutions=attentive,
            resolution=256,
        ),
        {name: tensor for name, tensor in tensors.items() if not name.startswith("loss.")},  # of its training
        path,
    )
    assert isinstance(network, VQAutoencoder)
    return network


def reconstruction(autoencoder: VQAutoencoder) -> Denoiser:
    """The autoencoder as a predictive model of its own input, which is how it is trained and kept in a file."""
    return Denoiser(autoencoder, Prediction(), OneShot())


def read_autoencoder(path: Path, app: str | None = None) -> VQAutoencoder:
    """An autoencoder from a published file (autoencoder_vq_f4.pth, CompVis) or a .safetensors file of ours.

    Raises:
        UserError: no such file, or one of something else.
    """
    if path.suffix != ".safetensors":
        return vq_autoencoder(read_weights(path), path)
    network = load(path, app=app).denoiser.network
    if not isinstance(network, VQAutoencoder):
        raise UserError(f"{path} holds a {type(network).__name__} and no autoencoder; give a VQAutoencoder")
    return network


def fill_autoencoder(denoiser: Denoiser, path: Path, app: str) -> None:
    """Give the autoencoder of `denoiser` the weights of a file, see `read_autoencoder`.

    Raises:
        UserError: no such file, another autoencoder in it, or a denoiser without one.
    """
    if not isinstance(denoiser, LatentDenoiser):
        raise UserError(f"{type(denoiser).__name__} has no autoencoder; leave model.autoencoder_from out")
    trained = read_autoencoder(path, app).state_dict()
    own = denoiser.autoencoder
    if {name: value.shape for name, value in trained.items()} != {
        name: value.shape for name, value in own.state_dict().items()
    }:
        raise UserError(f"{path} holds another autoencoder than the recipe; give the file that fits it")
    own.load_state_dict(trained)


def computed(network: nn.Module) -> dict[str, Tensor]:
    """The masks and indices that published files of a Swin-UNet hold beside its weights."""
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, SwinBlock):
            found[f"{name}.attn.relative_position_index"] = plain_copy(module.attn.index)
            if module.mask is not None:
                found[f"{name}.attn_mask"] = plain_copy(module.mask)
    return found
