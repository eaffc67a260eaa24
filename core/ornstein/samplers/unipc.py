"""UniPC: a predictor and a corrector that share their calls."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ornstein.errors import UserError
from ornstein.samplers.dpm_multistep import Past
from ornstein.samplers.ode_solvers import FlowSolver, Run
from ornstein.samplers.weights import Node, Weight, expm1, vandermonde, weighted


@dataclass(frozen=True)
class UniPC(FlowSolver):
    """UniPC-p in x0 (Zhao et al. 2023, algorithms 5 to 8): one call a step.

    The call at the predicted state corrects that state and serves the next step too. The order falls to 1
    towards the last step, as published, so that a whole run is of second order. A step that touches a <= 0 or s = 0 is
    of first order and is not corrected.
    """

    order: int = 2
    """p, 1 to 3."""
    variant: Literal["bh1", "bh2"] = "bh2"
    """B(h) = h or e^h - 1."""
    corrector: bool = True

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise UserError(f"UniPC has the orders 1, 2 and 3, not {self.order}")
        if self.variant not in ("bh1", "bh2"):
            raise UserError(f"UniPC has the variants bh1 and bh2, not {self.variant!r}")

    @property
    def convergence_order(self) -> int | None:
        return 1 if self.order == 1 and not self.corrector else 2

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        past: Past = []
        before, order = x, 0
        for left, (now, ahead) in zip(range(self.steps, 0, -1), run.steps, strict=True):
            x0 = run.x0(x, now)
            if self.corrector and past and past[0][0].regular and now.regular:
                x = run.data_step(before, past[0][0], now, self._direction(past[:order], now, x0))
            past = [(now, x0), *past][: self.order]
            order = min(self.order, left, len(past))
            before, x = x, run.data_step(x, now, ahead, self._direction(past[:order], ahead))
            yield x

    def _direction(self, past: Past, ahead: Node, x0_ahead: Tensor | None = None) -> Tensor:
        """m + (B/(e^-h - 1)) sum of rho_j D_j, D_j the difference to node j over r_j.

        With `x0_ahead` it is the corrector.
        """
        now, m = past[0]
        if not (now.regular and ahead.regular):
            return m
        h = ahead.lam - now.lam
        others: list[tuple[Weight, Tensor]] = [((n.lam - now.lam) / h, v) for n, v in past[1:] if n.regular]
        if x0_ahead is not None:
            others.append((1.0, x0_ahead))
        if not others:
            return m
        ratio = 1.0 if self.variant == "bh2" else -h / expm1(-h)
        points = [r for r, _ in others]
        if len(others) == 1:
            rho: list[Weight] = [0.5]  # the published simplification, second order like the solution of the system
        else:
            rho = vandermonde(points, self._moments(h, len(others)))
        weights = [ratio * c / r for c, r in zip(rho, points, strict=True)]
        return weighted(m, (1 - sum(weights), m), *((w, v) for w, (_, v) in zip(weights, others, strict=True)))

    def _moments(self, h: Weight, count: int) -> list[Weight]:
        """b_k = k! g_k/B with g_1 = (e^-h - 1)/(-h) - 1 and g_(k+1) = g_k/(-h) - 1/(k + 1)!."""
        scale = expm1(-h) if self.variant == "bh2" else -h
        g, moments = expm1(-h) / -h - 1, []
        for k in range(1, count + 1):
            moments.append(g * math.factorial(k) / scale)
            g = g / -h - 1 / math.factorial(k + 1)
        return moments
