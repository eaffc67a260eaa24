"""Brownian motion that can be refined: the same path for every grid of a stochastic sampler."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.noise import Noise, SampleNoise
from ornstein.process.affine import Process


class BrownianPath:
    """A path W of Brownian motion for every sample, 0 at clock 0, drawn where it is asked for.

    What lies between known points is drawn from the Brownian bridge between them, so that increments over a finer grid
    add up to those over a coarser one: what strong orders, multilevel Monte Carlo and a comparison of grids need. It
    keeps every point; the path depends on the seeds and on the order of the questions.

    Args:
        seeds: one whole number a sample.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._draw = SampleNoise(seeds)
        self._clocks = [0.0]
        self._values: list[Tensor] = []

    def at(self, clock: float, like: Tensor) -> Tensor:
        """W at `clock` >= 0, shaped like `like`, in double precision (complex: E|W|^2 = clock).

        Raises:
            UserError: the clock is negative or not finite.
        """
        if not 0 <= clock < math.inf:
            raise UserError(f"a path has clocks from 0 on, below infinity, not {clock}")
        wide = like.to(torch.promote_types(like.dtype, torch.float64))
        if not self._values:
            self._values.append(torch.zeros_like(wide))
        i = bisect_left(self._clocks, clock)
        if i == len(self._clocks) or self._clocks[i] != clock:
            self._values.insert(i, self._between(i, clock, wide))
            self._clocks.insert(i, clock)
        return self._values[i]

    def noise(self, clocks: Sequence[float]) -> Noise:
        """A source of unit noise whose draw number i is the increment from clock i to i + 1, over its standard
        deviation: for samplers that draw once a step, in order.

        Raises:
            UserError: more draws than intervals.
        """
        intervals = pairwise(clocks)

        def increment(like: Tensor) -> Tensor:
            ends = next(intervals, None)
            if ends is None:
                raise UserError(
                    f"more draws than the {len(clocks) - 1} steps of this path; give the sampler SampleNoise"
                )
            first, last = (self.at(clock, like) for clock in ends)
            return ((last - first) / math.sqrt(ends[1] - ends[0])).to(like)

        return increment

    def _between(self, i: int, clock: float, like: Tensor) -> Tensor:
        before, known = self._clocks[i - 1], self._values[i - 1]
        if i == len(self._clocks):
            return known + math.sqrt(clock - before) * self._draw(like)
        share = (clock - before) / (self._clocks[i] - before)
        spread = math.sqrt((clock - before) * (1 - share))
        return known + share * (self._values[i] - known) + spread * self._draw(like)


def memory_clock(process: Process, times: Tensor) -> list[float]:
    """(phi/s)^2 at decreasing `times`: the clock in which the noise that a path of the process forgets is Brownian.

    The posterior step with eta = 1 (`Ancestral`), and where phi = a SDE-DPM-Solver++, add
    s_s sqrt(1 - c^2) eps = s_s^2/phi_s (W at (phi_s/s_s)^2 - W at (phi_t/s_t)^2), c = (phi_t/phi_s)(s_s/s_t). The clock
    is infinite where s = 0, where nothing is added. Euler-Maruyama (`PredictorCorrector`) has the clock T - t.
    """
    _, _, s, phi = process.reference(times)
    return torch.where(phi == 0, torch.zeros_like(phi), (phi / s) ** 2).tolist()
