"""EVODiff: a multistep solver whose weights follow the predictions (arXiv 2509.26096)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ornstein.process.affine import Process, expand
from ornstein.samplers.ode_solvers import FlowSolver, Run
from ornstein.samplers.weights import Node, Weight

HALF, QUARTER = torch.tensor(0.5), torch.tensor(0.25)


@dataclass(frozen=True)
class EVODiff(FlowSolver):
    """Multistep in x0 with weights from inner products of every sample and channel, one call a step.

    It is the sampler published for CIFAR-10, with rho = s/a for EDM's sigma, so that its constants mean the same on
    every process. With an exact denoiser it is less accurate than DPM-Solver++ 2M: the weights are tuned to learned
    networks. The first and the last step, and one that touches a <= 0 or s = 0, are Euler
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
        first, last, many = regular[0], regular[-1], len(regular) > 20
        process = run.process.scalar()[0]
        weights = dict(enumerate(step_weights(run.nodes[max(first, 0) : last + 2], process, x), start=first + 1))
        m1 = m0 = x
        d1 = divisor = toward = x  # of the differences up to here
        called = False  # the call inside a step serves the next one
        for i, (now, ahead) in enumerate(run.steps):
            m0 = m0 if called else run.x0_alone(x, now)
            euler = run.data_step(x, now, ahead, m0)
            called = first < i < last
            if not called:
                x = self.last_step(run, i, euler, m0, m1) if first < i == last else euler
                m1 = m0
            else:
                w = weights[i]
                if i == first + 1:
                    along, toward = projections(m0, m1, m0 - m1)
                    d1, divisor = w.first_difference(m0, m1, along.clamp(-2, 2))
                    (divisor,) = self.limited(m0 - m1, (d1, divisor))
                m = run.x0_alone(plus(euler, w.guess, d1, divisor), ahead)
                change = m - m0
                along, ahead_toward = projections(m, m0, change)
                along = along.clamp(-2, 2)
                d2 = torch.addcmul(m, w.share(along), m0, value=-1)
                correction, zeta = w.correction(d1, divisor, d2, toward if many else None)
                d1, divisor = weights[i + 1].first_difference(m, m0, along)
                zeta, divisor = self.limited(change, (correction, zeta), (d1, divisor))
                x, m1, m0, toward = plus(euler, w.step, correction, zeta), m0, m, ahead_toward
            yield x

    def limited(self, change: Tensor, *corrections: tuple[Tensor, Tensor]) -> list[Tensor]:
        """The divisors d of corrections c, raised until the step is no farther from the trapezoidal rule, which
        corrects by `change`, than the Euler step: |c/d - change| <= |change| where d >= <c, c>/(2 <c, change>)."""
        along = projections(change, *(correction for correction, _ in corrections))
        least = HALF / along.clamp(1e-3, 2)  # not 0, where the gradient is no number
        return [torch.maximum(divisor, each) for (_, divisor), each in zip(corrections, least, strict=True)]

    def last_step(self, run: Run, i: int, euler: Tensor, m0: Tensor, m1: Tensor) -> Tensor:
        """The state after step `i`, the last one that is regular, from that after an Euler step."""
        return euler


