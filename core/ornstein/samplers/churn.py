"""Heun with churn, the stochastic sampler of EDM."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.samplers.ode_solvers import Run, TwoCallSolver
from ornstein.samplers.weights import Node, nodes_at, root, weighted


@dataclass(frozen=True)
class ChurnedHeun(TwoCallSolver):
    """Every step first adds noise, up to rho_hat = (1 + gamma) rho, then goes down by Heun (Karras et al. 2022,
    algorithm 2); rho = s/a.

    gamma = min(churn/steps, sqrt(2) - 1) where rho lies in [rho_min, rho_max], else 0. A step is not raised above T,
    nor churned where a <= 0 or s = 0.
    """

    steps: int = 18
    churn: float = 40.0
    rho_min: float = 0.05
    rho_max: float = 50.0
    noise_scale: float = 1.003
    """Standard deviation of the noise added, in units of the noise that would be right."""

    def __post_init__(self) -> None:
        if not (self.churn >= 0 and self.noise_scale >= 0):
            raise UserError(f"churn and noise_scale are not negative, got {self.churn} and {self.noise_scale}")
        if not self.rho_min <= self.rho_max:
            raise UserError(f"no s/a lies between {self.rho_min} and {self.rho_max}; give rho_min <= rho_max")

    @property
    def convergence_order(self) -> int | None:
        return 2 if self.churn == 0 else None

    @property
    def stochastic(self) -> bool:
        return self.churn > 0 or super().stochastic

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        for (now, ahead), above in zip(run.steps, self._above(run), strict=True):
            if above is not now:
                excess = root((above.s / above.a) ** 2 - (now.s / now.a) ** 2)
                x = weighted(x, (1.0, run.carried(x, now, above)), (above.a * excess * self.noise_scale, run.draw(x)))
            x = run.heun_step(x, above, ahead)
            yield x

    def _above(self, run: Run) -> list[Node]:
        """The churned node of every step, or its own where nothing is added."""
        gamma = min(self.churn / self.steps, math.sqrt(2) - 1)
        nodes = run.nodes[:-1]
        churned = [node.regular and gamma > 0 and self.rho_min <= 1 / node.kappa <= self.rho_max for node in nodes]
        targets = [
            node.kappa / (1 + gamma) if is_churned else 1.0 for node, is_churned in zip(nodes, churned, strict=True)
        ]
        raised = nodes_at(run.process, run.process.time_at_kappa(torch.tensor(targets, dtype=torch.float64)))
        rises = [
            is_churned and up.regular and up.kappa < node.kappa
            for up, node, is_churned in zip(raised, nodes, churned, strict=True)
        ]
        return [up if rise else node for up, node, rise in zip(raised, nodes, rises, strict=True)]
