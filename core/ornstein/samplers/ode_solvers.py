"""Solvers of the one probability flow, dw/dkappa = x0 with w = (x - b y)/s and kappa = a/s.

They form their weights from (a, s), never from a logarithm, so that a <= 0 and s = 0 are ordinary. On a bridge s_T =
0: w_T = 0 there is the published deterministic output; `random_start` draws w_T ~ N(0, I), the law of the flow.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.noise import Noise
from ornstein.process.affine import Process, as_time, combine
from ornstein.samplers.base import Sampler, drawn


@dataclass(frozen=True)
class FlowSolver(Sampler):
    """A deterministic sampler."""

    random_start: bool = False

    def flow_step(
        self, process: Process, x: Tensor, t: Tensor, s: Tensor, x0: Tensor, y: Tensor | None, noise: Noise | None
    ) -> Tensor:
        """w_s = w_t + (kappa_s - kappa_t) x0, that is u_s = (s_s/s_t) u_t + (a_s - a_t s_s/s_t) x0; s_s = 0 returns
        a_s x0 + b_s y."""
        x_s = process.step(x, t, s, x0, y)
        starts_without_noise = bool(process.reference(t).s == 0)
        if self.random_start and starts_without_noise:
            x_s = combine(x, (torch.ones(()), x_s), (process.coefficients(s).s, drawn(noise, x)))
        return x_s


@dataclass(frozen=True)
class Euler(FlowSolver):
    """x0 held constant over the step. First order; the same as DDIM, and as Euler in s/a (k-diffusion)."""

    def trajectory(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        **condition: Tensor,
    ) -> Iterator[Tensor]:
        for t, s in self.pairs(denoiser.process):
            estimate = denoiser(x, t, y, **condition)
            x = self.flow_step(denoiser.process, x, t, s, estimate.x0, estimate.y, noise)
            yield x


@dataclass(frozen=True)
class Heun(FlowSolver):
    """Trapezoidal rule in rho = s/a on the noise (Karras et al. 2022, algorithm 1). Second order, two calls a step.

    A step that starts where a <= 0 or s = 0, or ends at s = 0, is an Euler step with one call.
    """

    def trajectory(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        **condition: Tensor,
    ) -> Iterator[Tensor]:
        process = denoiser.process
        for t, s in self.pairs(process):
            estimate = denoiser(x, t, y, **condition)
            ahead = self.flow_step(process, x, t, s, estimate.x0, y, noise)
            if self._is_second_order(process, t, s):
                z = (estimate.noise + denoiser(ahead, s, y, **condition).noise) / 2
                a_t, b_t, s_t, _ = process.coefficients(t)
                a_s, b_s, s_s, _ = process.coefficients(s)
                ratio = a_s / a_t
                x = combine(x, (ratio, x), (s_s - s_t * ratio, z), (b_s - b_t * ratio, process.require(y)))
            else:
                x = ahead
            yield x

    def evaluations(self, process: Process) -> int:
        return sum(2 if self._is_second_order(process, t, s) else 1 for t, s in self.pairs(process))

    @staticmethod
    def _is_second_order(process: Process, t: Tensor, s: Tensor) -> bool:
        a_t, _, s_t, _ = process.reference(t)
        return bool((a_t > 0) & (s_t > 0) & (process.reference(s).s > 0))


@dataclass(frozen=True)
class DPMSolverPP2M(FlowSolver):
    """DPM-Solver++ (2M): x0 extrapolated in lambda = log(a/s) from two calls (Lu et al. 2022, algorithm 2). Second
    order, one call a step.

    D = x0 + (x0 - x0_prev)/(2 r), r = (lambda_t - lambda_prev)/(lambda_s - lambda_t). A step that touches a <= 0 or s
    = 0 is an Euler step.
    """

    def trajectory(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        **condition: Tensor,
    ) -> Iterator[Tensor]:
        process = denoiser.process
        previous: tuple[Tensor, Tensor] | None = None
        for t, s in self.pairs(process):
            x0 = denoiser(x, t, y, **condition).x0
            slope = None if previous is None else self._slope(process, previous[0], t, s)
            direction = x0 if previous is None or slope is None else x0 + slope * (x0 - previous[1])
            x = self.flow_step(process, x, t, s, direction, y, noise)
            previous = (t, x0)
            yield x

    @staticmethod
    def _slope(process: Process, before: Tensor, t: Tensor, s: Tensor) -> Tensor | None:
        """1/(2 r), or None where a lambda is not finite."""
        kappa = process.kappa(torch.stack([as_time(before), t, s]))
        if not bool((kappa > 0).all() & kappa.isfinite().all()):
            return None
        past, now, ahead = kappa.log()
        return (ahead - now) / (now - past) / 2
