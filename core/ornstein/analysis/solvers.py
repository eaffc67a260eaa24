"""What a solver of the probability flow is worth: errors, orders and stability, against exact flows of mixtures."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser, exact_flow
from ornstein.denoiser import DenoiserLike
from ornstein.process.affine import Process, combine
from ornstein.samplers.base import Sampler
from ornstein.samplers.ode_solvers import FlowSolver, Run
from ornstein.samplers.time_grids import UserGrid
from ornstein.samplers.weights import Node, nodes_at

Array = npt.NDArray[np.float64]


def times_between(process: Process, first: float, last: float, steps: int, uniform: str = "lambda") -> UserGrid:
    """The grid from kappa = `first` to `last` with equal steps in "lambda" or "kappa" or "rho"."""
    ramp = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    match uniform:
        case "lambda":
            kappa = first * (last / first) ** ramp
        case "kappa":
            kappa = first + (last - first) * ramp
        case "rho":
            kappa = 1 / (1 / first + (1 / last - 1 / first) * ramp)
        case _:
            raise ValueError(f"a grid is uniform in lambda, kappa or rho, not {uniform}")
    return UserGrid(tuple(process.time_at_kappa(kappa).tolist()))


def final_w(mixture: GaussianMixture, process: Process, sampler: Sampler, w: Tensor, y: Tensor | None) -> Tensor:
    """Where `sampler`, with the grid it has, takes w = (x - b y)/s under the exact denoiser of `mixture`."""
    times = sampler.times(process)
    first, last = process.coefficients(times[0]), process.coefficients(times[-1])
    x = combine(w, (first.s, w), (first.b, process.require(y)))
    result = sampler(cast(DenoiserLike, MixtureDenoiser(mixture, process)), x, y)
    return combine(w, (1 / last.s, result), (-last.b / last.s, process.require(y)))


def flow_errors(
    mixture: GaussianMixture,
    process: Process,
    sampler: Sampler,
    w: Tensor,
    kappa: tuple[float, float],
    steps: Sequence[int],
    uniform: str = "lambda",
    y: Tensor | None = None,
    exact: Tensor | None = None,
) -> list[float]:
    """RMS distance in w to the exact flow between two kappa, for every number of steps; `exact` where it is known."""
    exact = exact_flow(mixture, w, *kappa) if exact is None else exact
    errors = []
    for n in steps:
        method = replace(sampler, steps=n, grid=times_between(process, *kappa, n, uniform))
        errors.append(float((final_w(mixture, process, method, w, y) - exact).square().mean().sqrt()))
    return errors


def measured_order(errors: Sequence[float], steps: Sequence[int]) -> float:
    """Slope of log error against log step over the last two numbers of steps."""
    return float(np.log(errors[-2] / errors[-1]) / np.log(steps[-1] / steps[-2]))


def seeded_order(
    mixture: GaussianMixture,
    process: Process,
    sampler: FlowSolver,
    w: Tensor,
    kappa: tuple[float, float],
    steps: Sequence[int],
    warm: int,
    uniform: str = "lambda",
    y: Tensor | None = None,
) -> float:
    """Order of a multistep method whose first `warm` states come from the exact flow, so that its start does not limit
    it."""
    errors = []
    for n in steps:
        nodes = nodes_at(
            process, replace(sampler, steps=n, grid=times_between(process, *kappa, n, uniform)).times(process)
        )
        states, values = w, [w]
        for now, ahead in list(pairwise(nodes))[:warm]:
            states = exact_flow(mixture, states, now.kappa, ahead.kappa, tolerance=1e-13)
            values.append(states)
        exact = exact_flow(mixture, states, nodes[warm].kappa, nodes[-1].kappa, tolerance=1e-13)
        run = _Seeded(cast(DenoiserLike, MixtureDenoiser(mixture, process)), nodes, y)
        for node, value in zip(nodes, values, strict=False):
            run.exact[float(node.t)] = combine(w, (_tensor(node.s), value), (_tensor(node.b), process.require(y)))
        *_, last = replace(sampler, steps=n).solve(run, run.exact[float(nodes[0].t)])
        end = combine(w, (_tensor(1 / nodes[-1].s), last), (_tensor(-nodes[-1].b / nodes[-1].s), process.require(y)))
        errors.append(float((end - exact).square().mean().sqrt()))
    return measured_order(errors, steps)


class _Seeded(Run):
    """A run that lands on known states where it has them."""

    def __init__(self, denoiser: DenoiserLike, nodes: list[Node], y: Tensor | None) -> None:
        super().__init__(denoiser, nodes, y)
        self.exact: dict[float, Tensor] = {}

    def data_step(self, x: Tensor, now: Node, ahead: Node, x0: Tensor) -> Tensor:
        return self.exact.get(float(ahead.t), super().data_step(x, now, ahead, x0))

    def noise_step(self, x: Tensor, now: Node, ahead: Node, noise: Tensor) -> Tensor:
        return self.exact.get(float(ahead.t), super().noise_step(x, now, ahead, noise))


def _tensor(weight: float | Tensor) -> Tensor:
    return torch.as_tensor(weight, dtype=torch.float64)


def characteristic(weights: Sequence[float], beta: float = 1.0) -> Callable[[float], Array]:
    """Characteristic polynomial in z, for dy/dt = z y and steps of 1, of a multistep method, highest power first.

    `weights` are those of the past directions, newest first; beta < 1 is heavy-ball momentum on them (HB), or on
    the calls with the weights of GHVB: (r - 1)(r - 1 + beta) r^(k-1) = beta z sum of c_j r^(k-j).
    """
    k = len(weights)
    left = np.polymul(np.polymul([1, -1], [1, beta - 1]), [1] + [0] * (k - 1))
    right = np.array([0.0, *weights, 0.0])
    return lambda z: left - beta * z * right


def stability_interval(polynomial: Callable[[float], Array], largest: float = 20.0) -> float:
    """How far to -x a method stays bounded: all roots in the unit disc, up to the first crossing."""

    def stable(x: float) -> bool:
        return bool(np.abs(np.roots(polynomial(-x))).max() <= 1 + 1e-9)

    low = high = 0.0
    while high < largest and stable(high + 0.005):
        high += 0.005
    low, high = high, high + 0.005
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if stable(middle) else (low, middle)
    return low
