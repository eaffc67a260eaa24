"""Multistep sampling with a consistency model."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from ornstein.errors import UserError
from ornstein.samplers.ode_solvers import FlowSolver, Run
from ornstein.samplers.weights import root, weighted


@dataclass(frozen=True)
class Consistency(FlowSolver):
    """x0 = f(x, t), then fresh noise of the next level (Song et al. 2023, algorithm 1): u' = a' x0 + sqrt(s'^2 - (a'
    rho_min)^2) z.

    For networks that give the end of the flow instead of the conditional mean of x0; `rho_min` is the s/a at which the
    network was taught to stop.
    """

    rho_min: float = 0.002

    def __post_init__(self) -> None:
        if not self.rho_min >= 0:
            raise UserError(f"rho_min is a ratio s/a and not negative, got {self.rho_min}")

    @property
    def stochastic(self) -> bool:
        return True

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        for now, ahead in run.steps:
            x = run.data_step(x, now, ahead.keeping(0.0), run.x0(x, now))
            if not ahead.noiseless:
                x = weighted(x, (1.0, x), (root(ahead.s**2 - (self.rho_min * ahead.a) ** 2), run.draw(x)))
            yield x
