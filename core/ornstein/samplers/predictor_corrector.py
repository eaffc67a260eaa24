"""Reverse diffusion with Langevin correction, and its noiseless form."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.estimate import Estimate
from ornstein.noise import Noise
from ornstein.process.affine import Process, combine
from ornstein.samplers.base import Sampler, drawn, require_finite_rates
from ornstein.samplers.reverse_diffusion import reverse_weights
from ornstein.samplers.time_grids import TimeGrid, UniformGrid
from ornstein.samplers.weights import Scaling, Weight, weighted


class Corrector(ABC):
    """Moves x towards p(x_t | y) at a fixed time: x + e score + sqrt(2 e) z."""

    @abstractmethod
    def step_size(self, estimate: Estimate, z: Tensor) -> Weight:
        """e, a number, or of shape () or (B,)."""

    def __call__(self, estimate: Estimate, z: Tensor) -> Tensor:
        """The corrected x."""
        e, s = self.step_size(estimate, z), estimate.process.coefficients_at(estimate.t).s
        if not (isinstance(e, Tensor) or isinstance(s, Tensor)):
            return weighted(estimate.x, (1.0, estimate.x), (-e / s, estimate.noise), ((2 * e) ** 0.5, z))
        return combine(estimate.x, (1.0, estimate.x), (e, estimate.score), ((2 * e) ** 0.5, z))


def _require_ratio(snr: float) -> None:
    if not snr >= 0:
        raise UserError(f"the signal-to-noise ratio of a correction is not negative, got {snr}")


@dataclass(frozen=True)
class AnnealedLangevin(Corrector):
    """e = 2 (snr s)^2: annealed Langevin dynamics (`ald` of SGMSE+)."""

    snr: float = 0.5
    """r, the signal-to-noise ratio of a correction."""

    def __post_init__(self) -> None:
        _require_ratio(self.snr)

    def step_size(self, estimate: Estimate, z: Tensor) -> Weight:
        return 2 * (self.snr * estimate.process.coefficients_at(estimate.t).s) ** 2


@dataclass(frozen=True)
class Langevin(Corrector):
    """e = 2 (snr |z|/|score|)^2 (Song et al. 2021, algorithm 4).

    `batch_mean` averages the two norms over the batch as published code does, so that a sample depends on its
    neighbours.
    """

    snr: float = 0.5
    batch_mean: bool = False

    def __post_init__(self) -> None:
        _require_ratio(self.snr)

    def step_size(self, estimate: Estimate, z: Tensor) -> Tensor:
        noise_norm = torch.linalg.vector_norm(z.flatten(1), dim=1)
        score_norm = torch.linalg.vector_norm(estimate.score.flatten(1), dim=1)
        if self.batch_mean:
            noise_norm, score_norm = noise_norm.mean(), score_norm.mean()
        return 2 * (self.snr * noise_norm / score_norm) ** 2


@dataclass(frozen=True)
class PredictorCorrector(Sampler):
    """Correct, then one Euler-Maruyama step of dx = (velocity - e^2 score/2) dt + e dw; the result is the last step
    without its noise.

    e = noise_scale g: 1 is Anderson's reverse equation (the reverse-diffusion predictor of Song et al. 2021 and
    SGMSE+), 0 is Euler on the probability flow in t. The defaults are the published sampler of SGMSE+: 30 steps, 60
    calls, to t_eps = 0.03 (on a table its first level), then to 0.
    """

    grid: TimeGrid = UniformGrid(end=0.03, to_zero=True)
    corrector: Corrector | None = AnnealedLangevin()
    corrector_steps: int = 1
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        if not (self.corrector_steps >= 0 and self.noise_scale >= 0):
            raise UserError(
                f"corrector_steps and noise_scale are not negative, got {self.corrector_steps} and {self.noise_scale}"
            )

    @property
    def convergence_order(self) -> int | None:
        return None if self._corrects else 1

    @property
    def stochastic(self) -> bool:
        return self._corrects or self.noise_scale > 0

    @property
    def _corrects(self) -> bool:
        return self.corrector is not None and self.corrector_steps > 0

    def trajectory(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        **condition: Tensor,
    ) -> Iterator[Tensor]:
        process, times = denoiser.process, self.times(denoiser.process)
        require_finite_rates(process, times[0], diffusion=self.noise_scale > 0)
        steps, scaling = [self.step_length(t, s) for t, s in pairwise(times)], Scaling(process)
        for i, (t, w) in enumerate(zip(times, reverse_weights(process, times, steps, self.noise_scale), strict=False)):
            if self.corrector is not None:
                for _ in range(self.corrector_steps):
                    x = self.corrector(denoiser(x, t, y, **condition), drawn(noise, x))
            estimate = denoiser(x, t, y, **condition)
            x = weighted(
                x, (1.0, x), (w.x0, estimate.x0), (w.y, process.require(estimate.y)), (w.z, scaling(estimate.noise))
            )
            if i < self.steps - 1 and self.noise_scale > 0:
                x = weighted(x, (1.0, x), (w.noise, scaling(drawn(noise, x))))
            yield x

    def step_length(self, t: Tensor, s: Tensor) -> Tensor:
        """dt of the step from `t` to `s`."""
        return t - s

    def evaluations(self, process: Process) -> int:
        return self.steps * (1 + (self.corrector_steps if self.corrector is not None else 0))
