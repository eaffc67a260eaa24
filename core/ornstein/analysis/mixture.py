"""Gaussian mixtures: the one data distribution whose denoiser is known exactly on every process."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.estimate import Estimate, estimate_from_x0
from ornstein.process.affine import Process, as_time, combine, expand


@dataclass(frozen=True)
class GaussianMixture:
    """Mixture with `weights` (K,), `means` (K, D), `covariances` (K, D, D); signals (B, *) hold D values each."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` draws, shape (count, D)."""
        component = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        z = torch.randn(count, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[component] + (torch.linalg.cholesky(self.covariances)[component] @ z[..., None])[..., 0]

    def mean(self) -> Tensor:
        """Expectation, shape (D,)."""
        return self.weights @ self.means

    def covariance(self) -> Tensor:
        """Covariance of the whole mixture, shape (D, D)."""
        centred = self.means - self.mean()
        return torch.einsum("k,kij->ij", self.weights, self.covariances + centred[:, :, None] * centred[:, None, :])

    def posterior_mean(self, w: Tensor, kappa: Tensor) -> Tensor:
        """E[x0 | w] for w = kappa x0 + z: `w` (B, D), `kappa` (B,) or one a value (B, D), finite and of either sign.

        Component k: S = kappa C kappa + I, m + C kappa S^-1 (w - kappa m), responsibility softmax of log N(w; kappa m,
        S).
        """
        k = (kappa if kappa.ndim == 2 else kappa[:, None]).expand(w.shape)
        eye = torch.eye(w.shape[1], dtype=w.dtype)
        covariances = k[:, None, :, None] * self.covariances * k[:, None, None, :]
        factor = torch.linalg.cholesky(covariances + eye)  # (B, K, D, D)
        centred = w[:, None] - k[:, None] * self.means  # (B, K, D)
        solved = torch.cholesky_solve(centred[..., None], factor)[..., 0]
        log_likelihood = -(centred * solved).sum(-1) / 2 - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        responsibility = (self.weights.log() + log_likelihood).softmax(-1)
        means = self.means + torch.einsum("kij,bkj->bki", self.covariances, k[:, None] * solved)
        return torch.einsum("bk,bki->bi", responsibility, means)


@dataclass(frozen=True)
class MixtureDenoiser:
    """The exact denoiser of a mixture on a process; y may be anything, x0 does not depend on it."""

    mixture: GaussianMixture
    process: Process

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        """Exact Estimate at `x` (B, *) and time `t`; where s = 0 < |a| the signal itself, where both vanish the prior
        mean."""
        if x.ndim < 2 or x.shape[1:].numel() != self.mixture.means.shape[1]:
            raise UserError(
                f"signals of this mixture are (B, *) with {self.mixture.means.shape[1]} values, got {tuple(x.shape)}"
            )
        t = as_time(t)
        a, b, s, _ = self.process.coefficients(t)
        u = combine(x, (torch.ones_like(b), x), (-b, self.process.require(y)))
        noisy = s != 0
        safe = torch.where(noisy, s, torch.ones_like(s))
        w = u / expand(safe, x)
        kappa = torch.where(noisy, a / safe, torch.zeros_like(a))
        every = (expand(kappa.double(), x.double()) * torch.ones_like(x, dtype=torch.float64)).flatten(1)
        inside = self.mixture.posterior_mean(w.flatten(1).double(), every).reshape(x.shape).to(x.dtype)
        clean = u / expand(torch.where(a == 0, torch.ones_like(a), a), x)
        at_clean = expand((~noisy & (a != 0)).double(), x) != 0
        return estimate_from_x0(self.process, x, t, torch.where(at_clean, clean, inside), y)


def exact_flow(
    mixture: GaussianMixture,
    w: Tensor,
    kappa_from: float,
    kappa_to: float,
    tolerance: float = 1e-11,
    weights: Tensor | None = None,
) -> Tensor:
    """The probability flow dw/dkappa = E[x0 | w] of a mixture from one kappa to another, `w` (B, D), by an adaptive
    solver.

    `weights` W, broadcasting against w, make s a map: every value then has its own kappa/W, kappa being the reference.
    """
    from torchdiffeq import odeint

    def rate(kappa: Tensor, w: Tensor) -> Tensor:
        own = kappa.expand(w.shape) / each
        return mixture.posterior_mean(w, own) / each

    each = torch.ones_like(w) if weights is None else weights.expand(w.shape)
    ends = torch.tensor([kappa_from, kappa_to], dtype=torch.float64)
    return odeint(rate, w.double(), ends, rtol=tolerance, atol=tolerance, method="dopri8")[-1]
