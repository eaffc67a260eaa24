"""Pseudoinverse-guided diffusion (PiGDM; Song et al., ICLR 2023, "Pseudoinverse-guided diffusion models")."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.estimate import Estimate
from ornstein.guidance.gradient import raise_score
from ornstein.inverse_problems.base import CorrectedDDIM, require_measurement, require_one_level, require_positive
from ornstein.inverse_problems.operators import LinearOperator
from ornstein.process.affine import as_time, combine


@dataclass(frozen=True, eq=False, kw_only=True)
class PiGDM(CorrectedDDIM):
    """The published step: DDIM(eta) with the unguided noise, plus scale a_s a_t g (algorithm 1).

    g = (dx0hat/dx)^T r^2 H^H (r^2 H H^H + sigma^2 I)^-1 (r - H x0hat) with r^2 = s^2/(a^2 + s^2); sigma = 0 makes it
    the pseudo-inverse.
    """

    sigma: float = 0.0
    """Standard deviation of the noise in the measurement."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sigma >= 0:
            raise UserError(f"sigma is a standard deviation and not negative, got {self.sigma}")

    def correction(
        self, denoiser: DenoiserLike, x: Tensor, t: Tensor, s: Tensor, y: Tensor | None, condition: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        require_one_level(denoiser.process, "PiGDM")
        a_t, _, s_t, _ = denoiser.process.coefficients(t)
        require_positive(s_t, "s", "PiGDM", denoiser.process, t)
        variance = float(s_t**2 / (a_t**2 + s_t**2))
        estimate, gradient = likelihood_gradient(
            denoiser, self.operator, self.measurement, x, t, y, self.sigma**2 / variance, **condition
        )
        return estimate.x0, combine(x, (denoiser.process.coefficients(s).a * a_t, gradient))


class PseudoinverseGuidance:
    """The same likelihood guiding the score, for every sampler: score + grad log N(r; H x0hat, q H H^H + sigma^2 I).

    q = s^2 d^2/(a^2 d^2 + s^2) is the variance of x0 given x_t when the data are N(0, d^2 I); there it is exact,
    mean and covariance.

    Args:
        denoiser: what is guided; differentiable.
        operator: H.
        measurement: r, (B, *).
        sigma: standard deviation of the noise in the measurement, positive.
        data_std: d.
    """

    def __init__(
        self,
        denoiser: DenoiserLike,
        operator: LinearOperator,
        measurement: Tensor,
        sigma: float,
        data_std: float = 1.0,
    ) -> None:
        if not (sigma > 0 and data_std > 0):
            raise UserError(f"sigma {sigma} and data_std {data_std} must be positive; give a small sigma such as 1e-3")
        if not bool(measurement.isfinite().all()):
            raise UserError("the measurement holds NaN or infinity; mend or mask it first")
        require_one_level(denoiser.process, "pseudoinverse guidance")
        self.denoiser = denoiser
        self.process = denoiser.process
        self.operator, self.measurement = operator, measurement
        self.sigma, self.data_std = sigma, data_std

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        t = as_time(t)
        a, _, s, _ = self.process.coefficients(t)
        if t.ndim:
            raise ValueError("pseudoinverse guidance takes one time for all samples")
        if float(s) == 0:  # the state is as good as its mean: there is no variance to share with the measurement
            return self.denoiser(x, t, y, **condition)
        variance = float(s**2 * self.data_std**2 / (a**2 * self.data_std**2 + s**2))
        estimate, gradient = likelihood_gradient(
            self.denoiser, self.operator, self.measurement, x, t, y, self.sigma**2 / variance, **condition
        )
        return raise_score(estimate, gradient / variance)


def likelihood_gradient(
    denoiser: DenoiserLike,
    operator: LinearOperator,
    measurement: Tensor,
    x: Tensor,
    t: Tensor,
    y: Tensor | None,
    noise_to_signal: float,
    **condition: Tensor,
) -> tuple[Estimate, Tensor]:
    """The estimate and (dx0hat/dx)^T H^H (H H^H + noise_to_signal I)^-1 (r - H x0hat), both without a graph."""
    with torch.enable_grad():
        state = x.detach().requires_grad_()
        estimate = denoiser(state, t, y, **condition)
        expected = operator(estimate.x0.detach())
        require_measurement(measurement, expected)
        residual = measurement - expected
        pulled = operator.regularized_inverse(residual, noise_to_signal)
        (gradient,) = torch.autograd.grad(estimate.x0, state, pulled)
    kept = Estimate(estimate.process, x, estimate.t, estimate.x0.detach(), estimate.noise.detach(), estimate.y)
    return kept, gradient