class EVODiffWeights(NamedTuple):
    """Those of one step from rho = k0 (before it k1) to k, in a run from k_first to k_last. R is the last step in
    lambda over this one, h = 1/k - 1/k0. What multiplies a tensor is one of shape (), which takes half the time that a
    float does."""

    guess: Weight
    """s h/(2R), s at the end of the step."""
    step: Weight
    """s h/2."""
    kept: Tensor
    """(1 - w) sqrt(k k1)/k0."""
    turn: Weight
    """w = (1 - tau^2)/2, tau = (k + k_last)/(k_first + k_last)."""
    ratio: Tensor
    """R."""
    back: Weight
    """1/R."""
    lead: Tensor
    """1 + 1/R."""
    half_back: Tensor
    """1/(2R)."""
    most: Weight
    """2 k0/(k0 - k), the largest z."""
    h: Tensor
    """h."""
    lean: Tensor
    """2 - (k/k0)^2."""

    def share(self, along: Tensor) -> Tensor:
        """What of the former prediction is in the new one, (1 - w) b + w <m, before>/<before, before> with b =
        sqrt(k k1)/k0; `along` is that projection."""
        return plus(self.kept, self.turn, along)

    def first_difference(self, m0: Tensor, m1: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
        """D1 = m0 - p1 m1 and r_i/R = sigmoid(|p1|/4), which needs no clamp: it lies between 1/2 and 1."""
        p1 = self.share(along)
        return torch.addcmul(m0, p1, m1, value=-1), (QUARTER * p1.abs()).sigmoid()

    def correction(self, d1: Tensor, divisor: Tensor, d2: Tensor, toward: Tensor | None) -> tuple[Tensor, Tensor]:
        """h B = (1 - eta) forward - eta backward, the two differences R D2 and D1/R; and zeta, which looks at
        <m0, m0 - m1>/|m0 - m1|^2, `toward`, in a run of many steps."""
        forward = self.ratio * d2
        both = plus(forward, self.back, d1)
        alike, share = projections(both, plus(forward, -self.back, d1), d1)
        twice_eta = (HALF * alike.clamp(-2, 2)).abs().sigmoid()
        # h B = both - D1/R - eta both: that of D1 - h B along D1, negative, is what the guess had too much
        excess = torch.addcmul(share, twice_eta, share, value=-0.5) - self.lead
        z = (self.half_back * (excess / divisor).abs()).clamp(max=self.most)
        if toward is None:
            zeta = (z - HALF).sigmoid()
        else:
            zeta = ((HALF - z) * ((self.h * toward).clamp(-2, 2) * self.lean).sigmoid()).sigmoid()
        return torch.addcmul(forward, twice_eta, both, value=-0.5), zeta


def step_weights(nodes: Sequence[Node], process: Process, x: Tensor) -> list[EVODiffWeights]:
    """The weights of every step between the regular `nodes` of a run but the first."""
    if len(nodes) < 3:
        return []
    maps = isinstance(nodes[0].a, Tensor)

    def stacked(weights: list[Weight]) -> Tensor:
        if maps:
            return torch.stack([expand(weight, x) for weight in weights if isinstance(weight, Tensor)])
        return torch.tensor(weights, dtype=torch.float64)

    @torch.inference_mode(False)  # what is remembered may meet a run with gradients
    def computed() -> list[EVODiffWeights]:
        rho, s = stacked([node.rho for node in nodes]), stacked([node.s for node in nodes])[2:]
        k1, k0, k = rho[:-2], rho[1:-1], rho[2:]
        h, fall, ratio = 1 / k - 1 / k0, k / k0, (k1 / k0).log() / (k0 / k).log()
        turn = 0.5 * (1 - ((k + rho[-1]) / (rho[0] + rho[-1])) ** 2)
        weights = EVODiffWeights(
            guess=0.5 * s * h / ratio,
            step=0.5 * s * h,
            kept=(1 - turn) * (fall * k1 / k0).sqrt(),
            turn=turn,
            ratio=ratio,
            back=1 / ratio,
            lead=1 + 1 / ratio,
            half_back=0.5 / ratio,
            most=2 / (1 - fall),
            h=h,
            lean=2 - fall**2,
        )
        factors = ("kept", "ratio", "lead", "half_back", "h", "lean")
        columns = [
            list(column.to(x.real.dtype)) if maps or name in factors else column.tolist()
            for name, column in weights._asdict().items()
        ]
        return [EVODiffWeights(*row) for row in zip(*columns, strict=True)]

    if maps:
        return computed()
    return process.remember(("EVODiff", x.real.dtype, *(node.t.item() for node in nodes)), computed)


def plus(base: Tensor, weight: Weight, signal: Tensor, divisor: Tensor | None = None) -> Tensor:
    """base + weight signal/divisor, one operation where the weight is a float: here it is they that cost the time."""
    if isinstance(weight, Tensor):
        return base + weight * (signal if divisor is None else signal / divisor)
    if divisor is None:
        return torch.add(base, signal, alpha=weight)
    return torch.addcdiv(base, signal, divisor, value=weight)


def projections(a: Tensor, *onto: Tensor) -> Tensor:
    """<a, b>/<b, b> over space for every b of `onto`, for every sample and channel; 0 where b = 0."""
    b = torch.stack(onto)
    conjugate = b.conj()
    dims = tuple(range(3, b.ndim)) or (2,)
    dot = (a * conjugate).real.sum(dims, keepdim=True)
    square = (b * conjugate).real.sum(dims, keepdim=True)
    return dot / square.clamp(min=1e-30)
