"""DPM-Solver and DPM-Solver++ with several past calls, deterministic and stochastic."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ornstein.errors import UserError
from ornstein.samplers.ode_solvers import FlowSolver, Run
from ornstein.samplers.weights import Node, Weight, exp, expm1, root, weighted

Past = list[tuple[Node, Tensor]]
"""Nodes and predictions there, newest first."""


@dataclass(frozen=True)
class DPMSolverPP(FlowSolver):
    """DPM-Solver++ of `order` 1, 2 or 3 in x0, with noise scaled by `eta` (Lu et al. 2022, algorithm 2 and appendix D).

    With h = lambda' - lambda: w' = e^(-eta h) w + (kappa' - kappa e^(-eta h)) D + sqrt(1 - e^(-2 eta h)) z in units of
    s'. eta = 0 is 2M or 3M, eta = 1 SDE-DPM-Solver++. A step that touches a <= 0 or s = 0 is of first order.
    """

    order: int = 2
    eta: float = 0.0
    second: Literal["midpoint", "heun"] = "midpoint"
    """Form of the second-order term: D = m + (m - m_1)/(2 r), or with the exact integral of the slope."""
    easing: int = 0
    """With fewer steps than this the order falls to 1 towards the last step (diffusers lowers it below 15)."""

    def __post_init__(self) -> None:
        _require_order(self.order)
        if self.second not in ("midpoint", "heun"):
            raise UserError(f"the second-order term has the forms midpoint and heun, not {self.second!r}")
        if not self.eta >= 0:
            raise UserError(f"eta scales the noise and is not negative, got {self.eta}")

    @property
    def convergence_order(self) -> int | None:
        return 1 if self.eta > 0 else min(self.order, 2)

    @property
    def stochastic(self) -> bool:
        return self.eta > 0 or super().stochastic

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        past: Past = []
        for left, (now, ahead) in zip(range(self.steps, 0, -1), run.steps, strict=True):
            past = [(now, run.x0(x, now)), *past[: self.order - 1]]
            order = min(self.order, left) if self.steps < self.easing else self.order
            keep = contraction(now, ahead, self.eta)
            direction = extrapolated(past[:order], ahead, 1 + self.eta, self.second)
            x = run.data_step(x, now, ahead.keeping(keep), direction)
            if self.eta > 0 and not ahead.noiseless:
                x = run.add_noise(x, ahead.s * root(1 - keep**2))
            yield x


@dataclass(frozen=True)
class DPMSolver(FlowSolver):
    """DPM-Solver of `order` 1, 2 or 3 in the noise with past calls (Lu et al. 2022, multistep form).

    u'/a' = u/a + (rho' - rho) E with rho = s/a. A step that touches a <= 0 or s = 0 is of first order.
    """

    order: int = 2
    easing: int = 0
    """With fewer steps than this the order falls to 1 towards the last step."""

    def __post_init__(self) -> None:
        _require_order(self.order)

    @property
    def convergence_order(self) -> int | None:
        return min(self.order, 2)

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        past: Past = []
        for left, (now, ahead) in zip(range(self.steps, 0, -1), run.steps, strict=True):
            estimate = run.estimate(x, now)
            past = [(now, estimate.noise), *past[: self.order - 1]]
            order = min(self.order, left) if self.steps < self.easing else self.order
            if now.regular and ahead.regular:
                x = run.noise_step(x, now, ahead, extrapolated(past[:order], ahead, -1.0))
            else:
                x = run.euler_step(x, now, ahead, estimate.x0)
            yield x


def contraction(now: Node, ahead: Node, eta: float) -> Weight:
    """e^(-eta h), what a stochastic step keeps of the noise; 0 where lambda does not exist."""
    if eta == 0:
        return 1.0
    return exp(eta * (now.lam - ahead.lam)) if now.regular and ahead.regular else 0.0


def extrapolated(past: Past, ahead: Node, scale: float, second: Literal["midpoint", "heun"] = "midpoint") -> Tensor:
    """The prediction that, held over the step to `ahead`, gives the published step with len(past) calls; H = scale h.

    m + (p2/p1) D1 - (p3/p1) D2, p1 = 1 - e^-H, p2 = 1 - p1/H, p3 = 1/2 - p2/H; D1 and D2 are the first two differences
    of the predictions in lambda in units of h. x0 wants scale 1, noise scale -1. With three calls
    D2 has, as published, half the weight of a third-order method.
    """
    now, m = past[0]
    past = [(node, value) for node, value in past if node.regular] if ahead.regular and now.regular else past[:1]
    if len(past) < 2:
        return m
    h = ahead.lam - now.lam
    r0 = (now.lam - past[1][0].lam) / h
    p1, p2, p3 = _phi(scale * h)
    if len(past) == 2:
        slope = (0.5 if second == "midpoint" else p2 / p1) / r0
        return weighted(m, (1 + slope, m), (-slope, past[1][1]))
    r1 = (past[1][0].lam - past[2][0].lam) / h
    # D1 = a + r0/(r0 + r1) (a - b), D2 = (a - b)/(r0 + r1) with a = (m - m_1)/r0, b = (m_1 - m_2)/r1
    of_a = p2 / p1 * (1 + r0 / (r0 + r1)) - p3 / p1 / (r0 + r1)
    of_b = -p2 / p1 * r0 / (r0 + r1) + p3 / p1 / (r0 + r1)
    return weighted(m, (1 + of_a / r0, m), (of_b / r1 - of_a / r0, past[1][1]), (-of_b / r1, past[2][1]))


def _phi(h: Weight) -> tuple[Weight, Weight, Weight]:
    p1 = -expm1(-h)
    p2 = 1 - p1 / h
    return p1, p2, p2 / h - 0.5


def _require_order(order: int) -> None:
    if order not in (1, 2, 3):
        raise UserError(f"DPM-Solver has the orders 1, 2 and 3, not {order}")
