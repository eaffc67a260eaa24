"""Weights and inputs that a formula makes, so that full-size networks can be compared without storing them.

The formula and its order are those of the restoration reference set: a 64-bit hash of the position of the tensor and of
the element in it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

COMPUTED = ("attn_mask", "relative_position_index", "relative_position_index_SA", "pos_embed")
"""Last components of published names that hold no weights."""
X, CONDITION, MASK = 1000, 1001, 1002
"""Positions that stand for the inputs."""


def hashed(shape: Sequence[int], position: int) -> Tensor:
    """Numbers in [-1, 1) of `shape`, float64."""
    count = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(position + 1) * np.uint64(0xBF58476D1CE4E5B9)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z ^= z >> np.uint64(shift)
            z *= np.uint64(factor)
        z ^= z >> np.uint64(31)
        z >>= np.uint64(40)
    return torch.from_numpy(z * (2 / 2**24) - 1).reshape(tuple(shape))


def weight_names(names: Iterable[str]) -> list[str]:
    """The names that the formula fills, in its order."""
    return sorted((n for n in names if n.rpartition(".")[2] not in COMPUTED), key=str.encode)


def formula_weights(shapes: Mapping[str, Sequence[int]], salt: int = 0) -> dict[str, Tensor]:
    """Every tensor of a state dict of these shapes but the computed ones."""
    weights = {}
    for position, name in enumerate(weight_names(shapes)):
        shape = shapes[name]
        value = hashed(shape, position + salt)
        if len(shape) >= 2:
            value *= (3 / (value.numel() / shape[0])) ** 0.5
        elif name.rpartition(".")[2] in ("weight", "g"):
            value = 1 + 0.2 * value
        else:
            value *= 0.1
        weights[name] = value.float()
    return weights


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's state dict."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def filled(network: nn.Module, salt: int = 0) -> nn.Module:
    """`network` with the weights of the formula, in eval mode."""
    network.load_state_dict(formula_weights(shapes_of(network), salt), assign=True)
    return network.requires_grad_(False).eval()


def parameters(network: nn.Module) -> int:
    """How many numbers a network learns."""
    return sum(parameter.numel() for parameter in network.parameters())


def largest_error(value: Tensor, expected: Tensor) -> float:
    """Largest absolute difference."""
    torch.testing.assert_close(value.shape, expected.shape)
    return float((value - expected).abs().max())


def published_entry(path: Path) -> dict[str, Any]:
    """What the net_keys.json beside net_NAME.npz says of NAME: kind, config, salt, params and keys."""
    return json.loads(path.with_name("net_keys.json").read_text())[path.stem.removeprefix("net_")]


def published_shapes(entry: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of the published state dict, without prefix, tables of a process and computed entries."""
    shapes = {name.removeprefix("model."): tuple(shape) for name, shape in entry["keys"].items()}
    whole = any(name.startswith("model.") for name in entry["keys"])
    return {
        name: shape
        for name, shape in shapes.items()
        if name.rpartition(".")[2] not in COMPUTED and not (whole and "." not in name)
    }
