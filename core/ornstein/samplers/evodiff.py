"""EVODiff: a multistep solver whose weights follow the predictions (arXiv 2509.26096)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ornstein.process.affine import expand
from ornstein.samplers.ode_solvers import FlowSolver, Run
from ornstein.samplers.weights import Weight, log, root


@dataclass(frozen=True)
class EVODiff(FlowSolver):
    """Multistep in x0 with weights from inner products of every sample and channel, one call a step.

    It is the sampler published for CIFAR-10, written in u/a and rho = s/a, where its constants (in units of EDM's
    sigma) mean the same on every process. With an exact denoiser it is less accurate than DPM-Solver++ 2M: the
    weights are tuned to learned networks. The first and the last step, and one that touches a <= 0 or s = 0, are Euler
    steps. The published differences hold a share of x0 itself where steps are unlike in lambda, and zeta divides by
    next to nothing in many steps; so every correction is limited here, which makes a run one of first order on any
    grid. `ornstein.samplers.compat_evodiff` has the published last step and no limit.
    """

    minimum_steps = 2

    @property
    def convergence_order(self) -> int | None:
        return 1

    def solve(self, run: Run, x: Tensor) -> Iterator[Tensor]:
        regular = [i for i, (now, ahead) in enumerate(run.steps) if now.regular and ahead.regular] or [-1]
        first, last = regular[0], regular[-1]
        m1 = m0 = x
        called = False  # the call inside a step serves the next one
        along = change = x  # and what it says of the prediction before it
        for i, (now, ahead) in enumerate(run.steps):
            m0 = m0 if called else run.x0_alone(x, now)
            euler = run.data_step(x, now, ahead, m0)
            called = first < i < last
            if not called:
                x = self.last_step(run, i, euler, m0, m1) if first < i == last else euler
                m1 = m0
            else:
                if i == first + 1:
                    along, change = projection(m0, m1), m0 - m1
                step = EVODiffStep(*(_fit(run.nodes[j].rho, x) for j in (i - 1, i, i + 1, first, last + 1)))
                euler = run.scaled(euler, ahead)
                d1, eased = step.first_difference(m0, m1, along)
                eased = self.limited(eased, d1, change)
                guess = plus(euler, 0.5 * step.k * step.h / step.ratio, d1, eased)
                m = run.x0_alone(run.unscaled(guess, ahead), ahead)
                along, change = projection(m, m0), m - m0
                d2 = torch.addcmul(m, step.share(along), m0, value=-1)
                slope, zeta = step.slope(guess - euler, d1, eased, d2, m0, m1, many=len(regular) > 20)
                zeta = self.limited(zeta, slope * step.h, change)
                x, m1, m0 = run.unscaled(plus(euler, step.half, slope, zeta), ahead), m0, m
            yield x

    def limited(self, divisor: Tensor, correction: Tensor, change: Tensor) -> Tensor:
        """The divisor of a correction, raised until the step is no farther from the trapezoidal rule, which corrects by
        `change`, than the Euler step: |c/d - change| <= |change| where d >= <c, c>/(2 <c, change>)."""
        along = projection(change, correction, least=1e-3)  # not 0, where the gradient is no number
        return torch.maximum(divisor, 0.5 / along)

    def last_step(self, run: Run, i: int, euler: Tensor, m0: Tensor, m1: Tensor) -> Tensor:
        """The state after step `i`, the last one that is regular, from that after an Euler step."""
        return euler


@dataclass(frozen=True, eq=False)
class EVODiffStep:
    """One step from rho = k0 (before it k1) to k, in a run from k_first to k_last."""

    k1: Weight
    k0: Weight
    k: Weight
    k_first: Weight
    k_last: Weight

    @cached_property
    def h(self) -> Weight:
        """1/k - 1/k0, the step in kappa."""
        return 1 / self.k - 1 / self.k0

    @cached_property
    def ratio(self) -> Weight:
        """R, the last step in lambda over this one."""
        return log(self.k1 / self.k0) / log(self.k0 / self.k)

    def share(self, along: Tensor) -> Tensor:
        """(1 - w) b + w <m, before>/<before, before>, what of the former prediction is in the new one; `along` is that
        projection."""
        tau = (self.k + self.k_last) / (self.k_first + self.k_last)
        w = 0.5 * (1 - tau**2)
        return (1 - w) * root(self.k / self.k0 * self.k1 / self.k0) + w * along

    @cached_property
    def half(self) -> Weight:
        """s h^2/2, in u/a."""
        return 0.5 * self.k * self.h**2

    def first_difference(self, m0: Tensor, m1: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
        """D1 = m0 - p1 m1 and r_i/R = sigmoid(|p1|/4), which needs no clamp: it lies between 1/2 and 1."""
        p1 = self.share(along)
        return torch.addcmul(m0, p1, m1, value=-1), (0.25 * p1.abs()).sigmoid()

    def slope(
        self, moved: Tensor, d1: Tensor, eased: Tensor, d2: Tensor, m0: Tensor, m1: Tensor, many: bool
    ) -> tuple[Tensor, Tensor]:
        """B/h = (1 - eta) forward - eta backward, the two differences D2 R/h and D1/(R h); and zeta."""
        h, per_h = self.h, 1 / (self.ratio * self.h)
        forward = d2 * (self.ratio / h)
        both = plus(forward, per_h, d1)
        twice_eta = (0.5 * projection(both, plus(forward, -per_h, d1))).abs().sigmoid()
        slope = torch.addcmul(forward, twice_eta, both, value=-0.5)
        z = projection(plus(moved, -self.half / self.ratio, slope, eased), d1).abs() / (h * self.k)
        if not many:
            return slope, (z - 0.5).sigmoid()
        c = (projection(m0, (m0 - m1) / h) * (2 - (self.k / self.k0) ** 2)).sigmoid()
        return slope, ((0.5 - z) * c).sigmoid()


def plus(base: Tensor, weight: Weight, signal: Tensor, divisor: Tensor | None = None) -> Tensor:
    """base + weight signal/divisor, one operation where the weight is a float: here it is they that cost the time."""
    if isinstance(weight, Tensor):
        return base + weight * (signal if divisor is None else signal / divisor)
    if divisor is None:
        return torch.add(base, signal, alpha=weight)
    return torch.addcdiv(base, signal, divisor, value=weight)


def projection(a: Tensor, b: Tensor, least: float = -2.0) -> Tensor:
    """<a, b>/<b, b> over space, for every sample and channel, kept in [`least`, 2]; 0 before that where b = 0."""
    dims = tuple(range(2, a.ndim)) if a.ndim > 2 else (1,)
    dot = (a * b.conj()).real.sum(dims, keepdim=True)
    square = torch.linalg.vector_norm(b, dim=dims, keepdim=True).square()
    return (dot / square.clamp(min=1e-30)).clamp(least, 2)


def _fit(weight: Weight, x: Tensor) -> Weight:
    return expand(weight, x) if isinstance(weight, Tensor) else weight
