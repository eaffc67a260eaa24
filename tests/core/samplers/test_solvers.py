"""Every solver on every process: one trajectory in w, orders, starts, stability, calls, seeds and errors."""

import math
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import pytest
import torch
from benchmarks.solver_table import INSIDE, SOLVERS, ghvb_interval, order_from_the_start, order_inside
from torch import Tensor

from ornstein.analysis.examples import BRIDGES, MIXTURE, PROCESSES, Y, exact_between, weights_of
from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser, exact_flow
from ornstein.analysis.solvers import (
    characteristic,
    final_w,
    flow_errors,
    measured_order,
    seeded_order,
    stability_interval,
    times_between,
)
from ornstein.errors import UserError
from ornstein.estimate import Estimate, estimate_from_noise, estimate_from_x0
from ornstein.noise import SampleNoise
from ornstein.process.affine import Process
from ornstein.process.edm import EDM
from ornstein.process.ve import VE
from ornstein.process.vp import VP
from ornstein.samplers.adams import DEIS, LMS, AdamsBashforth, ExponentialAdams
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler, SamplingError
from ornstein.samplers.churn import ChurnedHeun
from ornstein.samplers.compat_evodiff import PublishedEVODiff
from ornstein.samplers.consistency import Consistency
from ornstein.samplers.dpm_multistep import DPMSolver, DPMSolverPP
from ornstein.samplers.dpm_singlestep import DPMSolverPP2S, DPMSolverPP3S, DPMSolverPPSDE
from ornstein.samplers.evodiff import EVODiff
from ornstein.samplers.flow_matching import VelocityFlow
from ornstein.samplers.lml import LML, DDIMBase
from ornstein.samplers.momentum import GHVB, HeavyBall
from ornstein.samplers.ode_solvers import Euler, FlowSolver
from ornstein.samplers.pndm import ADAMS, PLMS
from ornstein.samplers.time_grids import KarrasGrid, UniformGrid, UserGrid
from ornstein.samplers.unipc import UniPC

IN_KAPPA = {name: solver for name, (solver, _, _) in SOLVERS.items() if isinstance(solver, FlowSolver)}
STOCHASTIC: dict[str, Sampler] = {
    "SDE 2M": DPMSolverPP(eta=1.0),
    "SDE 3M": DPMSolverPP(order=3, eta=0.7),
    "2S ancestral": DPMSolverPP2S(eta=1.0),
    "DPM++ SDE": DPMSolverPPSDE(),
    "churn": ChurnedHeun(churn=0.2),  # rho stays below T of every process
    "consistency": Consistency(),
}


def fixed_noise(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(1), dtype=like.dtype)


# -- one flow --------------------------------------------------------------------------------------------------------


def run_between(name: str, process: Process, mixture: GaussianMixture) -> Tensor:
    """w at kappa = 7.4 from eight draws at 0.6."""
    sampler = replace((IN_KAPPA | STOCHASTIC)[name], steps=8, grid=times_between(process, 0.6, 7.4, 8))
    times = sampler.times(process)
    first, last = process.coefficients(times[0]), process.coefficients(times[-1])
    w = exact_between(0.6, 8.0)[0][:8]
    y = Y.expand_as(w)
    result = sampler(MixtureDenoiser(mixture, process), first.s * w + first.b * y, y, fixed_noise)
    return (result - last.b * y) / last.s


@lru_cache
def one_trajectory(name: str) -> Tensor:
    return run_between(name, PROCESSES["VP"], MIXTURE)


@pytest.mark.parametrize("process", [name for name, process in PROCESSES.items() if weights_of(process) is None])
@pytest.mark.parametrize("name", IN_KAPPA | STOCHASTIC)
def test_one_trajectory_for_all_processes(name: str, process: str) -> None:
    """The same kappa nodes and the same w_0 (and draws) give the same w."""
    result = run_between(name, PROCESSES[process], MIXTURE)
    torch.testing.assert_close(result, one_trajectory(name), rtol=1e-10, atol=1e-10)


