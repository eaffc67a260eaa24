"""Every solver on every process against the exact flow or the law of a Gaussian mixture: errors, orders, starts,
stability.

    python benchmarks/solver_table.py

Writes benchmarks/results/solver_table.json, of which benchmarks/pages.py makes the tables of docs/samplers.md. About
ten minutes on one core.
"""

import argparse
import json
import math
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ornstein.analysis.examples import MIXTURE, PROCESSES, Y, exact_between, weights_of
from ornstein.analysis.law import SlicedWasserstein
from ornstein.analysis.mixture import MixtureDenoiser, exact_flow
from ornstein.analysis.solvers import characteristic, final_w, flow_errors, measured_order, stability_interval
from ornstein.estimate import Estimate, estimate_from_x0
from ornstein.files import atomic_path
from ornstein.process.affine import Process, combine
from ornstein.process.edm import EDM
from ornstein.process.ve import VE
from ornstein.samplers.adams import DEIS, LMS, AdamsBashforth, ExponentialAdams
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler, SamplingError
from ornstein.samplers.churn import ChurnedHeun
from ornstein.samplers.consistency import Consistency
from ornstein.samplers.dpm_multistep import DPMSolver, DPMSolverPP
from ornstein.samplers.dpm_singlestep import DPMSolver2, DPMSolverPP2S, DPMSolverPP3S, DPMSolverPPSDE
from ornstein.samplers.evodiff import EVODiff
from ornstein.samplers.flow_matching import VelocityFlow
from ornstein.samplers.lml import LML, DDIMBase
from ornstein.samplers.momentum import GHVB, GHVB_WEIGHTS, HeavyBall
from ornstein.samplers.ode import ProbabilityFlowODE
from ornstein.samplers.ode_solvers import Euler, FlowSolver, Heun
from ornstein.samplers.pndm import ADAMS, PLMS
from ornstein.samplers.predictor_corrector import PredictorCorrector
from ornstein.samplers.time_grids import KarrasGrid, UserGrid
from ornstein.samplers.unipc import UniPC

RESULT = Path(__file__).parent / "results" / "solver_table.json"

SOLVERS: dict[str, tuple[Sampler, float, int]] = {
    "Euler (DDIM)": (Euler(), 1, 1),
    "Heun": (Heun(), 2, 2),
    "DPM-Solver 2M": (DPMSolver(), 2, 1),
    "DPM-Solver-2": (DPMSolver2(), 2, 2),
    "DPM-Solver++ 2M": (DPMSolverPP(), 2, 1),
    "DPM-Solver++ 3M": (DPMSolverPP(order=3), 2, 1),
    "DPM-Solver++ 2S": (DPMSolverPP2S(), 2, 2),
    "DPM-Solver++ 3S": (DPMSolverPP3S(), 3, 3),
    "UniPC-1": (UniPC(order=1), 2, 1),
    "UniPC-2 bh1": (UniPC(order=2, variant="bh1"), 2, 1),
    "UniPC-2": (UniPC(order=2), 2, 1),
    "UniPC-3": (UniPC(order=3), 2, 1),
    "PLMS": (PLMS(), 2, 1),
    "LMS-4": (LMS(order=4), 4, 1),
    "DEIS-2": (DEIS(order=2), 2, 1),
    "DEIS-3": (DEIS(order=3), 3, 1),
    "AB-2 in kappa": (AdamsBashforth(order=2), 2, 1),
    "AB-3 in kappa": (AdamsBashforth(order=3), 3, 1),
    "exponential AB-3": (ExponentialAdams(order=3), 3, 1),
    "HB 1.8": (HeavyBall(base=PLMS(order=2, corrected_start=False)), 1, 1),
    "NT 1.8": (HeavyBall(base=PLMS(order=2, corrected_start=False), nesterov=True), 1, 1),
    "HB on DPM-Solver++ 2M": (HeavyBall(base=DPMSolverPP()), 1, 1),
    "GHVB 1.8": (GHVB(order=1.8), 2, 1),
    "GHVB 2.5": (GHVB(order=2.5), 3, 1),
    "EVODiff": (EVODiff(), 1, 1),
    "LML": (LML(), 1, 1),
    "LML on DPM-Solver++ 2M": (LML(base=DPMSolverPP()), 1, 1),
    "LML on DDIM": (LML(base=DDIMBase()), math.nan, 1),
    "flow Euler": (VelocityFlow(), 1, 1),
    "flow Heun": (VelocityFlow(method="heun"), 2, 2),
    "flow midpoint": (VelocityFlow(method="midpoint"), 2, 2),
}
"""Solver, its order with an exact history (NaN: not a method with an order), calls a step."""

