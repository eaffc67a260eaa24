"""A fast copy of a denoiser: precision, memory layout, compilation and CUDA graphs in one place."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from ornstein.acceleration.graphs import GraphedCall
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError

Precision = Literal["float32", "bfloat16", "float16"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

SHAPES = 64
"""How many shapes of input a network is compiled for."""


@dataclass(frozen=True)
class Acceleration:
    """How a network is run. None of this changes what it computes, except for the rounding of `precision`."""

    precision: Precision = "float32"
    """Of convolutions and matrix products, by autocast. Normalisation, schedules and the sampler's arithmetic stay in
    float32; so does an autoencoder of latents, but for its attention, which is in float16 then. In float32, cuDNN
    convolutions use TF32 unless PyTorch is told otherwise."""
    channels_last: bool = True
    """Keep features in channels-last order, which tensor cores want."""
    compile: bool = False
    """Fuse with torch.compile: a minute or so at the first call of every shape."""
    graphs: int = 0
    """CUDA graphs to keep, one per shape (see GraphedCall); 0 launches every kernel by itself."""
    batches: tuple[int, ...] = ()
    """Batch sizes to round up to, so that a graph or a compiled kernel serves several."""

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16", "float16"):
            raise UserError(f"precision is {self.precision!r}; use float32, bfloat16 or float16")
        if self.graphs < 0 or any(size < 1 for size in self.batches):
            raise UserError("graphs must be at least 0 and every entry of batches at least 1")

    @classmethod
    def usual(
        cls,
        device: torch.device,
        precision: Literal["auto", Precision],
        compile: bool,
        graphs: int,
        batches: tuple[int, ...] = (),
    ) -> "Acceleration":
        """What is usual on `device`: bfloat16, `graphs` and `batches` on a GPU, float32 and none of them on a CPU.

        Raises:
            UserError: float16 on a CPU.
        """
        on_cpu = device.type == "cpu"
        if on_cpu and precision == "float16":
            raise UserError("precision float16 is for GPUs; a CPU takes far longer with it than with float32")
        return cls(
            precision=("float32" if on_cpu else "bfloat16") if precision == "auto" else precision,
            channels_last=not on_cpu or compile,
            compile=compile,
            graphs=0 if on_cpu else graphs,
            batches=() if on_cpu else batches,
        )


def accelerate(denoiser: Denoiser, how: Acceleration = Acceleration()) -> Denoiser:
    """A copy of `denoiser` for inference that runs as `how` says; process and parameterization are shared.

    Later changes of the original's weights do not reach it. It works with every sampler, and guidance may wrap it.
    """
    half: Callable[[], Denoiser] | None = getattr(denoiser, "with_half_attention", None)  # of an autoencoder
    if half is not None and how.precision != "float32":
        denoiser = half()
    return denoiser.with_networks(lambda network: _fast(network, how)).eval()


def _fast(network: nn.Module, how: Acceleration) -> "_FastNetwork":
    network = _folded(copy.deepcopy(network).eval().requires_grad_(False))
    if how.precision != "float32":
        for module in network.modules():  # once, instead of casting the weights at every call
            if isinstance(module, CONVOLUTIONS):
                module.to(getattr(torch, how.precision))
    if how.channels_last:
        convert_conv2d_weight_memory_format(network, torch.channels_last)
    if how.compile:
        # the default, 8, would leave the ninth shape uncompiled without a word
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, SHAPES)
        network.compile(dynamic=False)
    return _FastNetwork(network, how)


def _folded(network: nn.Module) -> nn.Module:
    """`network` with what is a function of its weights alone computed once: every module that has a method `folded`
    gives the module that takes its place."""
    fold: Callable[[], nn.Module] | None = getattr(network, "folded", None)
    if fold is not None:
        return fold()
    for name, child in network.named_children():
        setattr(network, name, _folded(child))
    return network


class _FastNetwork(nn.Module):
    def __init__(self, network: nn.Module, how: Acceleration) -> None:
        super().__init__()
        self.network = network
        self.how = how
        self._run = GraphedCall(self._autocast, how.graphs, how.batches) if how.graphs else self._autocast

    def forward(self, x: Tensor, *others: Tensor, **condition: Tensor) -> Tensor:
        return self._run(x, *others, **condition)

    def _autocast(self, x: Tensor, *others: Tensor, **condition: Any) -> Tensor:
        if self.how.precision == "float32":
            return self.network(x, *others, **condition)
        # the cache of casts would outlive a recording, whose memory is not the cache's
        with torch.autocast(x.device.type, getattr(torch, self.how.precision), cache_enabled=False):
            return self.network(x, *others, **condition)
