"""Fast copies of a denoiser compute what the original computes. What needs a GPU is in benchmarks/gpu_checks.py."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ornstein.acceleration import Acceleration, GraphedSampler, accelerate, evaluate_together
from ornstein.acceleration.denoiser import Precision
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.noise import SampleNoise
from ornstein.parameterization import X0, OneShot, Score
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.ouve import OUVE
from ornstein.process.prediction import Prediction
from ornstein.regeneration import StochasticRegeneration
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.ode import ProbabilityFlowODE
from ornstein.samplers.time_grids import UniformGrid


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 1, 1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor, tilt: Tensor | None = None) -> Tensor:
        self.calls += 1
        out = self.layers(torch.cat([x, y, t[:, None, None, None].expand_as(x)], dim=1))
        return out if tilt is None else out + tilt[:, None, None, None]


class Plain(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 2 * x


@pytest.fixture
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(Network(), SchroedingerBridge(), X0()).eval()


@pytest.fixture
def signals() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 1, 8, 8, generator=generator), torch.randn(3, 1, 8, 8, generator=generator)


def test_the_original_is_left_alone(denoiser: Denoiser, signals: tuple[Tensor, Tensor]) -> None:
    before = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    fast = accelerate(denoiser, Acceleration("bfloat16"))
    assert fast.process is denoiser.process
    assert all(torch.equal(tensor, before[name]) for name, tensor in denoiser.state_dict().items())
    assert all(tensor.dtype == torch.float32 for tensor in denoiser.state_dict().values())
    assert not any(p.requires_grad for p in fast.parameters())
    assert all(p.requires_grad for p in denoiser.parameters())


@pytest.mark.parametrize(
    ("how", "tolerance"),
    [
        (Acceleration(channels_last=False), 0),
        (Acceleration(), 1e-5),
        (Acceleration(graphs=2, batches=(4,)), 1e-5),
        (Acceleration("bfloat16"), 0.03),
        (Acceleration("float16"), 0.004),
    ],
)
def test_results_agree(denoiser: Denoiser, signals: tuple[Tensor, Tensor], how: Acceleration, tolerance: float) -> None:
    x, y = signals
    with torch.no_grad():
        expected, found = denoiser(x, 0.5, y).x0, accelerate(denoiser, how)(x, 0.5, y).x0
    assert found.dtype == torch.float32
    assert float((found - expected).norm() / expected.norm()) <= tolerance


def test_normalisation_keeps_float32_weights(denoiser: Denoiser) -> None:
    types = {name: tensor.dtype for name, tensor in accelerate(denoiser, Acceleration("float16")).state_dict().items()}
    assert {dtype for name, dtype in types.items() if ".1." in name} == {torch.float32}
    assert {dtype for name, dtype in types.items() if ".0." in name or ".3." in name} == {torch.float16}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_both_networks_of_a_regeneration_are_fast(precision: Precision, signals: tuple[Tensor, Tensor]) -> None:
    class Predictor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.layer(x)

    torch.manual_seed(0)
    predictor = Denoiser(Predictor(), Prediction(), OneShot())
    network = Network()
    network.layers[0] = nn.Conv2d(4, 8, 3, padding=1)
    denoiser = StochasticRegeneration(network, OUVE(), Score(-1.0), predictor).eval()
    fast = accelerate(denoiser, Acceleration(precision))
    (x, y), results = signals, []
    with torch.no_grad():
        for model in (denoiser, fast):
            observation, condition = model.observe(y)
            results.append(torch.cat([observation, model(x, 0.5, observation, **condition).score]))
    assert isinstance(fast, StochasticRegeneration)
    assert float((results[1] - results[0]).norm() / results[0].norm()) < (1e-5 if precision == "float32" else 0.03)
    convolutions = [m.weight.dtype for m in fast.modules() if isinstance(m, nn.Conv2d)]
    assert set(convolutions) == {getattr(torch, precision)}
    assert all(p.dtype == torch.float32 for p in denoiser.parameters())


@pytest.mark.parametrize("settings", [{"precision": "int4"}, {"graphs": -1}, {"batches": (0, 2)}])
def test_impossible_settings(settings: dict[str, object]) -> None:
    with pytest.raises(UserError):
        Acceleration(**settings)  # type: ignore[arg-type]


def test_samplers_run_on_the_fast_copy(denoiser: Denoiser, signals: tuple[Tensor, Tensor]) -> None:
    _, y = signals
    sampler = Ancestral(steps=4, grid=UniformGrid(end=1e-3))
    start = denoiser.process.start(torch.zeros_like(y), y)

    def noise() -> SampleNoise:
        return SampleNoise([1, 2, 3])

    expected = sampler(denoiser, start, y, noise())
    fast = accelerate(denoiser, Acceleration(channels_last=False, graphs=1))
    assert torch.equal(sampler(fast, start, y, noise()), expected)


def test_a_loop_of_unknown_length_is_refused(denoiser: Denoiser, signals: tuple[Tensor, Tensor]) -> None:
    x, y = signals
    with pytest.raises(ValueError, match="chooses its steps"):
        GraphedSampler(ProbabilityFlowODE())(Denoiser(denoiser.network, OUVE(), X0()), x, y)


def test_branches_share_one_call(denoiser: Denoiser, signals: tuple[Tensor, Tensor]) -> None:
    x, y = signals
    network = denoiser.network
    assert isinstance(network, Network)
    tilts = [torch.full((3,), value) for value in (0.0, 0.5)]
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    with torch.no_grad():
        singles = [denoiser(x, t, y, tilt=tilt) for tilt in tilts]
        before = network.calls
        together = evaluate_together(denoiser, x, t, [{"tilt": tilt} for tilt in tilts], y)
        assert network.calls == before + 1
        for single, part in zip(singles, together, strict=True):
            torch.testing.assert_close(part.x0, single.x0)
            torch.testing.assert_close(part.noise, single.noise)
        observations = evaluate_together(denoiser, x, 0.5, [{"y": y}, {"y": torch.zeros_like(y)}])
        torch.testing.assert_close(observations[1].x0, denoiser(x, 0.5, torch.zeros_like(y)).x0)
        assert observations[0].y is not None


@pytest.mark.parametrize("conditions", [[], [{"tilt": torch.zeros(3)}, {}]])
def test_branches_need_the_same_names(
    denoiser: Denoiser, signals: tuple[Tensor, Tensor], conditions: list[dict[str, Tensor]]
) -> None:
    x, y = signals
    with pytest.raises(ValueError, match="same names"):
        evaluate_together(denoiser, x, 0.5, conditions, y)


def test_every_shape_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[int] = []

    def counting(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(1)
        return graph.forward

    compile = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compile(self, backend=counting, **options))
    torch.compiler.reset()
    fast = accelerate(Denoiser(Plain(), SchroedingerBridge(), X0()), Acceleration(compile=True))
    with torch.no_grad():
        for side in range(4, 16):
            fast.network(torch.ones(1, 1, side), torch.ones(1))
    assert len(graphs) == 12


def test_what_is_usual() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert Acceleration.usual(gpu, "auto", False, 4, (1, 2)) == Acceleration("bfloat16", graphs=4, batches=(1, 2))
    assert Acceleration.usual(cpu, "auto", False, 4, (1, 2)) == Acceleration(channels_last=False)
    assert Acceleration.usual(cpu, "bfloat16", True, 4) == Acceleration("bfloat16", compile=True)
