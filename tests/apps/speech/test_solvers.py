import math
from pathlib import Path
from typing import get_args

import pytest
import torch

from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser, exact_flow
from ornstein.errors import UserError
from ornstein.process.affine import Process
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.ouve import OUVE
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler
from ornstein.samplers.compat_bridge import PublishedBridge
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.ode import ProbabilityFlowODE
from ornstein.samplers.ode_solvers import Heun
from ornstein.samplers.predictor_corrector import PredictorCorrector
from ornstein.samplers.time_grids import KarrasGrid, LogSNRGrid, PowerGrid, TimeGrid, UniformGrid, UserGrid
from ornstein_speech.solvers import T_EPS, SamplerName, choose, starts_from_noise
from ornstein_speech.systems import System, combine

BRIDGE, SCORE = Ancestral(steps=4, grid=UniformGrid(end=1e-4), eta=0.0), PredictorCorrector(steps=30)
STORED = [(SchroedingerBridge(), BRIDGE), (OUVE(), SCORE)]

# Three kinds of coefficients, as in compressed speech: most are small, few are loud.
MIXTURE = GaussianMixture(
    torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64),
    torch.tensor([[0.1, 0.05], [-0.1, 0.2], [0.4, -0.3]], dtype=torch.float64),
    torch.stack([std**2 * torch.eye(2, dtype=torch.float64) for std in (0.02, 0.1, 0.4)]),
)


def error(process: Process, sampler: Sampler) -> float:
    """Relative distance of the sampler's results from those of the exact flow, from the same start points."""
    generator = torch.Generator().manual_seed(0)
    x0 = MIXTURE.sample(200, generator)
    z, e = torch.randn(2, 200, 2, generator=generator, dtype=torch.float64)
    y = x0 + 0.15 * e
    if starts_from_noise(process):
        start = process.start(z, y)
        a, b, s, _ = process.coefficients(torch.tensor(process.T, dtype=torch.float64))
        w, kappa = (start - b * y) / s, float(a / s)
    else:
        start, w, kappa = y, torch.zeros_like(y), 0.0
    exact = exact_flow(MIXTURE, w, kappa, float(process.kappa(1e-4)), tolerance=1e-7)
    exact = exact * float(1 / process.kappa(1e-4))
    found = sampler(MixtureDenoiser(MIXTURE, process), start, y=y)
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize(("process", "stored"), STORED, ids=["bridge", "OUVE"])
@pytest.mark.parametrize("name", ["2m", "heun"])
@pytest.mark.parametrize("steps", [5, 10])
def test_second_order_solvers_get_a_grid_that_serves(process: Process, stored: Sampler, name: str, steps: int) -> None:
    own = error(process, choose(stored, process, name, steps, None))
    others: list[TimeGrid] = [UniformGrid(), PowerGrid(power=2.0)]
    if starts_from_noise(process):
        others += [LogSNRGrid(end=T_EPS, to_zero=True), KarrasGrid(float(1 / process.kappa(T_EPS)), 1e9)]
    kind = DPMSolverPP if name == "2m" else Heun
    assert own < 2 * min(error(process, kind(steps=steps, grid=grid)) for grid in others)
    assert own < 0.25


@pytest.mark.parametrize("name", ["2m", "heun"])
def test_the_grid_of_a_bridge_is_not_kept_by_second_order_solvers(name: str) -> None:
    """Its last step goes to 1e-4, over a factor of 10 and more in a/s: extrapolating over it is far off."""
    process = SchroedingerBridge()
    kind = DPMSolverPP if name == "2m" else Heun
    kept = error(process, kind(steps=5, grid=BRIDGE.grid))
    assert error(process, choose(BRIDGE, process, name, 5, None)) < kept / 3  # type: ignore[arg-type]