LAW: dict[str, tuple[Sampler | None, int]] = {
    "exact draws": (None, 1),
    "DDIM, without noise": (Ancestral(eta=0.0), 1),
    "DPM-Solver++ 2M, without noise": (DPMSolverPP(), 1),
    "DDPM": (Ancestral(), 1),
    "DDPM, eta 0.5": (Ancestral(eta=0.5), 1),
    "SDE-DPM-Solver++ 2M": (DPMSolverPP(eta=1.0), 1),
    "SDE-DPM-Solver++ 3M": (DPMSolverPP(order=3, eta=1.0), 1),
    "DPM-Solver++ 2S ancestral": (DPMSolverPP2S(eta=1.0), 2),
    "DPM-Solver++ SDE": (DPMSolverPPSDE(), 2),
    "Heun with churn": (ChurnedHeun(), 2),
    "reverse diffusion": (PredictorCorrector(corrector=None), 1),
    "predictor-corrector": (PredictorCorrector(), 2),
    "consistency": (Consistency(rho_min=1 / 50), 1),
}
"""Samplers whose draws are compared with the data, and calls a step; None: draws of the data."""

CALLS = (5, 10, 20, 50)
LAW_CALLS = (5, 20, 50)
DRAWS = 4096
TOLERANCES = (1e-3, 1e-5)
INSIDE = (0.6, 8.0)
"""kappa where orders are measured, in equal steps of lambda."""
LAST = 8.0
CLEAN = 50.0
"""kappa of the last call of the runs to t = 0, unless it lies below the first level of a table."""


def between(process: Process, first: float, last: float) -> tuple[Tensor, Tensor]:
    """`exact_between` of the weights of a process."""
    return exact_between(first, last, weights=weights_of(process))


def order_inside(solver: Sampler, process: Process, steps: tuple[int, int] = (40, 80)) -> float:
    """Measured order between two kappa of either process, a > 0 and s > 0, from a cold start."""
    w, exact = between(process, *INSIDE)
    found = flow_errors(MIXTURE, process, solver, w, INSIDE, steps, y=Y.expand_as(w), exact=exact)
    return measured_order(found, steps)


def order_from_the_start(solver: Sampler, process: Process, steps: tuple[int, int] = (64, 128)) -> float | str:
    """Measured order from T, where a <= 0 or s = 0 on some processes, to kappa = 8, or why the solver refuses.

    The grid is uniform in t (on VE and EDM in log s), on a bridge quadratic at T, where w_T is drawn.
    """
    kappa = float(process.kappa(process.T))
    kappa = kappa if math.isfinite(kappa) else 0.0
    w, exact = between(process, kappa, LAST)
    last = float(process.time_at_kappa(LAST))
    errors = []
    for n in steps:
        method = replace(solver, steps=n, grid=grid_from_the_start(process, n, last))
        if isinstance(method, FlowSolver):
            method = replace(method, random_start=True)
        try:
            end = start_w(process, method, w)
        except SamplingError as error:
            return str(error)
        errors.append(float((end - exact).square().mean().sqrt()))
    return measured_order(errors, steps)


def grid_from_the_start(process: Process, steps: int, last: float) -> UserGrid:
    """Times from T to `last`, also between the nodes of a table."""
    ramp = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    if isinstance(process, (VE, EDM)):
        first, end = (float(process.kappa(t)) for t in (process.T, last))
        return UserGrid(tuple(process.time_at_kappa(first ** (1 - ramp) * end**ramp).tolist()))
    return UserGrid(tuple((process.T - (process.T - last) * (ramp if _noisy_at_T(process) else ramp**2)).tolist()))


def _noisy_at_T(process: Process) -> bool:
    return bool(process.reference(torch.tensor(process.T, dtype=torch.float64)).s > 0)


