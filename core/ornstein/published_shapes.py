"""Networks of published files from the names and shapes of their tensors: no file stores its architecture."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ornstein.errors import UserError

if TYPE_CHECKING:  # help pages read modules that import this one
    from torch import Tensor, nn

T = TypeVar("T")

COMPUTED = ("attn_mask", "relative_position_index", "relative_position_index_SA", "pos_embed")
"""Last components of names of tensors that our networks work out by themselves."""


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


def filled(
    build: "Callable[[], nn.Module]", tensors: "Mapping[str, Tensor]", path: Path, prefix: str = ""
) -> "nn.Module":
    """The network that `build` makes with the weights whose names begin with `prefix`."""
    import torch

    from ornstein.checkpoint import fill

    with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away
        network = checked(build, path)
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    own = {name: tensor for name, tensor in own.items() if name.rpartition(".")[2] not in COMPUTED}
    fixed = {name: t for name, t in network.state_dict().items() if name.rpartition(".")[2] in COMPUTED}
    fill(network, own | fixed, path, f"a {type(network).__name__}")
    return network


def checked(build: Callable[[], T], path: Path) -> T:
    """What `build` makes; arguments that it refuses are the user's."""
    try:
        return build()
    except UserError:
        raise
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        raise UserError(f"{path} cannot be imported with these options: {error}; change them") from error


def window(shapes: Shapes, attention: str) -> int:
    """The side of a window, from its table of (2 side - 1)^2 positions."""
    return (isqrt(shapes.size(f"{attention}.relative_position_bias_table")) + 1) // 2
