"""Removing all of the residual first and the noise afterwards (RDDM's partially path-independent generation)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.process.affine import Coefficients
from ornstein.process.rddm import RDDM
from ornstein.process.tabulated import TabulatedProcess


@dataclass(frozen=True)
class ResidualFirst(TabulatedProcess):
    """The states of an RDDM process on another path: from T = 2N to N the residual shrinks along its table under all of
    the noise, from N to 0 the noise along its own (Liu et al. 2024, arXiv 2308.13712, section 4.4).

    For `TwoNetworks` with `amounts`, which are told b and s and no time. Every sampler runs on it; an even number of
    steps visits the turn.
    """

    observed = True

    process: RDDM = RDDM()

    @property
    def levels(self) -> int:
        return 2 * self.process.levels

    def coefficients(self, t: Tensor) -> Coefficients:
        residual = self.process.coefficients((t - self.process.levels).clamp(min=0))
        noise = self.process.coefficients(t.clamp(max=self.process.levels))
        return Coefficients(a=residual.a, b=residual.b, s=noise.s, phi=torch.ones_like(t))

    def derivatives(self, t: Tensor) -> Coefficients:
        removing = t > self.process.levels
        residual = self.process.derivatives((t - self.process.levels).clamp(min=0))
        noise = self.process.derivatives(t.clamp(max=self.process.levels))
        zero = torch.zeros_like(t)
        return Coefficients(
            a=torch.where(removing, residual.a, zero),
            b=torch.where(removing, residual.b, zero),
            s=torch.where(removing, zero, noise.s),
            phi=zero,
        )

    def start(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """That of the RDDM process, which it shares."""
        return self.process.start(z, y)