def start_w(process: Process, method: Sampler, w: Tensor) -> Tensor:
    """Final w of a run from T; where s_T = 0 the sampler draws `w` itself."""
    if _noisy_at_T(process):
        return final_w(MIXTURE, process, method, w, Y.expand_as(w))
    y = Y.expand_as(w)
    end = process.coefficients(method.times(process)[-1])
    result = method(MixtureDenoiser(MIXTURE, process), y, y, lambda like: w)
    return combine(w, (1 / end.s, result), (-end.b / end.s, y))


def errors(solver: Sampler, calls_a_step: int, process: Process) -> list[float | str | None]:
    """RMS error of u/a at kappa = 8 for every number of calls, from kappa = 0.05, on the grid a user would take."""
    first, last = (float(process.time_at_kappa(k)) for k in (0.05, LAST))
    w, exact = between(process, max(0.05, float(process.kappa(process.T))), LAST)
    found: list[float | str | None] = []
    for calls in CALLS:
        steps = calls // calls_a_step
        if steps < solver.minimum_steps:
            found.append(None)
            continue
        if isinstance(process, (VE, EDM)):
            grid = KarrasGrid(sigma_min=1 / LAST, sigma_max=20.0)(process, steps + 1)[:-1]
        else:
            grid = torch.linspace(first, last, steps + 1, dtype=torch.float64)
        method = replace(solver, steps=steps, grid=UserGrid(tuple(grid.tolist())))
        try:
            end = final_w(MIXTURE, process, method, w, Y.expand_as(w))
        except SamplingError:
            found.append("diverged")
            continue
        found.append(float((end - exact).square().mean().sqrt()) / LAST)
    return found


class Counting(MixtureDenoiser):
    """Counts its calls."""

    calls = 0

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        Counting.calls += 1
        return super().__call__(x, t, y, **condition)


def adaptive(tolerance: float, process: Process) -> tuple[int, float]:
    """Calls of the adaptive flow in t and the RMS error of u/a, as `errors`."""
    first, last = (float(process.time_at_kappa(k)) for k in (0.05, LAST))
    w, exact = between(process, max(0.05, float(process.kappa(process.T))), LAST)
    start, end = (process.coefficients(torch.tensor(t, dtype=torch.float64)) for t in (first, last))
    y, grid = Y.expand_as(w), UserGrid((first, last))
    method = ProbabilityFlowODE(grid=grid, rtol=tolerance, atol=tolerance, final_step=False)
    Counting.calls = 0
    x = method(Counting(MIXTURE, process), combine(w, (start.s, w), (start.b, y)), y)
    found = combine(w, (1 / end.s, x), (-end.b / end.s, y))
    return Counting.calls, float((found - exact).square().mean().sqrt()) / LAST


@dataclass(frozen=True)
class ExactConsistency:
    """The network of a consistency model: the end of the flow, at kappa = CLEAN."""

    process: Process

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        t = torch.as_tensor(t, dtype=torch.float64)
        a, b, s, _ = self.process.coefficients(t)
        u = combine(x, (torch.ones_like(b), x), (-b, self.process.require(y)))
        kappa, weights = float(self.process.kappa(t)), weights_of(self.process)
        if kappa >= CLEAN * (1 - 1e-9):
            return estimate_from_x0(self.process, x, t, combine(u, (1 / a, u)), y)
        end = exact_flow(MIXTURE, combine(u, (1 / s, u)), kappa, CLEAN, tolerance=1e-4, weights=weights) / CLEAN
        return estimate_from_x0(self.process, x, t, end if weights is None else end * weights, y)


