"""PNDM without Runge-Kutta warm-up, the PLMS sampler of latent diffusion."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from ornstein.errors import UserError
from ornstein.process.affine import Process
from ornstein.samplers.ode_solvers import FlowSolver, Run
from ornstein.samplers.weights import nodes_at, weighted

ADAMS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""Adams-Bashforth weights of equal steps, newest first."""


@dataclass(frozen=True)
class PLMS(FlowSolver):
    """Adams-Bashforth on the noise with the coefficients of equal steps (Liu et al. 2022, equation 12).

    The steps are hardly ever equal in rho = s/a. Where they change smoothly the order is still 2 (1.95 measured by
    benchmarks/solver_table.py), on equal ones with an exact history it is that of its calls; `LMS` is the exact form.
    A step from a <= 0 is Euler.
    """

    order: int = 4
    """Calls that are combined, 1 to 4; fewer while there are not as many."""
    corrected_start: bool = True
    """Correct the first step by the trapezoidal rule, as published: one call more than steps."""

    def __post_init__(self) -> None:
        if not isinstance(self.order, int) or not 1 <= self.order <= 4:
            raise UserError(f"PLMS has the orders 1 to 4, not {self.order}")

    @property
    def convergence_order(self) -> int | None:
        return min(self.order, 2)

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        past: list[Tensor] = []
        for now, ahead in run.steps:
            estimate = run.estimate(x, now)
            if not now.regular:
                x = run.euler_step(x, now, ahead, estimate.x0)
            elif self.corrected_start and not past and ahead.regular:
                past = [estimate.noise]
                predicted = run.noise_step(x, now, ahead, estimate.noise)
                x = run.noise_step(x, now, ahead, (estimate.noise + run.noise(predicted, ahead)) / 2)
            else:
                past = [estimate.noise, *past][: self.order]
                x = run.noise_step(x, now, ahead, weighted(x, *zip(ADAMS[len(past) - 1], past, strict=True)))
            yield x

    def evaluations(self, process: Process) -> int:
        steps = list(pairwise(nodes_at(process, self.times(process))))
        first = next((ahead.regular for now, ahead in steps if now.regular), False)
        return self.steps + int(self.corrected_start and first)
