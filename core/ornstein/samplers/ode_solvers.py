"""Solvers of the one probability flow, dw/dkappa = x0 with w = (x - b y)/s and kappa = a/s.

They form their weights from (a, s), so that a <= 0 and s = 0 are ordinary: lambda = log kappa is taken only where it
exists, and a step that touches another place is of first order. On a bridge s_T = 0: w_T = 0 there is the published
deterministic output; `random_start` draws w_T ~ N(0, I), the law of the flow.

Where the denoiser estimates the observation, yhat moves along the flow as x0hat does: d(x/s) = x0 d(a/s) + y d(b/s),
d(x/a) = noise d(s/a) + y d(b/a). A prediction then carries yhat beside it, (2, B, *), and what a solver makes of
several predictions it makes of both. That keeps the order 2, but no more.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.estimate import Estimate
from ornstein.noise import Noise
from ornstein.process.affine import Process
from ornstein.samplers.base import Sampler, SamplingError, drawn
from ornstein.samplers.weights import Node, Scaling, Weight, nodes_at, weighted

Direction = Callable[[Tensor], Tensor]
"""Changes a direction before the step is taken; keeps what it remembers for one run."""


class Prediction(NamedTuple):
    """What a call says, (B, *) each, or (2, B, *) with the observation that it estimates."""

    x0: Tensor
    noise: Tensor


class Run:
    """One run of a solver: its nodes, its calls of the denoiser and the two exact steps all solvers are made of."""

    def __init__(
        self,
        denoiser: DenoiserLike,
        nodes: list[Node],
        y: Tensor | None = None,
        noise: Noise | None = None,
        condition: dict[str, Tensor] | None = None,
        random_start: bool = False,
    ) -> None:
        self.process = denoiser.process
        self.nodes = nodes
        self.steps = list(pairwise(nodes))
        self.direction: Direction = lambda value: value  # of x0 or the noise that holds for a step
        self.increment: Direction | None = None  # of what a step adds to its multiple of w, or of u
        self.increment_of_w = True
        self._denoiser, self._y, self._noise, self._condition = denoiser, y, noise, condition or {}
        self._random_start, self._scaling = random_start, Scaling(self.process)
        self._start: Tensor | None = None
        self._seen = y if self.process.observed else None  # the first call gives it where the denoiser estimates it

    def estimate(self, x: Tensor, node: Node) -> Prediction:
        """Call the denoiser."""
        estimate = self._ask(x, node)
        if self._seen is None or self._seen is self._y:
            return Prediction(estimate.x0, estimate.noise)
        return Prediction(torch.stack([estimate.x0, self._seen]), torch.stack([estimate.noise, self._seen]))

    def x0(self, x: Tensor, node: Node) -> Tensor:
        """The clean signal seen from `x`."""
        return self.estimate(x, node).x0

    def x0_alone(self, x: Tensor, node: Node) -> Tensor:
        """The same, always (B, *): steps with it take the last observation that the denoiser estimated."""
        return self._ask(x, node).x0

    def noise(self, x: Tensor, node: Node) -> Tensor:
        """The unit noise seen in `x`."""
        return self.estimate(x, node).noise

    def data_step(self, x: Tensor, now: Node, ahead: Node, x0: Tensor) -> Tensor:
        """w' = w + (kappa' - kappa) x0, that is u' = (s'/s) u + (a' - a s'/s) x0; s' = 0 returns a' x0 + b' y."""
        if now.noiseless:
            return self.euler_step(x, now, ahead, self.direction(x0))
        ratio = ahead.s / now.s
        return self._move(x, now, ahead, ratio, ahead.a - now.a * ratio, self.direction(x0))

    def euler_step(self, x: Tensor, now: Node, ahead: Node, x0: Tensor) -> Tensor:
        """`data_step` as it is: what a solver of the noise falls back on, whose direction is not x0."""
        ratio = 0.0 if now.noiseless else ahead.s / now.s
        start = self._start_noise(x) if now.noiseless else None
        x0, y = self._parts(x, x0)
        known = (ahead.a - now.a * ratio, x0), (ahead.b - now.b * ratio, y)
        return weighted(x, (ratio, x), *known, (ahead.s, start))

    def noise_step(self, x: Tensor, now: Node, ahead: Node, noise: Tensor) -> Tensor:
        """u'/a' = u/a + (s'/a' - s/a) noise, for a > 0."""
        ratio = ahead.a / now.a
        return self._move(x, now, ahead, ratio, ahead.s - now.s * ratio, self.direction(noise))

    def heun_step(self, x: Tensor, now: Node, ahead: Node) -> Tensor:
        """The trapezoidal rule in s/a on the noise, two calls; `euler_step`, one call, where lambda does not exist."""
        first = self.estimate(x, now)
        if not (now.regular and ahead.regular):
            return self.euler_step(x, now, ahead, first.x0)
        predicted = self.noise_step(x, now, ahead, first.noise)
        return self.noise_step(x, now, ahead, (first.noise + self.noise(predicted, ahead)) / 2)

    def towards_noise(self, x: Tensor, now: Node, ahead: Node) -> Tensor:
        """a' x0 + b' y + s' noise with one call, the step as DDIM writes it."""
        estimate = self._ask(x, now)
        change = self.direction if self.increment is None else self._changed
        noise = self._start_noise(x) if now.noiseless else change(estimate.noise)
        return weighted(x, (ahead.a, estimate.x0), (ahead.b, self._seen), (ahead.s, noise))

    def scaled(self, x: Tensor, node: Node) -> Tensor:
        """u/a = (x - b y)/a."""
        if self.process.observed and self._seen is None:
            raise SamplingError("this sampler moves x before its first call; give it the observation y")
        return weighted(x, (1 / node.a, x), (-node.b / node.a, self._seen))

    def unscaled(self, scaled: Tensor, node: Node) -> Tensor:
        """x of u/a."""
        return weighted(scaled, (node.a, scaled), (node.b, self._seen))

    def carried(self, x: Tensor, now: Node, other: Node) -> Tensor:
        """`x` at another node with the same u/a."""
        return self.unscaled(self.scaled(x, now), other)

    def add_noise(self, x: Tensor, std: Weight) -> Tensor:
        """x + std z."""
        return weighted(x, (1.0, x), (std, self.draw(x)))

    def draw(self, like: Tensor) -> Tensor:
        """Unit noise."""
        return self._scaling(drawn(self._noise, like))

    def between(self, fraction: float, targets: list[float] | None = None) -> list[Node]:
        """For every step the node that part of the way to its end in lambda, or to the kappa of `targets` instead; the
        end itself where lambda does not exist."""
        kappa = torch.tensor([node.kappa for node in self.nodes], dtype=torch.float64)
        ends = kappa[1:] if targets is None else torch.tensor(targets, dtype=torch.float64)
        regular = torch.tensor([now.regular and ahead.regular for now, ahead in self.steps])
        inside = torch.where(regular, kappa[:-1], 1.0) ** (1 - fraction) * torch.where(regular, ends, 1.0) ** fraction
        times = torch.stack([node.t for node in self.nodes[1:]])
        return nodes_at(self.process, torch.where(regular, self.process.time_at_kappa(inside), times))

    def _move(self, x: Tensor, now: Node, ahead: Node, ratio: Weight, weight: Weight, direction: Tensor) -> Tensor:
        direction, y = self._parts(x, direction)
        # towards s = 0 what is added to w outgrows all that was added before, so no memory of it can turn it
        if self.increment is not None and not (self.increment_of_w and ahead.noiseless):
            unit = ahead.s if self.increment_of_w else 1.0
            weight, direction = unit, self._changed(weighted(x, (weight / unit, direction)))
        return weighted(x, (ratio, x), (weight, direction), (ahead.b - now.b * ratio, y))

    def _changed(self, increment: Tensor) -> Tensor:
        """`increment` of w times the map of noise levels, or of u, as `self.increment` has it."""
        assert self.increment is not None
        if not self.increment_of_w:
            return self.increment(increment)
        return self._scaling(self.increment(self._scaling.undone(increment)))

    def _ask(self, x: Tensor, node: Node) -> Estimate:
        estimate = self._denoiser(x, node.t, self._y, **self._condition)
        if (noise := self._scaling(estimate.noise)) is not estimate.noise:
            estimate = replace(estimate, noise=noise)
        self._seen = self.process.require(estimate.y)
        return estimate

    def _parts(self, x: Tensor, direction: Tensor) -> tuple[Tensor, Tensor | None]:
        """A direction and the observation that goes with it."""
        return (direction[0], direction[1]) if direction.ndim > x.ndim else (direction, self._seen)

    def _start_noise(self, x: Tensor) -> Tensor | None:
        if self._random_start and self._start is None:
            self._start = self.draw(x)
        return self._start


