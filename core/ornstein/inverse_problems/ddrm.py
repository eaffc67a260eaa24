"""Denoising diffusion restoration models (Kawar et al., NeurIPS 2022, arXiv 2201.11793)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.inverse_problems.base import PosteriorSampler, require_one_level, require_positive
from ornstein.inverse_problems.operators import SpectralOperator
from ornstein.noise import Noise
from ornstein.process.affine import Process, combine
from ornstein.samplers.base import drawn


@dataclass(frozen=True, eq=False, kw_only=True)
class DDRM(PosteriorSampler):
    """Samples in the spectral basis of H (equations 7 and 8); no gradient through the network.

    With sb = s/a at the new time, per spectral value i of x/a: unmeasured, x0 + sqrt(1 - eta^2) sb noise + eta sb z;
    s_i sb < sigma, x0 + sqrt(1 - eta^2) sb (r_i - s_i x0)/sigma + eta sb z; else (1 - eta_b) x0 + eta_b r_i/s_i +
    sqrt(sb^2 - eta_b^2 sigma^2/s_i^2) z. Masks may differ from sample to sample.
    """

    operator: SpectralOperator
    sigma: float = 0.0
    """Standard deviation of the noise in the measurement."""
    eta: float = 0.85
    eta_b: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.operator, SpectralOperator):
            raise UserError(f"DDRM needs the SVD of the operator; use as_matrix on {type(self.operator).__name__}")
        if not self.sigma >= 0 or not 0 <= self.eta <= 1 or not 0 <= self.eta_b <= 1:
            raise UserError("DDRM needs sigma >= 0 and eta, eta_b between 0 and 1")

    @property
    def stochastic(self) -> bool:
        return True

    def start(self, process: Process, noise: Noise, y: Tensor | None = None) -> Tensor:
        """The paper's q(x_T | r): around r_i/s_i where that is less noisy than x_T, around 0 elsewhere."""
        t = self.times(process)[0]
        require_one_level(process, "DDRM")
        a, b, s, _ = process.coefficients(t)
        require_positive(a, "a", "DDRM", process, t)
        like = self.operator.signal_like(self.measurement)
        values = self.operator.kept(like)
        measured = self.operator.measured_to_spectral(self.measurement)
        z = self.operator.to_spectral(noise(like))
        level = float(s / a)
        mean, deviation = self._around(torch.zeros_like(z), measured, values, level, 1.0)
        state = torch.where(values * level > self.sigma, mean + deviation * z, level * z)
        x = self.operator.from_spectral(state, like)
        return combine(x, (a, x), (b, process.require(y)))

    def _around(
        self, x0: Tensor, measured: Tensor, values: Tensor, level: float, eta_b: float
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation where the measurement is the less noisy one."""
        safe = torch.where(values > 0, values, torch.ones_like(values))
        deviation = (level**2 - (eta_b * self.sigma / safe) ** 2).clamp(min=0).sqrt()
        return (1 - eta_b) * x0 + eta_b * measured / safe, deviation

    def trajectory(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        **condition: Tensor,
    ) -> Iterator[Tensor]:
        process, operator = denoiser.process, self.operator
        require_one_level(process, "DDRM")
        values = operator.kept(x)
        measured = operator.measured_to_spectral(self.measurement)
        kept = (1 - self.eta**2) ** 0.5
        for t, s in self.pairs(process):
            estimate = denoiser(x, t, y, **condition)
            a, b, s_s, _ = process.coefficients(s)
            require_positive(a, "a", "DDRM", process, s)
            level = float(s_s / a)
            x0, direction = operator.to_spectral(estimate.x0), operator.to_spectral(estimate.noise)
            z = operator.to_spectral(drawn(noise, x)) if level > 0 else torch.zeros_like(x0)
            state = x0 + kept * level * direction + self.eta * level * z
            noisier = (values > 0) & (values * level < self.sigma)
            if self.sigma > 0:
                pulled = x0 + kept * level * (measured - values * x0) / self.sigma + self.eta * level * z
                state = torch.where(noisier, pulled, state)
            mean, deviation = self._around(x0, measured, values, level, self.eta_b)
            state = torch.where((values > 0) & ~noisier, mean + deviation * z, state)
            x = operator.from_spectral(state, x)
            x = combine(x, (a, x), (b, process.require(y)))
            yield x