WITH_A_SCALE = ("EVODiff", "consistency")
"""One weighs the values of x0 against each other, the other ends at a level of its own."""


@pytest.mark.parametrize("name", [name for name in IN_KAPPA | STOCHASTIC if name not in WITH_A_SCALE])
def test_a_map_of_noise_levels_is_the_flow_of_scaled_data(name: str) -> None:
    """s W in the place of s gives the w of x0/W."""
    process = PROCESSES["UPSR"]
    weights = weights_of(process)
    assert weights is not None
    scaled = GaussianMixture(MIXTURE.weights, MIXTURE.means / weights, MIXTURE.covariances / (weights.mT * weights))
    expected = run_between(name, PROCESSES["VP"], scaled)
    torch.testing.assert_close(run_between(name, process, MIXTURE), expected, rtol=1e-10, atol=1e-10)


# -- orders ----------------------------------------------------------------------------------------------------------

COLD = [name for name, (_, order, _) in SOLVERS.items() if not math.isnan(order)]


@pytest.mark.parametrize("process", ["VP", "UPSR", "interpolant"])
@pytest.mark.parametrize("name", COLD)
def test_order_from_a_cold_start(name: str, process: str) -> None:
    solver, order, _ = SOLVERS[name]
    at_least = min(order, 2)
    assert order_inside(solver, PROCESSES[process]) > at_least - 0.25


@pytest.mark.parametrize(
    ("solver", "order", "uniform"),
    [
        (DPMSolverPP(order=2), 2, "lambda"),
        (DPMSolverPP(order=3), 2, "lambda"),  # as published; its second difference has half the weight it needs
        (DPMSolver(order=3), 2, "lambda"),
        (ExponentialAdams(order=3), 3, "lambda"),
        (DEIS(order=3), 3, "lambda"),
        (UniPC(order=3), 2, "lambda"),  # its last step is of first order, as published
        (LMS(order=3), 3, "rho"),
        (LMS(order=4), 4, "rho"),
        (AdamsBashforth(order=3), 3, "kappa"),
        (AdamsBashforth(order=4), 4, "kappa"),
        (PLMS(order=3, corrected_start=False), 3, "rho"),
        (HeavyBall(base=PLMS(order=3, corrected_start=False), beta=0.8), 1, "rho"),
        (HeavyBall(base=PLMS(order=3, corrected_start=False), beta=0.8, nesterov=True), 1, "rho"),
        (GHVB(order=0.5), 1, "rho"),
        (GHVB(order=1.5), 2, "rho"),
    ],
    ids=repr,
)
def test_order_with_an_exact_history(solver: FlowSolver, order: int, uniform: str) -> None:
    w = exact_between(0.6, 2.0)[0][:6]
    steps = (48, 96)
    measured = seeded_order(MIXTURE, EDM(sigma_max=20.0), solver, w, (0.6, 2.0), steps, warm=4, uniform=uniform)
    assert abs(measured - order) < 0.35, measured


@pytest.mark.parametrize("name", ["rectified flow", "cosine VP", "RDDM", "bridge", "interpolant"])
def test_starts_at_singular_ends(name: str) -> None:
    """a = 0 or s = 0 at T: Adams-Bashforth in kappa keeps its order there, others take one step of first order."""
    process = PROCESSES[name]
    assert order_from_the_start(AdamsBashforth(order=2), process, (32, 64)) == pytest.approx(2, abs=0.4)
    assert order_from_the_start(Euler(), process, (32, 64)) == pytest.approx(1, abs=0.25)
    for solver in (GHVB(order=1.8), HeavyBall(base=PLMS(order=2, corrected_start=False)), UniPC(), DPMSolver()):
        measured = order_from_the_start(solver, process, (32, 64))
        assert isinstance(measured, float)
        assert measured > 0.7, (solver, measured)
    refused = order_from_the_start(VelocityFlow(), process, (4, 8))
    assert ("begin below T" in str(refused)) == (name in BRIDGES)


