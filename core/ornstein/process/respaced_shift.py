"""Residual shifting on some of the levels that its network was trained on."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ornstein.process.residual_shift import ResidualShift


@dataclass(frozen=True)
class RespacedShift(ResidualShift):
    """`ResidualShift` with `kept` of its `steps` levels, whose network is told their indices among all of them.

    Published: i = int(steps/kept j), j = 0, ..., kept - 1. The largest of them is below steps - 1, and the start
    y + s z has less noise than the network saw last. `end_aligned` counts the same distances from the other end, so
    that the start stays what it was; those are also the times of `UniformGrid` on the process with all levels.
    """

    kept: int = field(default=5, kw_only=True)
    end_aligned: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.kept <= self.steps:
            raise ValueError(f"respacing needs kept of at least 1 and at most steps, {self.steps}, got {self.kept}")

    @property
    def levels(self) -> int:
        return self.kept

    @cached_property
    def indices(self) -> tuple[int, ...]:
        """The kept levels, rising, among 0, ..., steps - 1."""
        found = [int(self.steps / self.kept * j) for j in range(self.kept)]
        return tuple(self.steps - 1 - i for i in reversed(found)) if self.end_aligned else tuple(found)

    def network_time(self, t: Tensor) -> Tensor:
        """The index among all levels, in between on a straight line."""
        place = (t - 1).clamp(0, self.kept - 1)
        before = place.floor().long()
        kept = torch.tensor(self.indices, dtype=t.dtype, device=t.device)
        return torch.lerp(kept[before], kept[(before + 1).clamp(max=self.kept - 1)], place - before)

    def _roots(self) -> Tensor:
        return super()._roots()[list(self.indices)]
