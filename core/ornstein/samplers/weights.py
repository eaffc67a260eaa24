"""Weights of a run, known before its loop: floats where a process is the same for every value, maps where it is not."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ornstein.process.affine import Process, Weight, expand, weights_between


@dataclass(frozen=True, eq=False)
class Node:
    """The process at one time of a grid."""

    t: Tensor
    """float64, () on the host: what the denoiser is told."""
    a: Weight
    b: Weight
    s: Weight
    kappa: float
    """a/s, of the scalar reference where a or s are maps; infinite where s = 0 < a."""
    lam: Weight
    """lambda = log(a/s), nan where `regular` is false."""
    level: float
    """s of the scalar reference: whether there is noise is decided by it, so that no step looks into a map."""

    @property
    def rho(self) -> Weight:
        """s/a."""
        return self.s / self.a

    @property
    def regular(self) -> bool:
        """Whether lambda exists: a > 0 and s > 0."""
        return 0 < self.kappa < math.inf

    @property
    def noiseless(self) -> bool:
        """s = 0: the clean end, or the start of a bridge."""
        return self.level == 0

    def keeping(self, share: Weight) -> "Node":
        """The same time with that share of its standard deviation."""
        return replace(self, s=self.s * share, level=self.level * share if isinstance(share, float) else self.level)


def nodes_at(process: Process, times: Tensor) -> list[Node]:
    """The nodes at `times` (N,) of `Process.scalar`: one vectorised evaluation where its coefficients are scalars."""
    process = process.scalar()[0]
    if _has_maps(process, times):
        return _nodes(process, times)
    return list(process.remember(("nodes", *times.tolist()), lambda: _nodes(process, times)))


def _nodes(process: Process, times: Tensor) -> list[Node]:
    reference = process.reference(times)
    kappa, level = torch.where(reference.a == 0, 0.0, reference.a / reference.s).tolist(), reference.s.tolist()
    if _has_maps(process, times):
        coefficients = [list(c) for c in zip(*(process.coefficients(t)[:3] for t in times), strict=True)]
    else:
        coefficients = [c.tolist() for c in reference[:3]]
    return [
        Node(t, a, b, s, k, log(a) - log(s) if 0 < k < math.inf else math.nan, noise)
        for t, a, b, s, k, noise in zip(times, *coefficients, kappa, level, strict=True)
    ]


def _has_maps(process: Process, times: Tensor) -> bool:
    return type(process).reference is not Process.reference and process.coefficients(times[0]).s.ndim > 0


class Scaling:
    """Turns unit noise into that of `Process.scalar`, W z, on the device and in the type of the first signal."""

    def __init__(self, process: Process) -> None:
        self._map = process.scalar()[1]
        self._ready = False

    def __call__(self, noise: Tensor) -> Tensor:
        """W z, or `noise` itself where there is no map."""
        return noise if self._map is None else self._like(noise) * noise

    def undone(self, noise: Tensor) -> Tensor:
        """z of W z."""
        return noise if self._map is None else noise / self._like(noise)

    def _like(self, signal: Tensor) -> Tensor:
        assert self._map is not None
        if not self._ready:
            self._map, self._ready = expand(self._map, signal), True
        return self._map


class AncestralWeights(NamedTuple):
    """x_s = x w_x + x0 w_x0 + y w_y + noise w_noise."""

    x: Weight
    x0: Weight
    y: Weight
    noise: Weight


def step_weights(process: Process, times: Tensor, eta: float) -> list[AncestralWeights]:
    """`Process.step_weights` of every step of a grid on `Process.scalar`, as floats, or as maps where it has them; the
    noise is 0.0 in a step that draws none."""
    process = process.scalar()[0]

    def of_reference() -> list[AncestralWeights]:
        weights = weights_between(process.reference(times[:-1]), process.reference(times[1:]), eta)
        return [AncestralWeights(*w) for w in zip(*(w.tolist() for w in weights), strict=True)]

    floats = process.remember(("ancestral", eta, *times.tolist()), of_reference)
    if not _has_maps(process, times):
        return floats
    maps = [AncestralWeights(*process.step_weights(t, s, eta)) for t, s in pairwise(times)]
    return [m if f.noise else m._replace(noise=0.0) for m, f in zip(maps, floats, strict=True)]


def weighted(like: Tensor, *terms: tuple[Weight, Tensor | None]) -> Tensor:
    """Sum of weight * signal over `terms`, shaped and typed like `like`; a missing signal counts as zero."""
    total: Tensor | None = None
    for weight, signal in terms:
        if signal is None or (isinstance(weight, float) and weight == 0):
            continue
        if isinstance(weight, Tensor):
            term = expand(weight, like) * signal
            total = term if total is None else total + term
        elif total is None:
            total = signal if weight == 1 else signal * weight
        else:
            total = torch.add(total, signal, alpha=weight)
    return torch.zeros_like(like) if total is None else total


def _either(of_float: Callable[[float], float], of_map: Callable[[Tensor], Tensor]) -> Callable[[Weight], Weight]:
    def apply(weight: Weight) -> Weight:
        return of_map(weight) if isinstance(weight, Tensor) else of_float(weight)

    return apply


log = _either(math.log, torch.log)
exp = _either(math.exp, torch.exp)
expm1 = _either(math.expm1, torch.expm1)
root = _either(lambda value: math.sqrt(max(value, 0.0)), lambda value: value.clamp(min=0).sqrt())
"""sqrt(max(value, 0))."""


def vandermonde(points: list[Weight], moments: list[Weight]) -> list[Weight]:
    """The weights c with sum over j of c_j points_j^k = moments_k, k = 0, 1, ... (Bjorck and Pereyra 1970)."""
    c, n = list(moments), len(points)
    for k in range(n - 1):
        for i in range(n - 1, k, -1):
            c[i] = c[i] - points[k] * c[i - 1]
    for k in range(n - 2, -1, -1):
        for i in range(k + 1, n):
            c[i] = c[i] / (points[i] - points[i - k - 1])
        for i in range(k, n - 1):
            c[i] = c[i] - c[i + 1]
    return c
