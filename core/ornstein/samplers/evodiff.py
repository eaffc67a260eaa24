"""EVODiff: a multistep solver whose weights follow the predictions (arXiv 2509.26096)."""

from collections.abc import Iterator
from dataclasses import dataclass

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
    steps; `ornstein.samplers.compat_evodiff` has the published last step.
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
        for i, (now, ahead) in enumerate(run.steps):
            m0 = m0 if called else run.x0_alone(x, now)
            euler = run.data_step(x, now, ahead, m0)
            called = first < i < last
            if not first < i < last:
                x = self.last_step(run, i, euler, m0, m1) if first < i == last else euler
                m1 = m0
            else:
                step = EVODiffStep(*(_fit(run.nodes[j].rho, x) for j in (i - 1, i, i + 1, first, last + 1)))
                euler = run.scaled(euler, ahead)
                d1, ratio = step.first_difference(m0, m1)
                guess = step.predicted(euler, m0, m1)
                m = run.x0_alone(run.unscaled(guess, ahead), ahead)
                correction = step.correction(guess - euler, d1, ratio, m, m0, m1, many=len(regular) > 20)
                x, m1, m0 = run.unscaled(euler + correction, ahead), m0, m
            yield x

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

    @property
    def h(self) -> Weight:
        """1/k - 1/k0, the step in kappa."""
        return 1 / self.k - 1 / self.k0

    @property
    def ratio(self) -> Weight:
        """R, the last step in lambda over this one."""
        return log(self.k1 / self.k0) / log(self.k0 / self.k)

    def share(self, m: Tensor, before: Tensor) -> Tensor:
        """(1 - w) b + w <m, before>/<before, before>, what of the former prediction is in the new one."""
        tau = (self.k + self.k_last) / (self.k_first + self.k_last)
        w = 0.5 * (1 - tau**2)
        return (1 - w) * root(self.k / self.k0 * self.k1 / self.k0) + w * _projection(m, before)

    def first_difference(self, m0: Tensor, m1: Tensor) -> tuple[Tensor, Tensor]:
        """D1 = m0 - p1 m1 and r_i = sigmoid(|p1|/4) R, kept between R/4 and 3 R/2."""
        p1 = self.share(m0, m1)
        return m0 - p1 * m1, (0.25 * p1.abs()).sigmoid().clamp(0.25, 1.5) * self.ratio

    def predicted(self, euler: Tensor, m0: Tensor, m1: Tensor) -> Tensor:
        """x_E + s h D1/(2 r_i)."""
        d1, ratio = self.first_difference(m0, m1)
        return euler + 0.5 * self.k * self.h * d1 / ratio

    def correction(
        self, moved: Tensor, d1: Tensor, ri: Tensor, m: Tensor, m0: Tensor, m1: Tensor, many: bool
    ) -> Tensor:
        """s h B/(2 zeta), B the balance of the backward and the forward difference."""
        k, h, ratio = self.k, self.h, self.ratio
        d2 = m - self.share(m, m0) * m0
        backward, forward = d1 / (ratio * h), ratio * d2 / h
        eta = 0.5 * (0.5 * _projection(forward + backward, forward - backward)).abs().sigmoid()
        b = -eta * d1 / ratio + (1 - eta) * ratio * d2
        z = (_projection(moved - 0.5 * k * h * b / ri, d1) / (h * k)).abs() - 0.5
        if many:
            z = -z * (_projection(m0, (m0 - m1) / h) * (2 - (k / self.k0) ** 2)).sigmoid()
        return 0.5 * k * h * b / z.sigmoid()


def _projection(a: Tensor, b: Tensor) -> Tensor:
    """<a, b>/<b, b> over space, for every sample and channel, kept in [-2, 2]; 0 where b = 0."""
    dims = tuple(range(2, a.ndim)) if a.ndim > 2 else (1,)
    dot = (a * b.conj()).real.sum(dims, keepdim=True)
    square = (b * b.conj()).real.sum(dims, keepdim=True)
    return (dot / square.clamp(min=1e-30)).clamp(-2, 2)


def _fit(weight: Weight, x: Tensor) -> Weight:
    return expand(weight, x) if isinstance(weight, Tensor) else weight
