"""DPM-Solver with intermediate calls: no history, so that noise may be added after every step."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from ornstein.process.affine import Process
from ornstein.samplers.ancestral import require_share
from ornstein.samplers.dpm_multistep import contraction
from ornstein.samplers.ode_solvers import FlowSolver, Run, TwoCallSolver
from ornstein.samplers.weights import Node, Weight, expm1, nodes_at, root, weighted


@dataclass(frozen=True)
class DPMSolver2(TwoCallSolver):
    """DPM-Solver-2: the noise at the middle of lambda holds for the step (Lu et al. 2022, algorithm 1; `dpm_2` of
    k-diffusion). Second order, two calls a step; Euler where a step touches a <= 0 or s = 0."""

    @property
    def convergence_order(self) -> int | None:
        return 2

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        for (now, ahead), middle in zip(run.steps, run.between(0.5), strict=True):
            first = run.estimate(x, now)
            if now.regular and ahead.regular:
                inside = run.noise_step(x, now, middle, first.noise)
                x = run.noise_step(x, now, ahead, run.noise(inside, middle))
            else:
                x = run.euler_step(x, now, ahead, first.x0)
            yield x


@dataclass(frozen=True)
class DPMSolverPP2S(TwoCallSolver):
    """DPM-Solver++(2S): x0 at the middle of lambda holds for the step (Lu et al. 2022, algorithm 1); with eta > 0 the
    step goes to less noise and the rest, tau = eta s' sqrt(1 - (kappa/kappa')^2), is drawn (`dpmpp_2s_ancestral` of
    k-diffusion).

    Two calls a step; Euler where a step touches a <= 0 or s = 0.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        require_share(self.eta)

    @property
    def convergence_order(self) -> int | None:
        return 1 if self.eta > 0 else 2

    @property
    def stochastic(self) -> bool:
        return self.eta > 0 or super().stochastic

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        keeps = [ancestral_keep(now, ahead, self.eta) for now, ahead in run.steps]
        targets = [ahead.kappa / _reference_keep(now, ahead, self.eta) for now, ahead in run.steps]
        for (now, ahead), keep, middle in zip(run.steps, keeps, run.between(0.5, targets), strict=True):
            below = ahead.keeping(keep)
            x0 = run.x0(x, now)
            if now.regular and ahead.regular and not below.noiseless:
                x0 = run.x0(run.data_step(x, now, middle, x0), middle)
            x = run.data_step(x, now, below, x0)
            if self.eta > 0 and not ahead.noiseless:
                x = run.add_noise(x, ahead.s * root(1 - keep**2))
            yield x


@dataclass(frozen=True)
class DPMSolverPP3S(FlowSolver):
    """DPM-Solver++(3S), third order with calls at 1/3 and 2/3 of a step in lambda (Lu et al. 2022, appendix; phi
    functions of exponential Runge-Kutta). Three calls a step; Euler where a step touches a <= 0 or s = 0."""

    @property
    def convergence_order(self) -> int | None:
        return 3

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        for (now, ahead), third, two_thirds in zip(run.steps, run.between(1 / 3), run.between(2 / 3), strict=True):
            x0 = direction = run.x0(x, now)
            if now.regular and ahead.regular:
                inner = run.x0(run.data_step(x, now, third, x0), third)
                slope = 2 * _second_over_first(two_thirds.lam - now.lam)  # of the first third, over two thirds
                x1 = run.data_step(x, now, two_thirds, weighted(x, (1 - slope, x0), (slope, inner)))
                slope = 1.5 * _second_over_first(ahead.lam - now.lam)
                direction = weighted(x, (1 - slope, x0), (slope, run.x0(x1, two_thirds)))
            x = run.data_step(x, now, ahead, direction)
            yield x

    def evaluations(self, process: Process) -> int:
        nodes = nodes_at(process, self.times(process))
        return sum(3 if now.regular and ahead.regular else 1 for now, ahead in pairwise(nodes))


@dataclass(frozen=True)
class DPMSolverPPSDE(TwoCallSolver):
    """SDE-DPM-Solver++ with one intermediate call and two draws a step (`dpmpp_sde` of k-diffusion, r = 1/2).

    Both parts are ancestral steps: to less noise, the rest is drawn. Two calls a step; where a step touches a <= 0 or
    s = 0 one ancestral step.
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        require_share(self.eta)

    @property
    def convergence_order(self) -> int | None:
        return None if self.eta > 0 else 2

    @property
    def stochastic(self) -> bool:
        return self.eta > 0 or super().stochastic

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        for (now, ahead), middle in zip(run.steps, run.between(0.5), strict=True):
            x0 = run.x0(x, now)
            if now.regular and ahead.regular:
                x0 = run.x0(self._ancestral(run, x, now, middle, x0), middle)
            x = self._ancestral(run, x, now, ahead, x0)
            yield x

    def _ancestral(self, run: Run, x: Tensor, now: Node, ahead: Node, x0: Tensor) -> Tensor:
        keep = ancestral_keep(now, ahead, self.eta)
        x = run.data_step(x, now, ahead.keeping(keep), x0)
        return x if self.eta == 0 or ahead.noiseless else run.add_noise(x, ahead.s * root(1 - keep**2))


def ancestral_keep(now: Node, ahead: Node, eta: float) -> Weight:
    """sqrt(1 - eta^2 (1 - (kappa/kappa')^2)), what an ancestral step of memory a keeps of s'."""
    correlation = contraction(now, ahead, 1.0)  # e^(-h) = kappa/kappa'
    return root(1 - eta**2 * (1 - correlation**2))


def _reference_keep(now: Node, ahead: Node, eta: float) -> float:
    """`ancestral_keep` of the scalar reference; tiny instead of 0, so that a node stays where it is."""
    correlation = now.kappa / ahead.kappa if now.regular and ahead.regular else 1.0
    return max(1 - eta**2 * (1 - correlation**2), 1e-300) ** 0.5


def _second_over_first(h: Weight) -> Weight:
    """p2/p1 = (1 - (1 - e^-h)/h)/(1 - e^-h)."""
    return 1 / -expm1(-h) - 1 / h
