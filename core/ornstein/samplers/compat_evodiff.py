"""EVODiff with the last step and the divisors of the published code (arXiv 2509.26096)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.process.affine import expand
from ornstein.samplers.evodiff import EVODiff
from ornstein.samplers.ode_solvers import Run
from ornstein.samplers.weights import root


@dataclass(frozen=True)
class PublishedEVODiff(EVODiff):
    """The last step is (1 - sqrt(rho rho')) x_E + rho' h (m0 - c m1)/2 in u/a, with the Euler step x_E,
    h = 1/rho' - 1/rho and c = 1 - sqrt(q)/2, from q = rho'/rho = 1/2 on 1 - sqrt(q - 1/2)/2.

    It shrinks u/a and adds a share of x0 however short the step is: a few percent at the published end rho' = 0.002, a
    wrong sample where the last regular level is higher. More steps do not mend it. No correction is limited, so steps
    that are unlike in log(rho), as those alike in t on a table, may end far away.
    """

    @property
    def convergence_order(self) -> int | None:
        return None

    def limited(self, change: Tensor, *corrections: tuple[Tensor, Tensor]) -> list[Tensor]:
        return [divisor for _, divisor in corrections]

    def last_step(self, run: Run, i: int, euler: Tensor, m0: Tensor, m1: Tensor) -> Tensor:
        now, ahead = run.steps[i]
        k0, k = (expand(rho, euler) if isinstance(rho, Tensor) else rho for rho in (now.rho, ahead.rho))
        q, h = k / k0, 1 / k - 1 / k0
        if isinstance(q, Tensor):
            c = 1 - 0.5 * torch.where(q < 0.5, q, q - 0.5).sqrt()
        else:
            c = 1 - 0.5 * (q if q < 0.5 else q - 0.5) ** 0.5
        moved = (1 - root(k * k0)) * run.scaled(euler, ahead) + 0.5 * k * h * (m0 - c * m1)
        return run.unscaled(moved, ahead)
