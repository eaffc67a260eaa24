"""Momentum against the artifacts of few steps: heavy ball, Nesterov and generalised heavy ball (Wizadwongsa et al.
2023, arXiv 2307.11118)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from ornstein.errors import UserError
from ornstein.process.affine import Process
from ornstein.samplers.lml import DDIMBase
from ornstein.samplers.ode_solvers import FlowSolver, Run, one_call_a_step, require_base
from ornstein.samplers.pndm import PLMS
from ornstein.samplers.weights import weighted

GHVB_WEIGHTS = (
    (1, ((0, 1),)),
    (2, ((2, 1), (-2, 1))),
    (12, ((18, 5), (-24, 8), (6, -1))),
    (24, ((46, 9), (-78, 19), (42, -5), (-10, 1))),
    (720, ((1650, 251), (-3420, 646), (2880, -264), (-1380, 106), (270, -19))),
)
"""For k = 1 to 5 the divisor and the pairs (p, q) of the weights p + q beta, newest velocity first."""


@dataclass(frozen=True)
class HeavyBall(FlowSolver):
    """v <- (1 - beta) v + beta p in place of the direction p of `base` (HB; their algorithm 1). First order whatever
    the base, but on `DDIMBase`, which is refused; beta = 1 is the base.

    `nesterov` moves along (1 - beta) v + beta p with the new v (NT). `base` must take one step a call; its own steps
    and grid are not used.
    """

    base: FlowSolver = PLMS(corrected_start=False)
    beta: float = 0.8
    nesterov: bool = False
    plain_first: bool = False
    """The first step without momentum, as published on DPM-Solver++ 2M."""
    plain_last: bool = False
    """The last step without momentum, as published there below 15 steps."""

    def __post_init__(self) -> None:
        _require_damping(self.beta)
        require_base(self, HeavyBall, "only the inner of the two would act")
        require_base(self, DDIMBase, "there it does not converge")

    @property
    def convergence_order(self) -> int | None:
        order = self.base.convergence_order
        return order if self.beta == 1 or order is None else 1

    @property
    def stochastic(self) -> bool:
        return self.base.stochastic or super().stochastic

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        velocity: Tensor | None = None
        taken = 0

        def with_momentum(p: Tensor) -> Tensor:
            nonlocal velocity, taken
            taken += 1
            if (taken == 1 and self.plain_first) or (taken == self.steps and self.plain_last):
                return p
            velocity = p if velocity is None else (1 - self.beta) * velocity + self.beta * p
            return (1 - self.beta) * velocity + self.beta * p if self.nesterov else velocity

        run.direction = with_momentum
        yield from one_call_a_step(self.base, self, run.process).solve(run, x)

    def evaluations(self, process: Process) -> int | None:
        return one_call_a_step(self.base, self, process).evaluations(process)


@dataclass(frozen=True)
class GHVB(FlowSolver):
    """Generalised heavy ball on the noise in rho = s/a (their algorithm 2): v <- (1 - beta) v + beta noise, and the
    last k velocities combined so that the order is k - 1 + beta in the sense of stability, k where beta = 1 (PLMS).

    `order` q: k = ceil(q), beta = the fraction of q, or 1. A step from a <= 0 is Euler.
    """

    order: float = 2.5

    def __post_init__(self) -> None:
        if not 0 < self.order <= 5:
            raise UserError(f"GHVB has orders above 0, up to 5, not {self.order}")

    @property
    def convergence_order(self) -> int | None:
        return min(math.ceil(self.order), 2)

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        beta = self.order - math.floor(self.order) or 1.0
        velocities: list[Tensor] = []
        for now, ahead in run.steps:
            estimate = run.estimate(x, now)
            if now.regular:
                z = estimate.noise
                velocity = z if not velocities else weighted(x, (1 - beta, velocities[0]), (beta, z))
                velocities = [velocity, *velocities][: math.ceil(self.order)]
                divisor, pairs = GHVB_WEIGHTS[len(velocities) - 1]
                weights = [(p + q * beta) / (divisor * beta) for p, q in pairs]
                x = run.noise_step(x, now, ahead, weighted(x, *zip(weights, velocities, strict=True)))
            else:
                x = run.euler_step(x, now, ahead, estimate.x0)
            yield x


def _require_damping(beta: float) -> None:
    if not 0 < beta <= 1:
        raise UserError(f"the damping beta is {beta}; it lies above 0, up to 1")
