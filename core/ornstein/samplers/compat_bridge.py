"""The published bridge sampler with its quirks, for checkpoints trained beside it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.noise import Noise
from ornstein.process.affine import StepWeights, as_time, combine
from ornstein.samplers.base import Sampler, drawn
from ornstein.samplers.time_grids import TimeGrid, UniformGrid


class _Bridge(Protocol):
    """What the published formulas need of a bridge."""

    eps: float

    def variances(self, t: Tensor) -> tuple[Tensor, Tensor, float]: ...


@dataclass(frozen=True)
class PublishedBridge(Sampler):
    """First-order bridge sampler that tells the network the time it goes TO (Jukic et al. 2024, as in the code of
    SGMSE+).

    The state is at t, the network is asked at s < t: this is what the published checkpoints were evaluated with. `sde`
    draws noise in every step but the last. Where the process has eps > 0, eps enters the weights as published.
    `Ancestral` is the same rule with the network asked at t.
    """

    steps: int = 50
    grid: TimeGrid = UniformGrid(end=1e-4)
    mode: Literal["sde", "ode"] = "sde"

    def __post_init__(self) -> None:
        if self.mode not in ("sde", "ode"):
            raise UserError(f"PublishedBridge has the modes sde and ode, not {self.mode!r}")

    @property
    def convergence_order(self) -> int | None:
        return 1 if self.mode == "ode" else None

    @property
    def stochastic(self) -> bool:
        return self.mode == "sde"

    def trajectory(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        **condition: Tensor,
    ) -> Iterator[Tensor]:
        if not hasattr(denoiser.process, "variances"):
            raise ValueError(
                f"PublishedBridge works on a bridge, not on {type(denoiser.process).__name__}; use Ancestral"
            )
        bridge = cast(_Bridge, denoiser.process)
        pairs = list(self.pairs(denoiser.process))
        weights_of = published_sde_weights if self.mode == "sde" else published_ode_weights
        for i, (t, s) in enumerate(pairs):
            w = weights_of(bridge, t, s)
            if i == 0:
                # the state is y: merging its two huge ODE weights of opposite sign keeps float32 from losing 3 digits
                w = StepWeights(x=torch.zeros_like(w.x), x0=w.x0, y=w.x + w.y, noise=w.noise)
            x0 = denoiser(x, s, y, **condition).x0
            z = drawn(noise, x) if self.mode == "sde" and i < len(pairs) - 1 else None
            x = combine(x, (w.x, x), (w.x0, x0), (w.y, y), (w.noise, z))
            yield x


def published_sde_weights(bridge: _Bridge, t: Tensor, s: Tensor) -> StepWeights:
    """q = v_s/(v_t + eps): x_s = q x + (1 - q) x0 + sqrt(v_s (1 - q)) z."""
    v_t, _, _ = bridge.variances(as_time(t))
    v_s, _, _ = bridge.variances(as_time(s))
    q = v_s / (v_t + bridge.eps)
    return StepWeights(x=q, x0=1 - q, y=torch.zeros_like(q), noise=(v_s * (1 - q)).sqrt())


def published_ode_weights(bridge: _Bridge, t: Tensor, s: Tensor) -> StepWeights:
    """The first-order exponential step with p = sqrt(v), q = sqrt(r) and eps in every denominator."""
    v_t, r_t, total = bridge.variances(as_time(t))
    v_s, r_s, _ = bridge.variances(as_time(s))
    p_t, q_t, p_s, q_s = v_t.sqrt(), r_t.sqrt(), v_s.sqrt(), r_s.sqrt()
    eps = bridge.eps
    w_x0 = (r_s - q_t * p_s * q_s / (p_t + eps)) / (total + eps)
    if eps == 0 and bool(q_t == 0):  # the exact bridge at T: z counts as 0, the limit of the merged weights
        return StepWeights(x=torch.zeros_like(v_s), x0=w_x0, y=v_s / total, noise=torch.zeros_like(v_s))
    w_y = (v_s - p_t * p_s * q_s / (q_t + eps)) / (total + eps)
    return StepWeights(x=p_s * q_s / (p_t * q_t + eps), x0=w_x0, y=w_y, noise=torch.zeros_like(v_s))
