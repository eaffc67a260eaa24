"""Ancestral sampling with eta, for every process: DDPM and DDIM on VP, the bridge SDE and ODE on a bridge."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.noise import Noise
from ornstein.samplers.base import Sampler, drawn
from ornstein.samplers.weights import Scaling, step_weights, weighted


@dataclass(frozen=True)
class Ancestral(Sampler):
    """Steps through the posterior q(x_s | x_t, x0, y) with its standard deviation scaled by eta.

    eta = 1: ancestral sampling (DDPM; the published SDE sampler of a bridge). eta = 0: deterministic (DDIM, Song et
    al. 2021, equation 12; the published ODE sampler of a bridge, which starts at w = 0). First order.
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        require_share(self.eta)

    @property
    def convergence_order(self) -> int | None:
        return 1

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def trajectory(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        **condition: Tensor,
    ) -> Iterator[Tensor]:
        process = denoiser.process
        times, scaling = self.times(process), Scaling(process)
        for t, w in zip(times, step_weights(process, times, self.eta), strict=False):
            estimate = denoiser(x, t, y, **condition)
            z = None if isinstance(w.noise, float) and w.noise == 0 else scaling(drawn(noise, x))
            x = weighted(x, (w.x, x), (w.x0, estimate.x0), (w.y, process.require(estimate.y)), (w.noise, z))
            yield x


def require_share(eta: float) -> None:
    """Raise UserError for an eta that no posterior step has."""
    if not 0 <= eta <= 1:
        raise UserError(f"eta lies between 0 (deterministic) and 1 (the posterior), got {eta}")
