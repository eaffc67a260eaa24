"""The outputs of RDDM's networks as its code reads them: six objectives, with their clipping."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ornstein.estimate import Estimate
from ornstein.parameterization import Parameterization
from ornstein.process.affine import Process, combine, expand

ResidualObjective = Literal[
    "pred_res_noise", "pred_res_add_noise", "pred_x0_noise", "pred_x0_add_noise", "pred_res", "pred_noise"
]

SMALLEST = 1e-6
"""What the published code puts in the place of 1 - abar at T."""


@dataclass(frozen=True)
class ResidualOutputs(Parameterization):
    """F by the published name of the objective (RDDM, Liu et al. 2024, arXiv 2308.13712, section 4.2, and its code).

    `pred_res`: the residual R = y - x0; `pred_noise`: z; the others have two outputs, halves of the channels: R or x0
    first, then z or (`add`) the sum of both. As published residual and clean signal are clipped to [-1, 1], each by
    itself, so x = a x0 + b y + s noise need not hold; the residual is y - x0 of the Estimate. `PublishedResidual`
    steps with residual and noise as published. `TwoOutput`, `Residual` and `Noise` clip nothing and hold the equation.
    """

    objective: ResidualObjective = "pred_res_noise"
    clip: bool = True
    """Published: true."""

    def __post_init__(self) -> None:
        if self.objective not in ResidualObjective.__args__:  # type: ignore[attr-defined]  # a Literal has them
            raise ValueError(f"{self.objective} is none of {', '.join(ResidualObjective.__args__)}")  # type: ignore[attr-defined]

    @property
    def outputs(self) -> int:
        """How many outputs the network has."""
        return 1 if self.objective in ("pred_res", "pred_noise") else 2

    def estimate(self, process: Process, output: Tensor, x: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        if output.shape[1] != self.outputs * x.shape[1]:
            wanted = self.outputs * x.shape[1]
            raise ValueError(
                f"{self.objective} for {x.shape[1]} channels needs {wanted} of the network, got {output.shape[1]}"
            )
        residual, x0, noise = self._read(process, output, x, t, y)
        return Estimate(process, x, t, x0, noise, x0 + residual)

    def target(self, truth: Estimate) -> Tensor:
        residual = self._observation(truth.y) - truth.x0
        match self.objective:
            case "pred_res":
                return residual
            case "pred_noise":
                return truth.noise
            case "pred_res_noise":
                return torch.cat([residual, truth.noise], 1)
            case "pred_res_add_noise":
                return torch.cat([residual, residual + truth.noise], 1)
            case "pred_x0_noise":
                return torch.cat([truth.x0, truth.noise], 1)
            case "pred_x0_add_noise":
                return torch.cat([truth.x0, truth.x0 + truth.noise], 1)

    def _read(
        self, process: Process, output: Tensor, x: Tensor, t: Tensor, y: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Residual, x0 and noise."""
        if self.objective == "pred_res":
            observed = self._observation(y)
            residual = self._clipped(output)
            return residual, self._clipped(observed - residual), noise_of_residual(process, residual, x, t, observed)
        if self.objective == "pred_noise":
            observed = self._observation(y)
            x0 = self._clipped(x0_of_noise(process, output, x, t, observed))
            return self._clipped(observed - x0), x0, output
        first, second = output.chunk(2, dim=1)
        noise = second - first if "add" in self.objective else second
        if "x0" in self.objective:
            return self._clipped(self._observation(y) - first), self._clipped(first), noise
        residual = self._clipped(first)
        _, b, s, _ = process.coefficients(t)
        return residual, self._clipped(x - expand(b, x) * residual - expand(s, x) * noise), noise

    def _clipped(self, signal: Tensor) -> Tensor:
        return signal.clamp(-1, 1) if self.clip else signal

    def _observation(self, y: Tensor | None) -> Tensor:
        if y is None:
            raise ValueError(f"{self.objective} needs the observation y")
        return y


def x0_of_noise(process: Process, noise: Tensor, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """(x - b y - s z)/a with a not below 1e-6, as published."""
    a, b, s, _ = process.coefficients(t)
    inverse = 1 / a.clamp(min=SMALLEST)
    return combine(x, (inverse, x), (-b * inverse, y), (-s * inverse, noise))


def noise_of_residual(process: Process, residual: Tensor, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """(x - y + a R)/s for x0 = y - R, where a + b = 1."""
    a, b, s, _ = process.coefficients(t)
    return combine(x, (1 / s, x), (-(a + b) / s, y), (a / s, residual))