def law_errors(sampler: Sampler | None, calls_a_step: int, process: Process) -> list[float | str | None]:
    """Distance of draws to the data for every number of calls, from exact draws at kappa = 0.05 to t = 0."""
    found: list[float | str | None] = []
    for calls in LAW_CALLS:
        generator = torch.Generator().manual_seed(0)
        x0, z = MIXTURE.sample(DRAWS, generator), torch.randn(DRAWS, 2, generator=generator, dtype=torch.float64)
        if sampler is None:  # others for every number, to show what is chance
            found.append(distance(MIXTURE.sample(DRAWS, torch.Generator().manual_seed(calls))))
            continue
        if isinstance(sampler, Consistency) and calls > LAW_CALLS[0]:
            found.append(None)  # a method of few calls, whose exact network takes long
            continue
        steps, y = calls // calls_a_step, Y.expand_as(x0)
        method = replace(sampler, steps=steps, grid=grid_to_zero(process, steps))
        exact = ExactConsistency if isinstance(sampler, Consistency) else partial(MixtureDenoiser, MIXTURE)

        def noise(like: Tensor, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(like.shape, generator=generator, dtype=like.dtype)

        try:
            result = method(exact(process), process.sample(x0, method.times(process)[0], z, y), y, noise)
        except SamplingError:
            found.append("diverged")
            continue
        found.append(distance(result))
    return found


def grid_to_zero(process: Process, steps: int) -> UserGrid:
    """From kappa = 0.05 to CLEAN, uniform in t (on VE and EDM the grid of Karras), then to 0."""
    if isinstance(process, (VE, EDM)):
        return UserGrid(tuple(KarrasGrid(sigma_min=1 / CLEAN, sigma_max=20.0)(process, steps).tolist()))
    first, last = (float(process.time_at_kappa(k)) for k in (0.05, CLEAN))
    return UserGrid((*torch.linspace(first, max(last, process.first_level), steps).tolist(), 0.0))


@cache
def _law() -> SlicedWasserstein:
    return SlicedWasserstein(MIXTURE, DRAWS)


def distance(draws: Tensor) -> float:
    """Sliced Wasserstein distance to the data."""
    return _law()(draws)


def stability() -> dict[str, float]:
    """Stability intervals on the negative real axis, dy/dt = z y with steps of 1."""
    table = {f"AB{k}": stability_interval(characteristic(ADAMS[k - 1])) for k in (1, 2, 3, 4)}
    for order in (0.5, 0.7, 0.8, 0.9, 1.3, 1.5, 1.8, 1.9, 2.3, 2.5, 2.7, 3.5, 3.7, 3.9):
        table[f"GHVB {order}"] = ghvb_interval(order)
    for order in (1.5, 1.8, 1.9, 2.5, 2.8, 3.5, 3.8, 3.9):
        beta = order - math.floor(order)
        table[f"HB {order}"] = stability_interval(characteristic(ADAMS[math.ceil(order) - 1], beta))
    return table


def ghvb_interval(order: float) -> float:
    beta = order - math.floor(order) or 1.0
    divisor, pairs = GHVB_WEIGHTS[math.ceil(order) - 1]
    return stability_interval(characteristic([(p + q * beta) / (divisor * beta) for p, q in pairs], beta))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULT)
    names = list(SOLVERS)
    parser.add_argument("--solvers", nargs="+", choices=names, help="only these rows again; the other numbers stay")
    options = parser.parse_args()
    if options.solvers:
        result = json.loads(options.output.read_text())
    else:
        result = {"calls": CALLS, "law_calls": LAW_CALLS, "draws": DRAWS, "stability": stability(), "solvers": {}}
        measure_laws(result)
    for name in options.solvers or names:
        solver, _, calls_a_step = SOLVERS[name]
        result["solvers"][name] = {
            "order": {p: round(order_inside(solver, process), 2) for p, process in PROCESSES.items()},
            "order_from_T": {p: order_from_the_start(solver, process) for p, process in PROCESSES.items()},
            "errors": {p: errors(solver, calls_a_step, process) for p, process in PROCESSES.items()},
        }
        print(f"{name:20}", result["solvers"][name]["order_from_T"], flush=True)
    with atomic_path(options.output, overwrite=True) as path:
        path.write_text(json.dumps(result, indent=1) + "\n")


def measure_laws(result: dict[str, Any]) -> None:
    """The adaptive flow and the stochastic samplers."""
    result["adaptive"] = {
        f"tolerance {tolerance:.0e}": {p: adaptive(tolerance, process) for p, process in PROCESSES.items()}
        for tolerance in TOLERANCES
    }
    result["law"] = {}
    for name, (sampler, calls_a_step) in LAW.items():
        row = {p: law_errors(sampler, calls_a_step, process) for p, process in PROCESSES.items()}
        result["law"][name] = row
        print(f"{name:20}", row, flush=True)


if __name__ == "__main__":
    main()
