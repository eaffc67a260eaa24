"""The book-keeping of CUDA graphs, with recordings that replay on a CPU; real ones: benchmarks/gpu_checks.py."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ornstein.acceleration import GraphedCall, GraphedSampler, graphs
from ornstein.denoiser import Denoiser
from ornstein.noise import SampleNoise
from ornstein.parameterization import X0
from ornstein.process.bridge import SchroedingerBridge
from ornstein.samplers import base
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import SamplingError
from ornstein.samplers.time_grids import UniformGrid


class Replayed:
    """Like a graph: computes again from the buffers that it was recorded with, into the same output."""

    def __init__(self, function: Callable[..., Tensor], buffers: list[Tensor], output: Tensor) -> None:
        self.function, self.buffers, self.output = function, buffers, output

    def replay(self) -> None:
        self.output.copy_(self.function(*self.buffers))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[list[torch.Size]]:
    """The shapes of every recording made."""
    made: list[list[torch.Size]] = []

    def record(function: Callable[..., Tensor], tensors: Sequence[Tensor], pool: Any = None) -> Any:
        made.append([tensor.shape for tensor in tensors])
        buffers = [torch.full_like(tensor, torch.nan) for tensor in tensors]  # what is not copied in shows
        with monkeypatch.context() as patch:  # the values that a sampler looks at do not exist while recording
            patch.setattr(base._Watched, "finish", lambda _: pytest.fail("values are looked at"))
            output = function(*(tensor.clone() for tensor in tensors)).fill_(torch.nan)
        return graphs._Recording(Replayed(function, buffers, output), buffers, output)  # type: ignore[arg-type]

    monkeypatch.setattr(graphs, "record", record)
    monkeypatch.setattr(graphs, "_on_gpu", lambda tensor: True)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    return made


def test_one_recording_per_shape(recorded: list[list[torch.Size]]) -> None:
    call = GraphedCall(lambda a, *, b: 2 * a + b)
    for size in (3, 5, 3, 5):
        a = torch.randn(size)
        assert torch.equal(call(a, b=a), 3 * a)
    assert len(recorded) == 2


def test_results_are_not_written_over(recorded: list[list[torch.Size]]) -> None:
    call = GraphedCall(lambda a: a + 1)
    first = call(torch.zeros(2))
    call(torch.ones(2))
    assert first.tolist() == [1, 1]


def test_batches_are_rounded_up_and_cut(recorded: list[list[torch.Size]]) -> None:
    call = GraphedCall(lambda a, b: a * b, batches=(2, 4))
    for count in (1, 2, 3, 4, 5):
        a = torch.randn(count, 3)
        assert torch.equal(call(a, a), a * a)
    assert [shapes[0][0] for shapes in recorded] == [2, 4, 5]


def test_more_shapes_than_the_limit_run_plainly(recorded: list[list[torch.Size]]) -> None:
    call = GraphedCall(lambda a: -a, limit=1)
    call(torch.ones(1))
    with pytest.warns(UserWarning, match="more than 1 shapes"):
        assert torch.equal(call(torch.ones(2)), -torch.ones(2))
    assert len(recorded) == 1


def test_on_a_cpu_the_function_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "record", lambda *_: pytest.fail("nothing to record"))
    assert GraphedCall(lambda a: 2 * a)(torch.ones(2)).tolist() == [2, 2]


class Half(nn.Module):
    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return (x + y) / 2 * t[:, None]


@pytest.fixture
def denoiser() -> Denoiser:
    return Denoiser(Half(), SchroedingerBridge(), X0())


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_whole_loop_with_its_noise(denoiser: Denoiser, recorded: list[list[torch.Size]], eta: float) -> None:
    sampler = Ancestral(steps=4, eta=eta, grid=UniformGrid(end=1e-3))
    graphed = GraphedSampler(sampler)
    told: list[tuple[int, int]] = []
    for seed in (1, 2):  # the second is a replay with other numbers
        y = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed))
        expected = sampler(denoiser, y, y, SampleNoise([seed, 5, 9]))
        found = graphed(denoiser, y, y, SampleNoise([seed, 5, 9]), lambda done, steps: told.append((done, steps)))
        assert torch.equal(found, expected)
    assert len(recorded) == 1
    assert told == 2 * [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_loops_beyond_the_limit_run_plainly(denoiser: Denoiser, recorded: list[list[torch.Size]]) -> None:
    sampler = Ancestral(steps=2, eta=0.0, grid=UniformGrid(end=1e-3))
    graphed = GraphedSampler(sampler, limit=1)
    one, two = torch.ones(1, 2), torch.ones(2, 2)
    graphed(denoiser, one, one)
    with pytest.warns(UserWarning, match="more than 1 shapes"):
        assert torch.equal(graphed(denoiser, two, two), sampler(denoiser, two, two))
    assert len(recorded) == 1


def test_a_sample_that_is_not_finite_is_told(denoiser: Denoiser, recorded: list[list[torch.Size]]) -> None:
    graphed = GraphedSampler(Ancestral(steps=2, eta=0.0, grid=UniformGrid(end=1e-3)))
    y = torch.ones(1, 2)
    graphed(denoiser, y, y)
    with pytest.raises(SamplingError, match="Ancestral is not finite; run the sampler without"):
        graphed(denoiser, y, torch.full_like(y, torch.inf))


def test_what_is_differentiated_is_not_replayed(recorded: list[list[torch.Size]]) -> None:
    """A replay has no gradient, and guidance through it would be wrong without a word."""
    call = GraphedCall(lambda x, y: x**2 * y)
    x, y = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    call(x, y)
    state = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(call(state, y).sum(), state)
    assert torch.equal(gradient, 2 * x * y)
    assert len(recorded) == 1
    with torch.no_grad():
        assert torch.equal(call(state, y), x**2 * y)
