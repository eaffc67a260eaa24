"""What a sampler declares of itself holds: its order, whether it draws noise, whether gradients pass."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks.solver_table import LAW, SOLVERS, order_inside
from torch import Tensor

from ornstein.analysis.examples import MIXTURE, PROCESSES, Y
from ornstein.analysis.mixture import MixtureDenoiser, exact_flow
from ornstein.analysis.solvers import measured_order
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.guidance.classifier_free import ClassifierFreeGuidance
from ornstein.guidance.linear_adaptive import record_guidance
from ornstein.inverse_problems.base import CorrectedDDIM, PosteriorSampler
from ornstein.inverse_problems.ddrm import DDRM
from ornstein.inverse_problems.dps import DPS
from ornstein.inverse_problems.operators import Mask
from ornstein.inverse_problems.pigdm import PiGDM
from ornstein.inverse_problems.red_diff import REDDiff
from ornstein.inversion.backpropagation import sample_with_gradient
from ornstein.inversion.golden_noise import GoldenNoise
from ornstein.inversion.noise_optimization import NoiseOptimization
from ornstein.noise import SampleNoise
from ornstein.objectives.distillation import OneStepDistillation
from ornstein.parameterization import X0
from ornstein.samplers.adams import DEIS, LMS, AdamsBashforth, ExponentialAdams
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler
from ornstein.samplers.churn import ChurnedHeun
from ornstein.samplers.compat_bridge import PublishedBridge
from ornstein.samplers.compat_evodiff import PublishedEVODiff
from ornstein.samplers.compat_residual import PublishedResidual, PublishedResidualFirst
from ornstein.samplers.compat_uniform_steps import PublishedUniformSteps
from ornstein.samplers.consistency import Consistency
from ornstein.samplers.dpm_multistep import DPMSolver, DPMSolverPP
from ornstein.samplers.dpm_singlestep import DPMSolver2, DPMSolverPP2S, DPMSolverPP3S, DPMSolverPPSDE
from ornstein.samplers.evodiff import EVODiff
from ornstein.samplers.flow_matching import VelocityFlow
from ornstein.samplers.lml import LML, DDIMBase
from ornstein.samplers.momentum import GHVB, HeavyBall
from ornstein.samplers.ode import ProbabilityFlowODE
from ornstein.samplers.ode_solvers import Euler, Heun
from ornstein.samplers.pndm import PLMS
from ornstein.samplers.predictor_corrector import PredictorCorrector
from ornstein.samplers.time_grids import UniformGrid
from ornstein.samplers.unipc import UniPC
from tests.core.test_brownian import strong_errors

F64 = torch.float64
PAGE = Path(__file__).parents[3] / "docs" / "samplers.md"
MEASURED = torch.zeros(3, 2, dtype=F64)
OPERATOR = Mask(torch.tensor([1.0, 0.0]))

DETERMINISTIC: list[Sampler] = [
    *(sampler for sampler, _, _ in SOLVERS.values()),
    Ancestral(eta=0.0),
    ChurnedHeun(churn=0.0),
    DPMSolverPPSDE(eta=0.0),
    DPMSolverPP(order=1),
    DPMSolver(order=3),
    UniPC(order=1, corrector=False),
    PLMS(order=1),
    AdamsBashforth(order=1),
    LMS(order=1),
    DEIS(order=1),
    ExponentialAdams(order=2),
    GHVB(order=0.7),
    HeavyBall(beta=1.0),
    LML(base=DPMSolverPP(), memory=0.0),
    DDIMBase(),
    PublishedEVODiff(),
    PredictorCorrector(corrector=None, noise_scale=0.0),
    PredictorCorrector(corrector_steps=0, noise_scale=0.0),
    PublishedUniformSteps(corrector=None, noise_scale=0.0),
]
STOCHASTIC: list[Sampler] = [
    *(sampler for sampler, _ in LAW.values() if sampler is not None and sampler.stochastic),
    HeavyBall(base=DPMSolverPP(eta=0.5)),
    LML(base=DPMSolverPP(eta=0.5)),
    PredictorCorrector(noise_scale=0.0),
    PublishedUniformSteps(),
]
POSTERIOR: list[Sampler] = [
    DPS(operator=OPERATOR, measurement=MEASURED),
    DPS(operator=OPERATOR, measurement=MEASURED, eta=0.5),
    PiGDM(operator=OPERATOR, measurement=MEASURED),
    PiGDM(operator=OPERATOR, measurement=MEASURED, eta=1.0),
    DDRM(operator=OPERATOR, measurement=MEASURED),
    REDDiff(operator=OPERATOR, measurement=MEASURED),
]
ON_OTHERS: list[tuple[str, Sampler]] = [
    ("bridge", PublishedBridge()),
    ("bridge", PublishedBridge(mode="ode")),
    ("bridge", Euler(random_start=True)),
    ("RDDM", PublishedResidual()),
    ("RDDM", PublishedResidual(eta=0.5)),
    ("RDDM", PublishedResidualFirst()),
]
EVERY = [("VP", sampler) for sampler in (*DETERMINISTIC, *STOCHASTIC, *POSTERIOR, ProbabilityFlowODE())] + ON_OTHERS
OPTIONS = ("order", "eta", "base", "variant", "corrector", "nesterov", "beta", "method", "mode", "memory", "churn")


def named(value: object) -> str | None:
    """An id: the class and the options that tell it from others."""
    if not isinstance(value, Sampler):
        return None
    options = (f"{name}={getattr(value, name)}" for name in OPTIONS if hasattr(value, name))
    return f"{type(value).__name__}({', '.join(options)})"[:90]


def test_every_sampler_is_among_them() -> None:
    def below(kind: type) -> set[type]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    ours = {kind for kind in below(Sampler) if kind.__module__.startswith("ornstein.")}
    abstract = {kind for kind in ours if kind.__abstractmethods__} | {PosteriorSampler, CorrectedDDIM}  # type: ignore[attr-defined]
    assert ours - abstract == {type(sampler) for _, sampler in EVERY}


# -- order -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=named)
def test_order_of_a_run_without_noise(sampler: Sampler) -> None:
    measured = order_inside(sampler, PROCESSES["VP"])
    assert not sampler.stochastic
    if sampler.convergence_order is None:
        assert measured < 0.5
    else:
        assert measured == pytest.approx(sampler.convergence_order, abs=0.3)


ON_A_PATH: list[Sampler] = [
    Ancestral(),
    Ancestral(eta=0.5),
    DPMSolverPP(eta=0.5),
    DPMSolverPP(eta=1.0),
    DPMSolverPP(order=3, eta=1.0),
    DPMSolverPP2S(eta=1.0),
    HeavyBall(base=DPMSolverPP(eta=0.5)),
    LML(base=DPMSolverPP(eta=0.5)),
    PredictorCorrector(corrector=None),
    PredictorCorrector(corrector=None, noise_scale=0.5),
]


@pytest.mark.parametrize("sampler", ON_A_PATH, ids=named)
def test_order_on_a_path_of_noise(sampler: Sampler) -> None:
    steps = (16, 64)
    errors = strong_errors("VP", sampler, steps, one_path=True)
    assert measured_order(errors, steps) == pytest.approx(sampler.convergence_order, abs=0.3)


def test_what_has_no_measured_order_claims_none() -> None:
    assert {sampler for sampler in STOCHASTIC if sampler.convergence_order is not None} <= set(ON_A_PATH)


def upto(kind: Callable[..., Sampler], last: int) -> list[Sampler]:
    return [kind(order=k) for k in range(1, last + 1)]


ORDERS: dict[str, tuple[str, list[Sampler]]] = {
    "`Ancestral`": ("{}", [Ancestral()]),
    "`Euler`": ("{}", [Euler()]),
    "`Heun`": ("{}", [Heun()]),
    "`ChurnedHeun`": ("{}; without churn {}", [ChurnedHeun(), ChurnedHeun(churn=0.0)]),
    "`DPMSolver`": ("{}, {}, {}", upto(DPMSolver, 3)),
    "`DPMSolver2`": ("{}", [DPMSolver2()]),
    "`DPMSolverPP`": ("{}, {}, {}; with eta {}", [*upto(DPMSolverPP, 3), DPMSolverPP(eta=1.0)]),
    "`DPMSolverPP2S`, `DPMSolverPP3S`": (
        "{}, {}; with eta {}",
        [DPMSolverPP2S(), DPMSolverPP3S(), DPMSolverPP2S(eta=1.0)],
    ),
    "`DPMSolverPPSDE`": ("{}; with eta 0 {}", [DPMSolverPPSDE(), DPMSolverPPSDE(eta=0.0)]),
    "`UniPC`": ("{}, {}, {}", upto(UniPC, 3)),
    "`PLMS`": ("{} (measured)", [PLMS()]),
    "`LMS`": ("{}, {}, {}, {}, {}", upto(LMS, 5)),
    "`DEIS`": ("{}, {}, {}, {}, {}", upto(DEIS, 5)),
    "`AdamsBashforth`": ("{}, {}, {}, {}, {}", upto(AdamsBashforth, 5)),
    "`ExponentialAdams`": ("{}, {}, {}, {}, {}", upto(ExponentialAdams, 5)),
    "`HeavyBall`": ("{}", [HeavyBall()]),
    "`GHVB`": ("{} up to q = 1, then {}", [GHVB(order=1.0), GHVB(order=1.5)]),
    "`EVODiff`": ("{}", [EVODiff()]),
    "`LML`": (
        "{}; {} as published (`relative=False`), {} on `DDIMBase` with memory",
        [LML(), LML(relative=False), LML(base=DDIMBase())],
    ),
    "`VelocityFlow`": ("{}, {}, {}", [VelocityFlow(method=name) for name in ("euler", "heun", "midpoint")]),
    "`Consistency`": ("{}", [Consistency()]),
    "`PredictorCorrector`": ("{}; without corrector {}", [PredictorCorrector(), PredictorCorrector(corrector=None)]),
    "`ProbabilityFlowODE`": ("{} (5 of its own steps)", [ProbabilityFlowODE()]),
}
"""For every class in the first table of the page, the cell of its order with what the samplers declare left out."""


def test_the_first_table_of_the_page_has_the_declared_orders() -> None:
    head = "| solver | class | order of a run |"
    rows = PAGE.read_text().partition(head)[2].partition("\n\n")[0].splitlines()[2:]
    cells = {kind: order for _, _, kind, order, *_ in (map(str.strip, row.split("|")) for row in rows)}
    assert cells == {
        kind: cell.format(*(sampler.convergence_order or "none" for sampler in samplers))
        for kind, (cell, samplers) in ORDERS.items()
    }


@pytest.mark.parametrize(
    ("name", "sampler"), [("bridge", PublishedBridge(mode="ode")), ("RDDM", PublishedResidual())], ids=named
)
def test_order_of_published_samplers(name: str, sampler: Sampler) -> None:
    process = PROCESSES[name]
    if name == "RDDM":
        assert order_inside(sampler, process) == pytest.approx(sampler.convergence_order, abs=0.1)
        return
    y, end, errors = Y.expand(8, 2), float(process.time_at_kappa(4.0)), []
    exact = exact_flow(MIXTURE, torch.zeros(8, 2, dtype=F64), 0.0, 4.0)  # from w = 0, that is x = y
    last = process.coefficients(torch.tensor(end, dtype=F64))
    for n in (64, 128):
        x = replace(sampler, steps=n, grid=UniformGrid(end=end))(MixtureDenoiser(MIXTURE, process), y, y)
        errors.append(float(((x - last.b * y) / last.s - exact).norm()))
    assert measured_order(errors, (64, 128)) == pytest.approx(sampler.convergence_order, abs=0.2)


# -- noise -----------------------------------------------------------------------------------------------------------


def run(sampler: Sampler, name: str, noise: Callable[[Tensor], Tensor] | None) -> Tensor:
    """From T, on a grid to 0 or to where the rates are finite."""
    process, y = PROCESSES[name], Y.expand(3, 2)
    end = 0.05 if isinstance(sampler, ProbabilityFlowODE) else 0.0
    if not isinstance(sampler, (PredictorCorrector, PublishedResidual, PublishedResidualFirst)):
        sampler = replace(sampler, steps=4, grid=UniformGrid(end=end * process.T))
    start = y if name == "bridge" else process.start(SampleNoise(range(3))(y), y)
    return sampler(MixtureDenoiser(MIXTURE, process), start, y, noise)


@pytest.mark.parametrize(("name", "sampler"), EVERY, ids=named)
def test_noise_is_drawn_where_it_is_declared(name: str, sampler: Sampler) -> None:
    draws = 0

    def counted(like: Tensor) -> Tensor:
        nonlocal draws
        draws += 1
        return torch.ones_like(like)

    run(sampler, name, counted)
    assert (draws > 0) == sampler.stochastic
    if not sampler.stochastic:
        run(sampler, name, None)


# -- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "sampler"), EVERY, ids=named)
def test_gradients_pass_where_it_is_declared(name: str, sampler: Sampler) -> None:
    """The gradient in the start is the slope of the end, or it is refused."""
    process = PROCESSES[name]
    denoiser, y = MixtureDenoiser(MIXTURE, process), Y.expand(3, 2)
    step = 1e-6
    if not isinstance(sampler, (PublishedResidual, PublishedResidualFirst)):
        sampler = replace(sampler, steps=4, grid=UniformGrid(start=0.8 * process.T, end=0.1 * process.T))
    x, v = (torch.randn(3, 2, dtype=F64, generator=torch.Generator().manual_seed(i)) for i in (0, 1))

    def end(x: Tensor) -> Tensor:
        return sample_with_gradient(sampler, denoiser, x, y, SampleNoise(range(3))).square().sum()

    if not sampler.differentiable:
        with pytest.raises(UserError, match=f"lets gradients through, which {type(sampler).__name__} does not"):
            end(x)
        return
    start = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(end(start), start)
    slope = (end(x + step * v) - end(x - step * v)) / (2 * step)
    torch.testing.assert_close((gradient * v).sum(), slope, rtol=1e-5, atol=1e-5)


def test_why_an_adaptive_flow_declares_no_gradient() -> None:
    """Autograd differs from the slope by far more than the tolerance, 1e-7 here."""
    process = PROCESSES["VP"]
    sampler = ProbabilityFlowODE(4, UniformGrid(start=0.8, end=0.1), rtol=1e-7, atol=1e-7, final_step=False)
    x, v = (torch.randn(3, 2, dtype=F64, generator=torch.Generator().manual_seed(i)) for i in (0, 1))

    def end(x: Tensor) -> Tensor:
        *_, last = sampler.trajectory(MixtureDenoiser(MIXTURE, process), x)
        return last.square().sum()

    start = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(end(start), start)
    slopes = [(end(x + step * v) - end(x - step * v)) / (2 * step) for step in (1e-2, 1e-3)]
    assert float(slopes[0]) == pytest.approx(float(slopes[1]), rel=1e-4)
    assert abs((gradient * v).sum() / slopes[1] - 1) > 2e-3


# -- what is refused -------------------------------------------------------------------------------------------------


def teacher() -> Denoiser:
    return Denoiser(torch.nn.Identity(), PROCESSES["VP"], X0())


@pytest.mark.parametrize(
    "method",
    [GoldenNoise, lambda sampler: OneStepDistillation(teacher(), sampler)],
    ids=["golden noise", "distillation"],
)
@pytest.mark.parametrize("sampler", [Ancestral(), DPMSolverPP(eta=1.0), Consistency(), PredictorCorrector()], ids=named)
def test_what_needs_no_noise_refuses_noise(method: Callable[[Sampler], object], sampler: Sampler) -> None:
    with pytest.raises(UserError, match=f"deterministic sampler, and {type(sampler).__name__} draws noise with these"):
        method(sampler)


@pytest.mark.parametrize(
    ("sampler", "found"),
    [(Heun(4), "makes 7 in 4 steps"), (PLMS(4), "makes 5 in 4 steps"), (ProbabilityFlowODE(), "chooses its calls")],
)
def test_one_call_a_step(sampler: Sampler, found: str) -> None:
    denoiser, x = MixtureDenoiser(MIXTURE, PROCESSES["VP"]), torch.zeros(2, 2, dtype=F64)
    with pytest.raises(UserError, match=f"golden noise needs a sampler of one call a step, and .* {found}"):
        GoldenNoise(sampler).improve(denoiser, denoiser, x)
    with pytest.raises(UserError, match=f"linear adaptive guidance needs a sampler of one call a step, and .* {found}"):
        record_guidance(ClassifierFreeGuidance(denoiser, 2.0, {"label": torch.tensor(-1)}), sampler, x)


def test_optimised_noise_needs_gradients() -> None:
    with pytest.raises(UserError, match="noise optimisation needs a sampler that lets gradients through, which DPS"):
        NoiseOptimization(DPS(operator=OPERATOR, measurement=MEASURED))