@pytest.mark.parametrize(("process", "stored"), STORED, ids=["bridge", "OUVE"])
def test_names(process: Process, stored: Sampler) -> None:
    noise = starts_from_noise(process)
    assert choose(stored, process, None, None, None) is stored
    sde = choose(stored, process, "sde", None, None)
    assert sde == Ancestral(steps=stored.steps, grid=stored.grid, eta=1.0)
    assert choose(stored, process, "ode", 2, None) == Ancestral(steps=2, grid=stored.grid, eta=0.0)
    assert choose(stored, process, "2m", None, None) == DPMSolverPP(stored.steps, UniformGrid(end=0.03, to_zero=True))
    assert choose(DPMSolverPP(7, order=3), process, "2m", None, None).order == 2  # type: ignore[attr-defined]
    assert choose(stored, process, "heun", 3, None).evaluations(process) == 5 - (1 if not noise else 0)
    if noise:
        assert choose(stored, process, "pc", None, None) is stored
        assert choose(None, process, "pc", 3, None) == PredictorCorrector(steps=3)
        with pytest.raises(UserError, match="published"):
            choose(stored, process, "published", None, None)
    else:
        assert choose(stored, process, "published", None, None) == PublishedBridge(steps=stored.steps)
        with pytest.raises(UserError, match=r"--sampler sde, ode, 2m, heun or published$"):
            choose(stored, process, "pc", None, None)
        with pytest.raises(UserError, match="logsnr"):
            choose(stored, process, "2m", None, "logsnr")


@pytest.mark.parametrize("name", get_args(SamplerName))
def test_a_stored_sampler_of_that_name_keeps_its_settings(name: SamplerName) -> None:
    process: Process = OUVE() if name == "pc" else SchroedingerBridge()
    first = choose(None, process, name, 7, None)
    assert choose(first, process, name, None, None) == first


def test_grids() -> None:
    process = OUVE()
    for grid, steps in (("uniform", 4), ("logsnr", 4), ("karras", 4), ("power", 4)):
        sampler = choose(SCORE, process, "2m", steps, grid)  # type: ignore[arg-type]
        times = sampler.grid(process, steps)
        assert float(times[0]) == pytest.approx(1)
        assert times[-1] == 0
        if grid != "power":
            assert float(times[-2]) == pytest.approx(T_EPS)
        assert bool((times.diff() < 0).all())


def test_steps_that_cannot_be() -> None:
    with pytest.raises(UserError, match="at least 1"):
        choose(BRIDGE, SchroedingerBridge(), None, 0, None)
    fixed = Ancestral(steps=1, grid=UserGrid((1.0, 0.0)))
    with pytest.raises(UserError, match="fixes the times"):
        choose(fixed, SchroedingerBridge(), None, 2, None)
    assert choose(fixed, SchroedingerBridge(), None, 2, "uniform").steps == 2


def test_a_sampler_that_adapts_has_no_number_of_steps() -> None:
    """It would stop at 5 times on its way and be slower for it; another sampler does not take over its one step."""
    process, adaptive = OUVE(), ProbabilityFlowODE()
    assert choose(adaptive, process, None, None, None) is adaptive
    with pytest.raises(UserError, match=r"--steps 5 has no effect .* --sampler pc, .* with --steps 5$"):
        choose(adaptive, process, None, 5, None)
    with pytest.raises(UserError, match=r"the grid karras has no effect"):
        choose(adaptive, process, None, None, "karras")
    for name in ("sde", "ode", "2m", "heun", "pc"):
        assert choose(adaptive, process, name, None, None).steps == PredictorCorrector().steps  # type: ignore[arg-type]
        chosen = choose(adaptive, process, name, 5, None)  # type: ignore[arg-type]
        assert chosen.steps == 5
        assert float(chosen.times(process)[-1]) == 0


@pytest.mark.parametrize("name", ["sde", "ode", "2m", "heun", "published"])
def test_the_samplers_named_for_a_bridge_run_on_it(name: SamplerName) -> None:
    process = SchroedingerBridge()
    sampler = choose(BRIDGE, process, name, None, None)
    y = torch.full((2, 2), 0.1, dtype=torch.float64)
    assert sampler(MixtureDenoiser(MIXTURE, process), y, y, torch.randn_like).isfinite().all()


def test_systems_are_read() -> None:
    assert System.parse("") == System()
    assert System.parse("a/b.safetensors:2m:5") == System(Path("a/b.safetensors"), "2m", 5)
    assert System.parse("shipped:pc:30") == System.parse(":pc:30") == System(None, "pc", 30)
    assert System.parse(":::karras") == System(grid="karras")
    assert System.parse("a/b.safetensors").model == "b"
    for wrong, expected in (
        (":3m:5", "sampler"),
        (":2m:x", "steps"),
        (":2m:5:round", "grid"),
        ("a:2m:5:power:1", "four"),
    ):
        with pytest.raises(UserError, match=expected):
            System.parse(wrong)
    assert combine(None, None, None) == [System()]
    assert combine([Path("a"), Path("b")], "2m", [1, 2])[2] == System(Path("b"), "2m", 1)
    assert math.prod(len(part) for part in ("ab", "x", "12")) == len(combine([Path("a"), Path("b")], "2m", [1, 2]))