def test_many_steps_where_a_is_negative() -> None:
    """Adams-Bashforth in kappa keeps its order; the others are of first order as long as a < 0."""
    process = PROCESSES["Resfusion, a < 0"]
    assert process.kappa(process.T) < -0.5
    assert order_from_the_start(AdamsBashforth(order=2), process, (32, 64)) == pytest.approx(2, abs=0.2)
    for solver in (Euler(), GHVB(order=1.8), HeavyBall(base=PLMS(order=2, corrected_start=False)), UniPC()):
        assert order_from_the_start(solver, process) == pytest.approx(1, abs=0.3), solver


@pytest.mark.parametrize("name", ["rectified flow", "OUVE"])
@pytest.mark.parametrize("last", [8.0, 100.0])
def test_evodiff_has_no_floor(name: str, last: float) -> None:
    """On a grid uniform in t the error falls with every fourfold number of steps."""
    process = PROCESSES[name]
    first = max(0.1, float(process.kappa(process.T)))
    w, exact = exact_between(first, last)
    start, end = (float(process.time_at_kappa(k)) for k in (first, last))
    steps = (20, 80, 320, 1280)
    errors = [
        float((final_w(MIXTURE, process, EVODiff(n, UniformGrid(start, end)), w, Y.expand_as(w)) - exact).norm())
        for n in steps
    ]
    assert all(fine < coarse for coarse, fine in pairwise(errors)), errors
    assert errors[-1] < errors[0] / 20, errors


@pytest.mark.parametrize("name", ["DDPM", "RDDM"])
def test_evodiff_on_a_table_is_as_good_as_euler(name: str) -> None:
    """Steps alike in t are rounded to levels: unlike in log(s/a) by up to two, where the differences hold x0 itself."""
    process = PROCESSES[name]
    start, end = (float(process.time_at_kappa(k).round()) for k in (0.1, 100.0))
    w, exact = exact_between(*(float(process.kappa(t)) for t in (start, end)))
    for n in (50, 200, 450, 500):
        grid = UniformGrid(start, end)
        evodiff, euler = (
            float((final_w(MIXTURE, process, replace(solver, steps=n, grid=grid), w, Y.expand_as(w)) - exact).norm())
            for solver in (EVODiff(), Euler())
        )
        assert evodiff < 1.1 * euler, (n, evodiff, euler)


def test_evodiff_lets_gradients_through_after_a_run_in_inference_mode() -> None:
    """What a process remembers of the first run is used in the second one."""
    denoiser, x = MixtureDenoiser(MIXTURE, VP()), torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        EVODiff(4)(denoiser, torch.ones(2, 2, dtype=torch.float64))
    *_, end = EVODiff(4).trajectory(denoiser, x)
    (gradient,) = torch.autograd.grad(end.sum(), x)
    assert gradient.isfinite().all()


def test_evodiff_ends_in_a_long_last_step_as_well_as_euler() -> None:
    """A grid uniform in t goes over half of log(s/a) in its last step."""
    process = PROCESSES["VP"]
    first, last = 0.05, 30.0
    w, exact = exact_between(first, last)
    grid = UniformGrid(float(process.time_at_kappa(first)), float(process.time_at_kappa(last)))
    for n in (10, 20, 40):
        evodiff, euler = (
            float((final_w(MIXTURE, process, replace(solver, steps=n, grid=grid), w, None) - exact).norm())
            for solver in (EVODiff(), Euler())
        )
        assert evodiff < 1.5 * euler, (n, evodiff, euler)


