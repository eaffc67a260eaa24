"""Levenberg-Marquardt-Langevin: a damped rank-one preconditioner of the direction (arXiv 2505.24222)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.process.affine import Process, expand
from ornstein.samplers.consistency import Consistency
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.ode_solvers import FlowSolver, Run, one_call_a_step, require_base

TINY = 1e-100
"""In place of a square that is 0, in float64."""


@dataclass(frozen=True)
class DDIMBase(FlowSolver):
    """A base of LML: Euler as DDIM writes it, a' x0 + s' noise, so that what changes the direction leaves x0 alone."""

    @property
    def convergence_order(self) -> int | None:
        return 1

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        for now, ahead in run.steps:
            x = run.towards_noise(x, now, ahead)
            yield x


@dataclass(frozen=True)
class LML(FlowSolver):
    """q = e - m <e, m>/(lam + <m, m>) in place of the increment e of `base`, scaled to |e|; m = memory e_prev + (1 -
    memory) e, inner products of whole samples.

    The increment is what a step adds to its multiple of w = (x - b y)/s, the same on every process; the step to s = 0
    is that of the base. On `DDIMBase` it is the noise, which leaves x0 alone; with memory that base does not converge
    to the flow, since a step turns the noise as far however short it is.

    With memory 0, the default of the published scripts, q is parallel to e, so the method is exactly its base: nothing
    is computed then. `base` must take one step a call; its own steps and grid are not used.
    """

    base: FlowSolver = DPMSolverPP(order=1)
    damping: float = 10.0
    memory: float = 0.5
    relative: bool = True
    """lam = damping <m, m>, which does not depend on the scale of the data. False is the published form: lam =
    damping, and increments of u = x - b y."""

    def __post_init__(self) -> None:
        require_base(self, LML, "only the inner of the two would act")
        require_base(self, Consistency, "it draws its noise anew, so a step has no increment to change")
        if not (self.damping > 0 and 0 <= self.memory < 1):
            raise UserError(f"LML needs damping > 0 and memory in [0, 1), got {self.damping} and {self.memory}")
        if self.relative and self.damping < 1:
            raise UserError(
                f"relative damping {self.damping} below 1 removes most of the direction; raise it to 1 or more"
            )

    @property
    def convergence_order(self) -> int | None:
        if self.memory == 0:
            return self.base.convergence_order
        converges = self.base.convergence_order is not None and not isinstance(self.base, DDIMBase)
        return 1 if converges and self.relative else None

    @property
    def stochastic(self) -> bool:
        return self.base.stochastic or super().stochastic

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        previous: Tensor | None = None

        def preconditioned(e: Tensor) -> Tensor:
            nonlocal previous
            mean = e if previous is None else self.memory * previous + (1 - self.memory) * e
            first, previous = previous is None, e
            if self.memory == 0 or first:
                return e
            square = _inner(mean, mean)
            damped = self.damping * (square if self.relative else 1.0) + square
            q = e - expand(_inner(e, mean) / damped.clamp(min=TINY), e) * mean
            # q is not longer than e; both are 0 where the increment of a sample is
            return expand((_inner(e, e) / _inner(q, q).clamp(min=TINY)).clamp(min=1.0).sqrt(), e) * q

        run.increment, run.increment_of_w = preconditioned, self.relative
        yield from one_call_a_step(self.base, self, run.process).solve(run, x)

    def evaluations(self, process: Process) -> int | None:
        return one_call_a_step(self.base, self, process).evaluations(process)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> of every sample in float64, shape (B,)."""
    wide = torch.complex128 if a.is_complex() else torch.float64
    return (a.to(wide).flatten(1).conj() * b.to(wide).flatten(1)).sum(1).real