@dataclass(frozen=True)
class FlowSolver(Sampler):
    """A sampler made of exact steps of the probability flow between the nodes of a grid."""

    random_start: bool = False

    @property
    def stochastic(self) -> bool:
        return self.random_start

    def trajectory(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        **condition: Tensor,
    ) -> Iterator[Tensor]:
        nodes = nodes_at(denoiser.process, self.times(denoiser.process))
        yield from self.solve(Run(denoiser, nodes, y, noise, condition, self.random_start), x)

    @abstractmethod
    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        """Yield the state after every step, from `x` at the first node."""


@dataclass(frozen=True)
class Euler(FlowSolver):
    """x0 held constant over the step. First order; the same as DDIM, and as Euler in s/a (k-diffusion)."""

    @property
    def convergence_order(self) -> int | None:
        return 1

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        for now, ahead in run.steps:
            x = run.data_step(x, now, ahead, run.x0(x, now))
            yield x


class TwoCallSolver(FlowSolver):
    """A solver that asks twice in a step on which lambda exists, and once in another."""

    def evaluations(self, process: Process) -> int:
        nodes = nodes_at(process, self.times(process))
        return sum(2 if now.regular and ahead.regular else 1 for now, ahead in pairwise(nodes))


@dataclass(frozen=True)
class Heun(TwoCallSolver):
    """Trapezoidal rule in rho = s/a on the noise (Karras et al. 2022, algorithm 1). Second order, two calls a step.

    A step that starts where a <= 0 or s = 0, or ends at s = 0, is an Euler step with one call.
    """

    @property
    def convergence_order(self) -> int | None:
        return 2

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        for now, ahead in run.steps:
            x = run.heun_step(x, now, ahead)
            yield x


def one_call_a_step(base: FlowSolver, like: Sampler, process: Process) -> FlowSolver:
    """`base` with the steps and the grid of `like`.

    Raises:
        UserError: it is no solver of the flow, or calls more often than once a step.
    """
    if not isinstance(base, FlowSolver):
        raise UserError(f"{type(like).__name__} changes a solver of the flow, such as DPMSolverPP, not {base!r}")
    solver = replace(base, steps=like.steps, grid=like.grid)
    if solver.evaluations(process) != like.steps:
        raise UserError(f"{type(like).__name__} needs a base of one call a step, which {type(base).__name__} is not")
    return solver


def require_base(solver: FlowSolver, refused: type[FlowSolver], why: str) -> None:
    """Raise UserError where the base of `solver`, or the base of that, is `refused`."""
    base = getattr(solver, "base", None)
    while base is not None:
        if isinstance(base, refused):
            raise UserError(
                f"{type(solver).__name__} does not take {refused.__name__} as its base: {why}; take another base, "
                "such as DPMSolverPP"
            )
        base = getattr(base, "base", None)
