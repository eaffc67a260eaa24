"""The architecture of a published network from the names and shapes of its tensors: no file of them stores it."""

from collections.abc import Iterable, Iterator, Mapping
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ornstein.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

Kind = Literal["upsr", "atd", "resfusion", "rddm", "resshift"]

COMPUTED = ("attn_mask", "relative_position_index", "relative_position_index_SA", "pos_embed")
"""Last components of names of tensors that our networks work out by themselves."""

PATCH = 4
"""Of the pixel unshuffling of UPSR."""
STATE = 3 * PATCH**2
"""Channels of its state."""

IMAGE_SIZE = 64
"""Of all published Swin-UNets."""


class Shapes(Mapping[str, tuple[int, ...]]):
    """The shapes of the tensors of a file; one that is missing is the user's mistake, and is named."""

    def __init__(self, tensors: "Mapping[str, Tensor]", path: Path) -> None:
        self.path = path
        self._shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def __getitem__(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes:
            raise UserError(f"{self.path} lacks the tensor {name}; give a complete file, or the right --kind")
        return self._shapes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def size(self, name: str, axis: int = 0) -> int:
        """One side of a tensor."""
        shape = self[name]
        if axis >= len(shape):
            raise UserError(f"{self.path}: {name} has the shape {shape}, which no published network has")
        return shape[axis]

    def count(self, prefix: str) -> int:
        """How many different numbers follow `prefix`."""
        following = {name.removeprefix(prefix).partition(".")[0] for name in self if name.startswith(prefix)}
        return len([part for part in following if part.isdigit()])

    def check(self, name: str, axis: int, allowed: Iterable[int], what: str) -> int:
        """One side of a tensor, which must be one of `allowed`.

        Raises:
            UserError: it is another; both shapes are named.
        """
        shape, found, options = self[name], self.size(name, axis), list(allowed)
        if found not in options:
            wanted = " or ".join(str((*shape[:axis], option, *shape[axis + 1 :])) for option in options)
            raise UserError(f"{self.path}: {name} has the shape {shape} instead of {wanted}: {what}")
        return found


def guess(shapes: Shapes) -> Kind | None:
    """What the names, without prefixes, say: the kind, or None. A UNet alone is Resfusion's."""
    if "layers.0.residual_group.td" in shapes:
        return "atd"
    if "input_blocks.0.0.weight" in shapes:
        unguided = shapes.size("input_blocks.0.0.weight", 1) == 2 * STATE
        return "upsr" if "conv_before_upsample.0.weight" in shapes and not unguided else "resshift"
    if any(name.startswith(("unet0.", "ups_no_skip.")) for name in shapes):
        return "rddm"
    if "x_embedder.proj.weight" in shapes or {"init_conv.weight", "final_conv.weight"} <= shapes.keys():
        return "resfusion"
    return None


def swin_unet(shapes: Shapes, state: int, condition: int, image_size: int | None = None) -> "nn.Module":
    """The Swin-UNet of UPSR or ResShift for `state` and `condition` channels; `image_size` for a file without masks."""
    from ornstein.networks.swin_unet import SwinUNet

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
    windows = {layer: _window(shapes, f"{layer}.blocks.0.attn") for _, layer in layers}
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


def _window(shapes: Shapes, attention: str) -> int:
    """The side of a window, from its table of (2 side - 1)^2 positions."""
    return (isqrt(shapes.size(f"{attention}.relative_position_bias_table")) + 1) // 2


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
            "window_size": _window(shapes, f"{block}.attn_win"),
            "category_size": category_size,
            "num_tokens": shapes.size("layers.0.residual_group.td"),
            "reducted_dim": shapes.size(f"{block}.attn_atd.wq.weight"),
            "convffn_kernel_size": shapes.size(f"{block}.convffn.dwconv.depthwise_conv.0.weight", 2),
            "mlp_ratio": shapes.size(f"{block}.convffn.fc1.weight") / embed,
        }
    )


def residual_unet(shapes: Shapes, mask_channels: int, groups: int) -> "nn.Module":
    """The UNet of Resfusion and RDDM for y and perhaps a mask of `mask_channels`."""
    from ornstein.networks.residual_unet import from_published

    inputs = shapes.check("init_conv.weight", 1, [6, 6 + mask_channels], "x, y and perhaps a mask")
    shapes.check("final_conv.weight", 0, [3], "RGB")
    return from_published(
        {
            **_widths(shapes),
            "resnet_block_groups": groups,
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
    inputs = shapes.check(first, 1, [6, 8], "x, y and perhaps a mask")
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
            "mask_condition": inputs > 6,
        }
    )
