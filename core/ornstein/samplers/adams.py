"""Adams-Bashforth methods: the polynomial through past calls, integrated exactly in four variables."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.samplers.dpm_multistep import Past
from ornstein.samplers.ode_solvers import FlowSolver, Run
from ornstein.samplers.weights import Node, Weight, expm1, vandermonde, weighted


@dataclass(frozen=True)
class _Adams(FlowSolver):
    order: int = 3
    """Calls that are combined, 1 to 5; fewer while there are not as many."""

    def __post_init__(self) -> None:
        if not isinstance(self.order, int) or not 1 <= self.order <= 5:
            raise UserError(f"Adams-Bashforth has the orders 1 to 5 here, not {self.order}")

    @property
    def convergence_order(self) -> int:
        return min(self.order, 2)  # the first step is of first order


@dataclass(frozen=True)
class AdamsBashforth(_Adams):
    """x0 as a polynomial in kappa = a/s.

    dw/dkappa = x0 is regular at a = 0 and below, so the full order holds there, and from the start T of a bridge. The
    step to s = 0 is of first order.
    """

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        past: Past = []
        for now, ahead in run.steps:
            past = [(now, run.x0(x, now)), *past][: self.order]
            direction = past[0][1] if ahead.noiseless else combined(past, ahead, _kappa)
            x = run.data_step(x, now, ahead, direction)
            yield x


@dataclass(frozen=True)
class LMS(_Adams):
    """Noise as a polynomial in rho = s/a, also known as rho-AB and zAB (k-diffusion's `lms` with exact integrals).

    A step that starts where a <= 0 is an Euler step; s = 0 at the end is regular.
    """

    order: int = 4

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        past: Past = []
        for now, ahead in run.steps:
            estimate = run.estimate(x, now)
            if now.regular:
                past = [(now, estimate.noise), *past][: self.order]
                x = run.noise_step(x, now, ahead, combined(past, ahead, lambda node: node.rho))
            else:
                x = run.euler_step(x, now, ahead, estimate.x0)
            yield x


@dataclass(frozen=True)
class DEIS(_Adams):
    """Noise as a polynomial in log rho = -lambda, integrated against d rho (Zhang and Chen 2023, equation 15, with the
    nodes in log rho). A step that touches a <= 0 or s = 0 is an Euler step."""

    order: int = 2
    easing: int = 0
    """With fewer steps than this the order falls to 1 towards the last step."""

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        past: Past = []
        for left, (now, ahead) in zip(range(self.steps, 0, -1), run.steps, strict=True):
            estimate = run.estimate(x, now)
            if now.regular and ahead.regular:
                past = [(now, estimate.noise), *past][: self.order]
                order = min(self.order, left) if self.steps < self.easing else self.order
                x = run.noise_step(x, now, ahead, combined(past[:order], ahead, _lambda, now.lam - ahead.lam))
            else:
                x = run.euler_step(x, now, ahead, estimate.x0)
            yield x


@dataclass(frozen=True)
class ExponentialAdams(_Adams):
    """x0 as a polynomial in lambda, integrated against d kappa = e^lambda d lambda (xEAB; DPM-Solver++ without its
    simplified second order). A step that touches a <= 0 or s = 0 is an Euler step."""

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        past: Past = []
        for now, ahead in run.steps:
            x0 = direction = run.x0(x, now)
            if now.regular and ahead.regular:
                past = [(now, x0), *past][: self.order]
                direction = combined(past, ahead, _lambda, ahead.lam - now.lam)
            x = run.data_step(x, now, ahead, direction)
            yield x


def combined(past: Past, ahead: Node, variable: Callable[[Node], Weight], growth: Weight | None = None) -> Tensor:
    """Mean over the step from past[0] to `ahead` of the polynomial in `variable` through `past`.

    The mean is weighted by e^(growth tau), tau from 0 to 1, where `growth` is given.
    """
    if len(past) == 1:
        return past[0][1]
    now = variable(past[0][0])
    step = variable(ahead) - now
    points: list[Weight] = [0.0, *((variable(node) - now) / step for node, _ in past[1:])]
    moments: list[Weight] = [1 / (k + 1) for k in range(len(past))]
    if growth is not None:
        moments = exponential_moments(growth, len(past))
    weights = vandermonde(points, moments)
    return weighted(past[0][1], *((c, value) for c, (_, value) in zip(weights, past, strict=True)))


def exponential_moments(h: Weight, count: int) -> list[Weight]:
    """Means of tau^k, k < count, under the density e^(h tau) on [0, 1]: by recursion, or by a series for small h."""
    if isinstance(h, Tensor):
        small = h.abs() < 1
        safe = torch.where(small, torch.full_like(h, 2.0), h)
        pairs = zip(_series(torch.where(small, h, 0.0), count), _recursion(safe, count), strict=True)
        return [torch.where(small, torch.as_tensor(series), recursion) for series, recursion in pairs]
    return _series(h, count) if abs(h) < 1 else _recursion(h, count)


def _recursion(h: Weight, count: int) -> list[Weight]:
    """I_k = (e^h - k I_(k-1))/h, I_0 = (e^h - 1)/h, over I_0; times e^-h, which keeps large h finite."""
    first = -expm1(-h) / h
    moments, last = [1.0 + 0.0 * h], first
    for k in range(1, count):
        last = (1 - k * last) / h
        moments.append(last / first)
    return moments


def _series(h: Weight, count: int) -> list[Weight]:
    """I_k = sum over n of h^n/(n! (n + k + 1)), over I_0."""
    integrals = [sum(h**n / (math.factorial(n) * (n + k + 1)) for n in range(20)) for k in range(count)]
    return [integral / integrals[0] for integral in integrals]


def _kappa(node: Node) -> Weight:
    return 0.0 if node.noiseless else node.a / node.s


def _lambda(node: Node) -> Weight:
    return node.lam
