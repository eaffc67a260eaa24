"""RED-diff: variational inference with the denoiser as regulariser (Mardani et al., ICLR 2024, arXiv 2305.04391)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.inverse_problems.base import PosteriorSampler, require_one_level, require_positive
from ornstein.noise import Noise
from ornstein.process.affine import Process
from ornstein.samplers.base import drawn

Weighting = Literal["linear", "sqrt", "square", "log", "clip", "constant"]


@dataclass(frozen=True, eq=False, kw_only=True)
class REDDiff(PosteriorSampler):
    """Optimises one signal mu by Adam along descending times (algorithm 1); it seeks a mode and is no sampler.

    The gradient of weight w_t mean[(noise_hat - n) mu] + fidelity mean|r - H mu|^2/2, both means over one sample, so
    that the samples of a batch do not act on each other. One call a step, no gradient through the network. `trajectory`
    takes mu to begin with, `start` gives H^+ r.
    """

    weight: float = 0.25
    """lambda."""
    weighting: Weighting = "linear"
    """w_t as a function of s/a."""
    fidelity: float = 1.0
    learning_rate: float = 0.1
    epsilon: float = 1e-8
    """Of Adam. Published means run over a batch of B too, which is epsilon = B 1e-8 here."""
    start_noise: float = 0.0
    """Standard deviation of the noise around mu, sigma_x0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weighting not in get_args(Weighting):
            raise UserError(f"RED-diff has the weights {', '.join(get_args(Weighting))}, not {self.weighting!r}")
        if not (self.learning_rate > 0 and self.epsilon > 0):
            raise UserError(f"learning_rate and epsilon are positive, got {self.learning_rate} and {self.epsilon}")
        if not min(self.weight, self.fidelity, self.start_noise) >= 0:
            raise UserError("weight, fidelity and start_noise of RED-diff are not negative")

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def differentiable(self) -> bool:
        return False

    def start(self, process: Process, noise: Noise, y: Tensor | None = None) -> Tensor:
        return self.operator.pseudo_inverse(self.measurement)

    def gradient(
        self,
        denoiser: DenoiserLike,
        mu: Tensor,
        t: Tensor,
        n: Tensor,
        jitter: Tensor | None = None,
        y: Tensor | None = None,
        **condition: Tensor,
    ) -> Tensor:
        """Of the loss at time `t` with the draw `n` for x_t and `jitter` for mu, (B, *)."""
        centre = mu if jitter is None else mu + self.start_noise * jitter
        noise = denoiser(denoiser.process.sample(centre, t, n, y), t, y, **condition).noise
        residual = self.operator(mu) - self.measurement
        prior = self.weight * self._weight(denoiser.process, t) / mu[0].numel() * (noise - n)
        return prior + self.fidelity / residual[0].numel() * self.operator.adjoint(residual)

    def trajectory(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        **condition: Tensor,
    ) -> Iterator[Tensor]:
        require_one_level(denoiser.process, "RED-diff")
        mu = x.clone()
        optimizer = torch.optim.Adam([mu], lr=self.learning_rate, betas=(0.9, 0.99), eps=self.epsilon)
        for t, _ in self.pairs(denoiser.process):
            jitter, n = drawn(noise, mu), drawn(noise, mu)
            mu.grad = self.gradient(denoiser, mu, t, n, jitter, y, **condition)
            optimizer.step()
            yield mu.clone()

    def _weight(self, process: Process, t: Tensor) -> float:
        a, _, s, _ = process.coefficients(t)
        if self.weighting != "constant":
            require_positive(a, "a", f"RED-diff with {self.weighting} weights", process, t)
        ratio = s / a
        shapes = {
            "linear": ratio,
            "sqrt": ratio.sqrt(),
            "square": ratio**2,
            "log": ratio.log1p(),
            "clip": ratio.clamp(max=1),
            "constant": torch.ones_like(ratio),
        }
        return float(shapes[self.weighting])
