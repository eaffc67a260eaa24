"""The probability flow dx/dt = velocity in time itself, as flow-matching models are sampled."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.noise import Noise
from ornstein.process.affine import Process
from ornstein.samplers.base import Sampler, require_finite_rates
from ornstein.samplers.weights import weighted


@dataclass(frozen=True)
class VelocityFlow(Sampler):
    """Euler, Heun or the midpoint rule on the velocity in t; order 1, 2 and 2, one call a step or two.

    A step of Heun that ends where the velocity is not finite, at s = 0, is an Euler step. The process must have a
    finite velocity at the start: a bridge begins below T.
    """

    method: Literal["euler", "heun", "midpoint"] = "euler"

    def __post_init__(self) -> None:
        if self.method not in ("euler", "heun", "midpoint"):
            raise UserError(f"VelocityFlow has the methods euler, heun and midpoint, not {self.method!r}")

    @property
    def convergence_order(self) -> int | None:
        return 1 if self.method == "euler" else 2

    def trajectory(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        **condition: Tensor,
    ) -> Iterator[Tensor]:
        times = self.times(denoiser.process)
        require_finite_rates(denoiser.process, times[0], diffusion=False)
        for (t, s), dt, calls in zip(
            pairwise(times), times.diff().tolist(), self._calls(denoiser.process), strict=True
        ):
            velocity = denoiser(x, t, y, **condition).velocity
            if calls == 2 and self.method == "midpoint":
                inside = weighted(x, (1.0, x), (dt / 2, velocity))
                velocity = denoiser(inside, (t + s) / 2, y, **condition).velocity
            elif calls == 2:
                velocity = (velocity + denoiser(weighted(x, (1.0, x), (dt, velocity)), s, y, **condition).velocity) / 2
            x = weighted(x, (1.0, x), (dt, velocity))
            yield x

    def evaluations(self, process: Process) -> int:
        return sum(self._calls(process))

    def _calls(self, process: Process) -> list[int]:
        if self.method != "heun":
            return [1 if self.method == "euler" else 2] * self.steps
        kappa = process.kappa(self.times(process))
        return torch.where((kappa[1:] == torch.inf), 1, 2).tolist()
