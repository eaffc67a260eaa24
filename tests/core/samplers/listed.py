"""A process given by a list of nodes, and the mixture and the noise of the reference vectors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from reference_vectors import ReferenceFile
from torch import Tensor

from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser
from ornstein.process.affine import Coefficients, Process


class Listed(Process):
    """Variance-preserving or exploding nodes sigma/alpha in decreasing order; node i of n + 1 has the time n - i.

    Between the nodes log rho is linear in time, which no solver sees but one that asks in between.
    """

    first_level = 1.0

    def __init__(self, rho: Tensor, preserving: bool) -> None:
        self.rho, self.preserving = rho.double(), preserving

    @property
    def T(self) -> float:  # type: ignore[override]
        return float(len(self.rho) - 1)

    def coefficients(self, t: Tensor) -> Coefficients:
        position = (len(self.rho) - 1 - t).clamp(0, len(self.rho) - 1)
        low = position.floor().long().clamp(max=len(self.rho) - 2)
        part = position - low
        before, after = self.rho[low], self.rho[low + 1]
        rho = torch.where(part == 0, before, torch.where(part == 1, after, before ** (1 - part) * after**part))
        a = 1 / (1 + rho**2).sqrt() if self.preserving else torch.ones_like(rho)
        return Coefficients(a=a, b=torch.zeros_like(a), s=a * rho, phi=a)

    def derivatives(self, t: Tensor) -> Coefficients:
        raise NotImplementedError


@dataclass(frozen=True)
class RescaledTime:
    """A denoiser that sees another node's noise level than the solver's: `asked` maps times."""

    inner: MixtureDenoiser
    process: Process
    asked: Callable[[Tensor], Tensor]

    def __call__(self, x, t, y=None, **condition):  # type: ignore[no-untyped-def]
        from ornstein.estimate import estimate_from_noise

        t = torch.as_tensor(t, dtype=torch.float64)
        noise = self.inner(x, self.asked(t)).noise
        return estimate_from_noise(self.process, x, t, noise)


def mixture_of(vectors: ReferenceFile) -> GaussianMixture:
    return GaussianMixture(vectors.tensor("gmm_w"), vectors.tensor("gmm_mean"), vectors.tensor("gmm_cov"))


def replay(draws: Tensor) -> Callable[[Tensor], Tensor]:
    """A noise source that gives the draws in order."""
    remaining = iter(draws)
    return lambda like: next(remaining).reshape(like.shape)


def ddpm_rho(betas: Tensor, indices: Tensor, final: float | None) -> Tensor:
    """sigma/alpha at DDPM indices, then at a last abar where `final` is given."""
    abar = (1 - betas).cumprod(0)[indices.long()]
    if final is not None:
        abar = torch.cat([abar, abar.new_tensor([final])])
    return ((1 - abar) / abar).sqrt()
