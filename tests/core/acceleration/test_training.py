"""What is replayed and what is called as it is; recordings themselves need a GPU: benchmarks/gpu_checks.py."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ornstein.acceleration import training
from ornstein.acceleration.training import LIMIT, GraphedTraining


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        total = self.weight * x + t.view(-1, 1)
        return total + (0 if y is None else y) * (1 if mask is None else mask)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Size, ...]]:
    """The shapes of what is replayed; recording is replaced by calling."""
    replays: list[tuple[torch.Size, ...]] = []

    def make(called: Callable[..., Tensor], buffers: tuple[Tensor, ...], **_: Any) -> Callable[..., Tensor]:
        shapes = tuple(buffer.shape for buffer in buffers)

        def replay(*tensors: Tensor) -> Tensor:
            assert tuple(tensor.shape for tensor in tensors) == shapes
            replays.append(shapes)
            return called(*tensors)

        return replay

    monkeypatch.setattr(training, "_on_gpu", lambda tensor: True)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make)
    return replays


def test_arguments_arrive_where_they_belong(recorded: list[Any]) -> None:
    x, t, y, mask = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0)).unbind()
    t = t[:, 0]
    calls: list[Callable[[nn.Module], Tensor]] = [
        lambda network: network(x, t),
        lambda network: network(x, t, y),
        lambda network: network(x, t, None, mask=mask),
        lambda network: network(x, t, mask=mask, y=y),
    ]
    for call in calls:
        plain, network = Network(), Network()
        graphs = GraphedTraining(network, compile=False)
        graphs.begin_step()
        found, expected = call(network), call(plain)
        assert torch.equal(found, expected)
        found.sum().backward()
        expected.sum().backward()
        assert torch.equal(network.weight.grad, plain.weight.grad)  # type: ignore[arg-type]
    assert len(recorded) == len(calls)


def test_only_the_first_call_of_a_step_is_replayed(recorded: list[Any]) -> None:
    network = Network()
    graphs = GraphedTraining(network, compile=False)
    x, t = torch.ones(2, 3), torch.zeros(2)
    for _ in range(3):
        graphs.begin_step()
        for _ in range(2):
            network(x, t)
    assert len(recorded) == 3


def test_what_is_never_replayed(recorded: list[Any]) -> None:
    network = Network()
    graphs = GraphedTraining(network, compile=False)
    x, t = torch.ones(2, 3), torch.zeros(2)
    graphs.begin_step()
    with torch.no_grad():
        network(x, t)
    network.eval()
    network(x, t)
    network.train()
    network(x.clone().requires_grad_(), t)
    assert not recorded
    network(x, t)
    assert len(recorded) == 1


def test_further_shapes_are_called_as_they_are(recorded: list[Any]) -> None:
    network = Network()
    graphs = GraphedTraining(network, compile=False)
    for width in [*range(1, LIMIT + 3), 1]:
        graphs.begin_step()
        assert torch.equal(network(torch.ones(2, width), torch.zeros(2)), torch.full((2, width), 2.0))
    assert [shapes[0][1] for shapes in recorded] == [*range(1, LIMIT + 1), 1]


def test_removed(recorded: list[Any]) -> None:
    network = Network()
    GraphedTraining(network, compile=False).remove()
    network(torch.ones(2, 3), torch.zeros(2))
    assert not recorded
    assert "forward" not in vars(network)
