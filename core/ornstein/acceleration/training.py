"""CUDA graphs of a network in training: a small one waits for the host, which launches thousands of kernels a step."""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

LIMIT = 4
"""Shapes of arguments to record; each keeps the activations of a step."""

COMPILER: dict[str, Any] = {"triton.mix_order_reduction": False}
"""Options of torch.compile: this one gives gradients of the wrong shape in channels last (pytorch issue 178080)."""


class GraphedTraining:
    """`network.forward` and its backward pass, each replayed as one CUDA graph (`torch.cuda.make_graphed_callables`).

    Only the first call of a step is replayed, as a second one would write over what the first keeps for its gradient.
    Further calls, calls beyond `LIMIT` shapes, on a CPU, or with arguments that want a gradient take the network as it
    is, and so does everything without gradients: validation meets sizes that recur rarely.

    Gradients live in the memory of the graph: they have to be dropped or used before the next backward pass, so they
    cannot be accumulated over several.

    Args:
        network: takes and gives tensors; its weights stay where they are until `remove`.
        compile: fuse with torch.compile as well: minutes at the first step.
    """

    def __init__(self, network: nn.Module, compile: bool = True) -> None:
        self.network = network
        self._forward: Callable[..., Tensor] = network.forward
        self._trained = torch.compile(self._forward, dynamic=False, options=COMPILER) if compile else self._forward
        self._graphs: dict[Hashable, Callable[..., Any]] = {}
        self._used = False
        network.forward = self

    def begin_step(self) -> None:
        """A step begins: what the graphs gave in the one before may be overwritten."""
        self._used = False

    def remove(self) -> None:
        """Give the network its own forward pass back."""
        del self.network.forward
        self._graphs.clear()

    def __call__(self, *tensors: Tensor | None, **named: Tensor | None) -> Tensor:
        if not torch.is_grad_enabled():
            return self._forward(*tensors, **named)
        present = [tensor for tensor in (*tensors, *named.values()) if tensor is not None]
        replayable = present and all(_on_gpu(t) and not t.requires_grad for t in present)
        if self._used or not replayable or not self.network.training:
            return self._trained(*tensors, **named)
        key = (
            len(tensors),
            tuple(named),
            *(None if t is None else (t.shape, t.dtype) for t in (*tensors, *named.values())),
        )
        if key not in self._graphs:
            if len(self._graphs) >= LIMIT:
                return self._trained(*tensors, **named)
            self._graphs[key] = _record(self.network, self._call(tensors, named), present)
        self._used = True
        result: Tensor = self._graphs[key](*present)
        return result

    def _call(self, tensors: tuple[Tensor | None, ...], named: dict[str, Tensor | None]) -> Callable[..., Tensor]:
        """The network as a function of those arguments alone that are tensors."""
        given = [tensor is not None for tensor in tensors]
        names = {name: tensor is not None for name, tensor in named.items()}

        def call(*present: Tensor) -> Tensor:
            rest = iter(present)
            positional = [next(rest) if there else None for there in given]
            return self._trained(*positional, **{name: next(rest) if there else None for name, there in names.items()})

        return call


class _Called(nn.Module):
    """A function with the weights that it uses."""

    def __init__(self, network: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(network.parameters())
        self.function = function

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors)


def _record(network: nn.Module, function: Callable[..., Tensor], tensors: list[Tensor]) -> Callable[..., Any]:
    buffers = tuple(tensor.detach().clone() for tensor in tensors)
    device = buffers[0].device.type
    dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    # the cache of casts would outlive a recording, whose memory is not the cache's
    with torch.autocast(device, dtype, enabled, cache_enabled=False):
        return torch.cuda.make_graphed_callables(_Called(network, function), buffers, allow_unused_input=True)


def _on_gpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"