def test_published_evodiff_where_it_was_made_for() -> None:
    """From sigma 80 to 0.002, its published last step included, its error against the exact flow falls as the steps
    shrink."""
    process = EDM()
    kappa = (1 / 80, 500.0)
    w, _ = exact_between(kappa[0], 1.0)
    exact = exact_flow(MIXTURE, w[:6], kappa[0], 60.0, tolerance=1e-9)  # to the eye the end: x0 is all but fixed there
    errors = [
        float(
            (
                final_w(MIXTURE, process, PublishedEVODiff(n, times_between(process, *kappa, n)), w[:6], None) / 500
                - exact / 60
            ).norm()
        )
        for n in (10, 20, 40)
    ]
    assert errors[0] > errors[1] > errors[2], errors


# -- stability -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AB1", 2.0), ("AB2", 1.0), ("AB3", 0.55), ("AB4", 0.30),
        ("GHVB 0.9", 2.44), ("GHVB 0.5", 6.0), ("GHVB 1.9", 1.10), ("GHVB 1.5", 1.50), ("GHVB 2.7", 0.69),
        ("GHVB 2.3", 0.87), ("GHVB 3.9", 0.33), ("GHVB 3.5", 0.43),
        ("HB 1.9", 1.22), ("HB 1.5", 3.0), ("HB 2.8", 0.82), ("HB 2.5", 1.63), ("HB 3.9", 0.37), ("HB 3.5", 0.90),
    ],
)  # fmt: skip
def test_stability_intervals(name: str, expected: float) -> None:
    kind, order = (name[:2], float(name[2:])) if name.startswith("AB") else name.split()  # type: ignore[assignment]
    order = float(order)
    beta = order - math.floor(order) or 1.0
    interval = (
        ghvb_interval(order)
        if kind == "GHVB"
        else stability_interval(characteristic(ADAMS[math.ceil(order) - 1], 1.0 if kind == "AB" else beta))
    )
    assert interval == pytest.approx(expected, abs=0.012)


class Linear:
    """noise = z u/a: the test equation dy/drho = z y with y = u/a."""

    def __init__(self, process: Process, z: float) -> None:
        self.process, self.z = process, z

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        return estimate_from_noise(self.process, x, torch.as_tensor(t), self.z * x)


@pytest.mark.parametrize(
    ("solver", "interval"),
    [
        (GHVB(order=1.8), 1.20),
        (GHVB(order=2.5), 0.78),
        (HeavyBall(base=PLMS(order=2, corrected_start=False), beta=0.5), 3.0),
        (PLMS(corrected_start=False), 0.30),
    ],
    ids=repr,
)
def test_solvers_blow_up_beyond_their_interval(solver: FlowSolver, interval: float) -> None:
    """dy/drho = z y with steps of -1 in rho, so z > 0 is the stable side."""
    process = EDM(sigma_max=402.0)
    sampler = replace(solver, steps=400, grid=UniformGrid(start=402.0, end=2.0))
    x = torch.ones(1, 1, dtype=torch.float64)
    inside = list(sampler.trajectory(Linear(process, 0.93 * interval), x))[-1]
    outside = list(sampler.trajectory(Linear(process, 1.07 * interval), x))[-1]
    assert inside.abs() < 1
    assert not outside.abs() < 1e3
    with pytest.raises(SamplingError, match=r"diverged in step \d+ of 400"):
        sampler(Linear(process, 1.5 * interval), x)


# -- counting and seeds ----------------------------------------------------------------------------------------------


class Counting(MixtureDenoiser):
    calls = 0

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        Counting.calls += 1
        return super().__call__(x, t, y, **condition)


EVERY: dict[str, Sampler] = {name: solver for name, (solver, _, _) in SOLVERS.items()} | STOCHASTIC


