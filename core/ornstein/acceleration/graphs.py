"""CUDA graphs: a sequence of kernels recorded once and launched as one, where the host is slower than the GPU.

A graph fixes shapes and addresses, so there is one per shape of the arguments; inputs are copied into its buffers and
the result is copied out, so callers see ordinary tensors.
"""

import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.noise import Noise
from ornstein.samplers.base import Sampler, SamplingError

WARM_UP = 3
"""Calls before recording: libraries choose algorithms, compilers compile."""


@dataclass
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    output: Tensor

    def __call__(self, tensors: Sequence[Tensor]) -> Tensor:
        for buffer, tensor in zip(self.inputs, tensors, strict=True):
            buffer.copy_(tensor, non_blocking=True)
        self.graph.replay()
        return self.output.clone()


@dataclass
class GraphedCall:
    """`function` of tensors, replayed as a CUDA graph: one recording per shape of the arguments.

    Results equal those of `function` bit for bit. It must be a pure function of its arguments on one device, without
    synchronisation; on a CPU, or where a gradient is to flow (guidance), it is simply called.

    Args:
        function: takes tensors by position and by name, returns one tensor.
        limit: recordings to keep; further shapes are computed without a graph, and that is said once.
        batches: sizes that the first dimension is rounded up to by repeating the last item, so that a short last batch
            needs no recording of its own; `function` must treat the items one by one.
    """

    function: Callable[..., Tensor]
    limit: int = 8
    batches: Sequence[int] = ()
    _recordings: dict[Hashable, _Recording] = field(default_factory=dict, init=False, repr=False)
    _pool: Any = field(default=None, init=False, repr=False)

    def __call__(self, *tensors: Tensor, **named: Tensor) -> Tensor:
        if not tensors or not _on_gpu(tensors[0]) or _differentiated(*tensors, *named.values()):
            return self.function(*tensors, **named)
        count = len(tensors[0])
        size = min((b for b in self.batches if b >= count), default=count)
        arguments = [_grown(tensor, size) for tensor in (*tensors, *named.values())]
        key = (tuple(named), *((t.shape, t.dtype, t.device) for t in arguments))
        if key not in self._recordings and len(self._recordings) >= self.limit:
            _warn_of_many(self.limit)
            return self.function(*tensors, **named)
        with _plain_tensors():
            if key not in self._recordings:
                # One pool of memory for all: a result is copied out before the next graph may write over it.
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                self._recordings[key] = record(self._call(len(tensors), tuple(named)), arguments, self._pool)
            return self._recordings[key](arguments)[:count]

    def _call(self, positional: int, names: tuple[str, ...]) -> Callable[..., Tensor]:
        def call(*arguments: Tensor) -> Tensor:
            return self.function(*arguments[:positional], **dict(zip(names, arguments[positional:], strict=True)))

        return call


def record(function: Callable[..., Tensor], tensors: Sequence[Tensor], pool: Any = None) -> _Recording:
    """Record `function` at these arguments, its memory taken from `pool`.

    Raises:
        RuntimeError: it synchronises with the device, or allocates where it must not.
    """
    buffers = [tensor.clone() for tensor in tensors]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            function(*buffers)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        output = function(*buffers)
    return _Recording(graph, buffers, output)


class GraphedSampler:
    """A sampler whose whole loop is one CUDA graph per shape: for networks so small that even single steps are bound by
    the host.

    Called like the sampler. The noise of a run is drawn before it, in the order in which the sampler asks for it, so
    results equal the sampler's. The denoiser must not hold graphs of its own.

    Args:
        sampler: one with a fixed number of steps.
        limit: recordings to keep, one per denoiser and shape.
    """

    def __init__(self, sampler: Sampler, limit: int = 8) -> None:
        self.sampler = sampler
        self.limit = limit
        self._runs: dict[Hashable, tuple[DenoiserLike, int, GraphedCall]] = {}

    def __call__(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        on_step: Callable[[int, int], None] | None = None,
        **condition: Tensor,
    ) -> Tensor:
        """The sample that starts at `x`; `on_step` is told of all steps at the end.

        Raises:
            ValueError: the sampler adapts its steps.
            SamplingError: the sample is not finite.
        """
        if self.sampler.evaluations(denoiser.process) is None:
            raise ValueError(f"{type(self.sampler).__name__} chooses its steps as it goes; no graph can hold it")
        if not _on_gpu(x):
            return self.sampler(denoiser, x, y, noise, on_step, **condition)
        named: dict[str, Any] = ({} if y is None else {"y": y}) | condition
        shapes = ((name, t.shape, t.dtype) for name, t in {"x": x, **named}.items())
        key = (id(denoiser), noise is None, *shapes)
        if key not in self._runs:
            if len(self._runs) >= self.limit:
                _warn_of_many(self.limit)
                return self.sampler(denoiser, x, y, noise, on_step, **condition)
            call = GraphedCall(self._loop(denoiser), limit=1)
            self._runs[key] = (denoiser, self._draws(denoiser, x, noise, named), call)
        _, draws, call = self._runs[key]
        drawn = {f"noise {i}": noise(x) for i in range(draws)} if noise is not None else {}
        result = call(x, **named, **drawn)
        if not bool(result.isfinite().all()):
            raise SamplingError(
                f"the sample of {type(self.sampler).__name__} is not finite; run the sampler without GraphedSampler, "
                "which says in which step that begins"
            )
        if on_step is not None:
            for done in range(1, self.sampler.steps + 1):
                on_step(done, self.sampler.steps)
        return result

    def _draws(self, denoiser: DenoiserLike, x: Tensor, noise: Noise | None, named: dict[str, Any]) -> int:
        """How often the sampler asks for noise."""
        draws = 0

        def count(like: Tensor) -> Tensor:
            nonlocal draws
            draws += 1
            return torch.zeros_like(like)

        self.sampler(denoiser, x, noise=None if noise is None else count, **named)
        return draws

    def _loop(self, denoiser: DenoiserLike) -> Callable[..., Tensor]:
        def loop(x: Tensor, **named: Any) -> Tensor:
            draws = iter([named.pop(name) for name in list(named) if name.startswith("noise ")])
            state = x  # not the sampler's call, which ends with a look at the values that a recording cannot take
            for after in self.sampler.trajectory(denoiser, x, noise=lambda _: next(draws), **named):
                state = after
            return state

        return loop


def _on_gpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"


def _differentiated(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _warn_of_many(limit: int) -> None:
    warnings.warn(
        f"more than {limit} shapes: the others run without a CUDA graph, which is slower; "
        "use fewer lengths or a higher limit",
        stacklevel=3,
    )


def _grown(tensor: Tensor, size: int) -> Tensor:
    """`tensor` with its last item repeated up to `size` items."""
    missing = size - len(tensor)
    return tensor if missing == 0 else torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])])


@contextmanager
def _plain_tensors() -> Iterator[None]:
    """Buffers made in inference mode could not be written to outside it."""
    with torch.inference_mode(False), torch.no_grad():
        yield
