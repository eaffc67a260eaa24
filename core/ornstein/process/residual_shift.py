"""Residual shifting: from the clean image to the degraded one in few steps (ResShift, DifIISR)."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from ornstein.process.affine import Coefficients, as_time, combine
from ornstein.process.tabulated import MonotoneTable, TabulatedProcess

First = Literal["smallest", "min_noise/kappa", "min_noise", "sqrt(0.001)"]


@dataclass(frozen=True)
class ResidualShift(TabulatedProcess):
    """a = 1 - eta, b = eta, s = noise_scale sqrt(eta), phi = 1 (Yue et al. 2023, arXiv 2307.12348, equations 1 and 2).

    sqrt(eta) rises in `steps` levels as start (end/start)^((i/(steps - 1))^power) (section 2.2). The defaults are those
    of ResShift and DifIISR with 15 steps; the journal's 4 steps are `JOURNAL4`.
    """

    observed = True

    steps: int = 15
    noise_scale: float = 2.0
    """The paper's kappa."""
    power: float = 0.3
    """The paper's p."""
    min_noise: float = 0.04
    sqrt_eta_end: float = 0.99
    """Last sqrt(eta); the published option `etas_end` bounds the root, not eta."""
    first: First = field(default="smallest", kw_only=True)
    """First sqrt(eta): one of the three, or the smallest of them, as published."""

    def __post_init__(self) -> None:
        if not (self.steps >= 1 and self.noise_scale > 0 and self.power > 0 and self.min_noise > 0):
            raise ValueError(
                "residual shifting needs steps >= 1 and noise_scale, power and min_noise > 0, "
                f"got {self.steps}, {self.noise_scale}, {self.power} and {self.min_noise}"
            )
        if self.first not in get_args(First):
            raise ValueError(
                f"residual shifting needs first to be one of {', '.join(get_args(First))}, got {self.first!r}"
            )
        if not self._first < self.sqrt_eta_end <= 1:
            raise ValueError(
                f"residual shifting needs a last sqrt(eta) above the first, {self._first:g}, and at most 1, "
                f"got {self.sqrt_eta_end}"
            )

    @property
    def levels(self) -> int:
        return self.steps

    def coefficients(self, t: Tensor) -> Coefficients:
        root, left = self._table.rise(t), self._table.fall(t)
        return Coefficients(a=left * (1 + root), b=root**2, s=self.noise_scale * root, phi=torch.ones_like(t))

    def derivatives(self, t: Tensor) -> Coefficients:
        rate = self._table.rate(t)
        shift = 2 * self._table.rise(t) * rate
        return Coefficients(a=-shift, b=shift, s=self.noise_scale * rate, phi=torch.zeros_like(t))

    def start(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """y + s z, as published, although the process is at a x0 + b y + s z there (a = 0.02)."""
        return combine(z, (torch.ones(()), self.require(y)), (self.coefficients(as_time(self.T)).s, z))

    @property
    def _first(self) -> float:
        values = {
            "min_noise/kappa": self.min_noise / self.noise_scale,
            "min_noise": self.min_noise,
            "sqrt(0.001)": 0.001**0.5,
        }
        return values.get(self.first, min(values.values()))

    @cached_property
    def _table(self) -> MonotoneTable:
        """sqrt(eta)."""
        roots = self._roots()
        return MonotoneTable(torch.cat([roots.new_zeros(1), roots]))

    def _roots(self) -> Tensor:
        """sqrt(eta) of every level."""
        u = torch.linspace(0, 1, self.steps, dtype=torch.float64) if self.steps > 1 else torch.ones(1).double()
        root = self._first * (self.sqrt_eta_end / self._first) ** (u**self.power)
        root[-1] = self.sqrt_eta_end
        return root


DEFAULT15 = ResidualShift()
"""ResShift (arXiv 2307.12348) and DifIISR (arXiv 2503.01187)."""
JOURNAL4 = ResidualShift(steps=4, min_noise=0.2)
"""ResShift's journal version: sqrt(0.001) is the smallest start."""