@pytest.mark.parametrize("to_zero", [False, True])
@pytest.mark.parametrize("name", EVERY)
def test_calls_are_counted_right(name: str, to_zero: bool) -> None:
    process = VP()
    sampler = replace(EVERY[name], steps=6, grid=UniformGrid(end=0.02, to_zero=to_zero))
    x = torch.randn(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    Counting.calls = 0
    sampler(Counting(MIXTURE, process), x, None, SampleNoise([1, 2]))
    assert Counting.calls == sampler.evaluations(process)


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_is_its_single_runs(name: str) -> None:
    process = PROCESSES["OUVE"]
    sampler = replace(EVERY[name], steps=6, grid=UniformGrid(end=0.03, to_zero=True))
    x = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    y, denoiser, draws = Y.expand(8, 2), MixtureDenoiser(MIXTURE, process), []

    def noise(seeds: list[int]):  # type: ignore[no-untyped-def]
        source = SampleNoise(seeds)

        def keep(like: Tensor) -> Tensor:
            draws.append(source(like))
            return draws[-1]

        return keep

    together = sampler(denoiser, x, y, noise(list(range(8))))
    batch = draws[:]
    for i in range(8):
        draws.clear()
        alone = sampler(denoiser, x[i : i + 1], y[i : i + 1], noise([i]))
        torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-12)
        assert all(torch.equal(one[0], many[i]) for one, many in zip(draws, batch, strict=True))


@pytest.mark.parametrize("name", EVERY)
def test_complex_float32_signals(name: str) -> None:
    """Spectrograms: complex, (B, C, F, T), on a process with an observation."""
    process = PROCESSES["OUVE"]
    sampler = replace(EVERY[name], steps=4, grid=UniformGrid(end=0.03, to_zero=True))

    class Gaussian:
        """E[x0 | x] for unit-variance data: a u/(a^2 + s^2)."""

        process = PROCESSES["OUVE"]

        def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
            from ornstein.estimate import estimate_from_x0

            c = process.coefficients(torch.as_tensor(t))
            assert y is not None
            gain = float(c.a / (c.a**2 + c.s**2))
            return estimate_from_x0(process, x, torch.as_tensor(t), gain * (x - float(c.b) * y), y)

    x = torch.randn(2, 1, 4, 3, dtype=torch.complex64, generator=torch.Generator().manual_seed(4))
    result = sampler(Gaussian(), x, x, SampleNoise([0, 1]))
    assert result.shape == x.shape
    assert result.dtype == torch.complex64


# -- stochastic solvers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", ["VP", "EDM", "OUVE", "rectified flow"])
@pytest.mark.parametrize("name", ["SDE 2M", "SDE 3M", "2S ancestral", "DPM++ SDE", "churn"])
def test_stochastic_solvers_keep_the_law(name: str, process: str) -> None:
    family = PROCESSES[process]
    end = KarrasGrid(sigma_max=20.0)
    grid = end if isinstance(family, (VE, EDM)) else UniformGrid()
    sampler = replace(STOCHASTIC[name], steps=40, grid=grid)
    if isinstance(sampler, ChurnedHeun):
        sampler = replace(sampler, noise_scale=1.0)
    generator = torch.Generator().manual_seed(0)
    x0 = MIXTURE.sample(1500, generator)
    z = torch.randn(1500, 2, generator=generator, dtype=torch.float64)
    y = Y.expand(1500, 2)
    x = family.sample(x0, family.T, z, y)
    result = sampler(
        MixtureDenoiser(MIXTURE, family), x, y, lambda like: torch.randn(like.shape, generator=generator).to(like)
    )
    assert (result.mean(0) - MIXTURE.mean()).abs().max() < 0.09
    assert (result.T.cov() - MIXTURE.covariance()).abs().max() < 0.09


# -- LML -------------------------------------------------------------------------------------------------------------


def test_lml_without_memory_is_its_base() -> None:
    """The default of the published scripts changes nothing, to the last bit; the default here does."""
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    denoiser = MixtureDenoiser(MIXTURE, VP())
    for base in (DDIMBase(), DPMSolverPP()):
        plain = replace(base, steps=8)(denoiser, x)
        assert torch.equal(LML(8, base=base, damping=0.001, memory=0.0, relative=False)(denoiser, x), plain)
        assert not torch.allclose(LML(8, base=base)(denoiser, x), plain)


