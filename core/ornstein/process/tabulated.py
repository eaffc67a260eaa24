"""Processes whose schedule is a table: N levels of noise that a network was trained on."""

from abc import abstractmethod

import torch
from torch import Tensor

from ornstein.process.affine import Process


class MonotoneTable:
    """A monotone function of time through the nodes 0, 1, ..., N: piecewise cubic with a continuous derivative (PCHIP:
    Fritsch and Carlson 1980, with the slopes of Fritsch and Butland 1984), exact at the nodes.

    Args:
        rise: values at the nodes, (N + 1,), not decreasing.
        fall: 1 - rise, given apart where the difference would lose digits.
    """

    def __init__(self, rise: Tensor, fall: Tensor | None = None) -> None:
        self._rise = rise.double()
        self._fall = 1 - self._rise if fall is None else fall.double()
        self._slopes = _monotone_slopes(self._rise.diff())

    def rise(self, t: Tensor) -> Tensor:
        """The value at time `t`, shape of `t`; times outside [0, N] count as the ends."""
        return self._value(self._rise, self._slopes, t)

    def fall(self, t: Tensor) -> Tensor:
        """1 - rise at time `t`."""
        return self._value(self._fall, -self._slopes, t)

    def rate(self, t: Tensor) -> Tensor:
        """The derivative of `rise` at time `t`."""
        i, u = self._place(t)
        step = self._take(self._rise.diff(), i)
        before, after = self._take(self._slopes[:-1], i), self._take(self._slopes[1:], i)
        return 6 * u * (1 - u) * step + (1 - u) * (1 - 3 * u) * before + u * (3 * u - 2) * after

    def _value(self, nodes: Tensor, slopes: Tensor, t: Tensor) -> Tensor:
        i, u = self._place(t)
        weight = u**2 * (3 - 2 * u)
        ends = self._take(nodes[:-1], i) * (1 - weight) + self._take(nodes[1:], i) * weight
        before, after = self._take(slopes[:-1], i), self._take(slopes[1:], i)
        return ends + u * (1 - u) * ((1 - u) * before - u * after)

    def _place(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The interval that `t` lies in, and where in it, from 0 to 1."""
        last = len(self._rise) - 1
        t = t.clamp(0, last)
        i = t.floor().clamp(max=last - 1)
        return i.long(), t - i

    @staticmethod
    def _take(values: Tensor, i: Tensor) -> Tensor:
        return values.to(i.device)[i]


def _monotone_slopes(steps: Tensor) -> Tensor:
    """Slopes at the nodes, (N + 1,), for the differences (N,) between them: harmonic means inside, one-sided
    three-point formulas, or else the slope of the first and last step, at the ends."""
    if len(steps) == 1:
        return steps.expand(2)
    total = steps[:-1] + steps[1:]
    product = steps[:-1] * steps[1:]
    inside = torch.where(product > 0, 2 * product / torch.where(total == 0, torch.ones_like(total), total), 0.0)
    near, far = steps[[0, -1]], steps[[1, -2]]
    ends = (3 * near - far) / 2
    # PCHIP takes 0 where this is negative; there the process would stand still, and its velocity say nothing
    ends = torch.where(ends > 0, ends, near)
    return torch.cat([ends[:1], inside, ends[1:]])


class TabulatedProcess(Process):
    """Time counts levels: index i of a published table is t = i + 1, node 0 is clean and T = N.

    Between the nodes a schedule is the monotone interpolant; grids in time visit nodes only.
    """

    first_level = 1.0

    @property
    @abstractmethod
    def levels(self) -> int:
        """N, the number of noise levels."""

    @property
    def T(self) -> float:  # type: ignore[override]  # here the last time is a parameter
        return float(self.levels)

    def nearest(self, t: Tensor) -> Tensor:
        return t.round()

    def network_time(self, t: Tensor) -> Tensor:
        """The index t - 1 that the network was trained on; a time below the first node counts as index 0."""
        return self._at("network time", t, lambda t: (t - 1).clamp(min=0.0))
