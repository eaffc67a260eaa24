"""The architecture of a published network from the names and shapes of its tensors: no file of them stores it."""

from math import isqrt
from typing import TYPE_CHECKING, Any, Literal

from ornstein.published_shapes import Shapes, window

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["upsr", "atd", "resfusion", "rddm", "resshift"]

PATCH = 4
"""Of the pixel unshuffling of UPSR."""
STATE = 3 * PATCH**2
"""Channels of its state."""


def guess(shapes: Shapes) -> Kind | None:
    """What the names, without prefixes, say: the kind, or None. A UNet alone is Resfusion's."""
    if "layers.0.residual_group.td" in shapes:
        return "atd"
    if "input_blocks.0.0.weight" in shapes:
        unguided = shapes.size("input_blocks.0.0.weight", 1) == 2 * STATE
        return "upsr" if "conv_before_upsample.0.weight" in shapes and not unguided else "resshift"
    if any(name.startswith(("unet0.", "ups_no_skip.")) for name in shapes):
        return "rddm"
    if (
        "temb.dense.0.weight" in shapes
        or "x_embedder.proj.weight" in shapes
        or {"init_conv.weight", "final_conv.weight"} <= shapes.keys()
    ):
        return "resfusion"
    return None


def atd(shapes: Shapes, category_size: int) -> "nn.Module":
    """ATD for pictures of three channels."""
    from ornstein.networks.atd import from_published

    shapes.check("conv_first.weight", 1, [3], "RGB")
    groups = range(shapes.count("layers."))
    block = "layers.0.residual_group.layers.0"
    embed = shapes.size("conv_first.weight")
    return from_published(
        {
            "upscale": isqrt(shapes.size("upsample.0.weight") // 3),
            "embed_dim": embed,
            "depths": [shapes.count(f"layers.{group}.residual_group.layers.") for group in groups],
            "num_heads": [
                shapes.size(f"layers.{group}.residual_group.layers.0.attn_win.relative_position_bias_table", 1)
                for group in groups
            ],
            "window_size": window(shapes, f"{block}.attn_win"),
            "category_size": category_size,
            "num_tokens": shapes.size("layers.0.residual_group.td"),
            "reducted_dim": shapes.size(f"{block}.attn_atd.wq.weight"),
            "convffn_kernel_size": shapes.size(f"{block}.convffn.dwconv.depthwise_conv.0.weight", 2),
            "mlp_ratio": shapes.size(f"{block}.convffn.fc1.weight") / embed,
        }
    )


def residual_unet(shapes: Shapes, mask_channels: int, groups: int, alone: bool = False) -> "nn.Module":
    """The UNet of Resfusion and RDDM for y and perhaps a mask of `mask_channels`, or, if `alone`, for x alone."""
    from ornstein.networks.residual_unet import from_published

    inputs = shapes.check("init_conv.weight", 1, [3] * alone + [6, 6 + mask_channels], "x, y, perhaps a mask")
    shapes.check("final_conv.weight", 0, [3], "RGB")
    return from_published(
        {
            **_widths(shapes),
            "resnet_block_groups": groups,
            "input_condition": inputs > 3,
            "mask_condition": inputs > 6,
            "mask_condition_channels": mask_channels,
        }
    )


def shared_encoder(shapes: Shapes, groups: int) -> "nn.Module":
    """RDDM's UNet with one encoder and two decoders."""
    from ornstein.networks.unet_res import from_published

    inputs = shapes.check("init_conv.weight", 1, [6, 9], "x, y and perhaps a mask")
    options = {**_widths(shapes), "resnet_block_groups": groups, "input_condition": inputs > 6, "share_encoder": 1}
    return from_published(options)


def _widths(shapes: Shapes) -> dict[str, Any]:
    dim = shapes.size("init_conv.weight")
    levels = range(shapes.count("downs."))
    return {"dim": dim, "dim_mults": [shapes.size(f"downs.{level}.3.weight") // max(1, dim) for level in levels]}


def dit(shapes: Shapes, num_heads: int | None) -> "nn.Module":
    """Resfusion's transformer; published ones have 64 features a head."""
    from ornstein.networks.dit import from_published

    first = "x_embedder.proj.weight"
    inputs = shapes.check(first, 1, [3, 6, 8], "x, perhaps y, perhaps a mask")
    size, patch = shapes.size(first), shapes.size(first, 2)
    side = isqrt(shapes.size("pos_embed", 1)) * patch if "pos_embed" in shapes else 256
    shapes.check("final_layer.linear.weight", 0, [3 * patch**2], "RGB patches")
    return from_published(
        {
            "input_size": side,
            "patch_size": patch,
            "hidden_size": size,
            "depth": shapes.count("blocks."),
            "num_heads": max(1, size // 64) if num_heads is None else num_heads,
            "mlp_ratio": shapes.size("blocks.0.mlp.fc1.weight") / size,
            "input_condition": inputs > 3,
            "mask_condition": inputs > 6,
        }
    )


def ddim_unet(shapes: Shapes, image_size: int) -> "nn.Module":
    """The UNet of DDIM, which Resfusion generates CIFAR-10 with; `image_size` says where its attention is."""
    from ornstein.networks.ddim_unet import from_published

    inputs = shapes.check("conv_in.weight", 1, [3, 6], "x, and perhaps y")
    shapes.check("conv_out.weight", 0, [3], "RGB")
    width, levels = shapes.size("conv_in.weight"), range(shapes.count("down."))
    return from_published(
        {
            "ch": width,
            "ch_mult": [shapes.size(f"down.{level}.block.0.conv1.weight") // max(1, width) for level in levels],
            "num_res_blocks": shapes.count("down.0.block."),
            "attn_resolutions": [image_size >> level for level in levels if shapes.count(f"down.{level}.attn.")],
            "image_size": image_size,
            "input_condition": inputs > 3,
        }
    )