def test_lml_on_a_silent_sample_and_on_a_constant_one() -> None:
    """An increment of nothing stays nothing, and leaves the gradient and the other samples of its batch as they are."""

    class Network:
        process = VP()

        def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
            x0 = torch.stack([torch.zeros_like(x[0]), torch.ones_like(x[1]), x[2] / 2])
            return estimate_from_x0(self.process, x, torch.as_tensor(t), x0)

    x = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    *_, end = LML(10).trajectory(Network(), x)
    assert torch.equal(end[0], torch.zeros_like(end[0]))
    torch.testing.assert_close(end[1], torch.ones(8, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(end.sum(), x)
    assert bool(gradient.isfinite().all())


def test_lml_converges_but_on_ddim() -> None:
    """The default to the flow at first order; on DDIM with memory the error stays where it is."""
    w, exact = exact_between(*INSIDE)
    steps = (160, 640)
    default = flow_errors(MIXTURE, VP(), LML(), w, INSIDE, steps, exact=exact)
    assert measured_order(default, steps) == pytest.approx(1, abs=0.05)
    assert default[-1] < 5e-3
    on_ddim = flow_errors(MIXTURE, VP(), LML(base=DDIMBase()), w, INSIDE, steps, exact=exact)
    assert measured_order(on_ddim, steps) < 0.2
    assert on_ddim[-1] > 0.05


@pytest.mark.parametrize("base", [DPMSolverPP(order=1), DPMSolver(order=1)], ids=repr)
def test_lml_leaves_the_step_to_the_clean_end_alone(base: FlowSolver) -> None:
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    denoiser = MixtureDenoiser(MIXTURE, VP())
    *_, before, end = LML(8, base=base).trajectory(denoiser, x)
    torch.testing.assert_close(end, denoiser(before, 1 / 8).x0)


# -- errors ----------------------------------------------------------------------------------------------------------


class Broken(MixtureDenoiser):
    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        estimate = super().__call__(x, t, y, **condition)
        return replace(estimate, x0=estimate.x0 * torch.nan) if float(t) < 0.5 else estimate


def test_what_goes_wrong_is_named() -> None:
    x, denoiser = torch.zeros(1, 2, dtype=torch.float64), MixtureDenoiser(MIXTURE, VP())
    with pytest.raises(SamplingError, match=r"NaN or infinity in step 7 of 10 \(t = 0.4\)"):
        Euler(10)(Broken(MIXTURE, VP()), x)
    with pytest.raises(SamplingError, match="do not decrease"):
        DPMSolverPP3S(2, UniformGrid(start=0.2, end=0.4))(denoiser, x)
    with pytest.raises(ValueError, match="do not decrease; give each"):
        Euler(2, UserGrid((1.0, 0.5, 0.5)))(denoiser, x)
    with pytest.raises(SamplingError, match="EVODiff needs at least 2 steps, got 1"):
        EVODiff(1)(denoiser, x)
    with pytest.raises(SamplingError, match="at least one step, got 0"):
        Euler(0)(denoiser, x)
    with pytest.raises(SamplingError, match="begin below T"):
        VelocityFlow(4)(MixtureDenoiser(MIXTURE, PROCESSES["bridge"]), x, x)
    with pytest.raises(SamplingError, match="stochastic"):
        Consistency(4)(denoiser, x)
    with pytest.raises(SamplingError, match="not finite"):
        Euler(4)(denoiser, x * torch.nan)
    with pytest.raises(SamplingError, match="at least one sample"):
        Euler(4)(denoiser, x[:0])
    assert issubclass(SamplingError, UserError)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: UniPC(order=4),
        lambda: DPMSolverPP(order=0),
        lambda: LMS(order=6),
        lambda: GHVB(order=5.5),
        lambda: HeavyBall(beta=0.0),
        lambda: LML(damping=0.5),
        lambda: PLMS(order=5),
        lambda: Ancestral(steps=0).times(VP()),
    ],
)
def test_wrong_options_are_refused(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError):
        wrong()
