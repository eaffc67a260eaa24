"""Interpolation of two signals through their noise: NoiseDiffusion, and slerp and lerp to compare."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.inversion.ddim import DDIMInversion
from ornstein.inversion.states import require_finite
from ornstein.noise import Noise
from ornstein.process.affine import as_time, combine, expand
from ornstein.samplers.base import drawn


def lerp(first: Tensor, second: Tensor, fraction: float) -> Tensor:
    """(1 - fraction) first + fraction second."""
    return (1 - fraction) * first + fraction * second


def slerp(first: Tensor, second: Tensor, fraction: float) -> Tensor:
    """Along the great circle between the directions of two signals, sample by sample (Shoemake 1985); (B, *).

    [sin((1 - f) angle) first + sin(f angle) second]/sin(angle); where they are parallel or opposite the circle is not
    unique, and it is `lerp`.
    """
    one, two = first.flatten(1), second.flatten(1)
    norms = (one.norm(dim=1) * two.norm(dim=1)).double()
    cosine = ((one * two.conj()).sum(1).real.double() / norms).nan_to_num(nan=1.0).clamp(-1, 1)  # no direction: lerp
    cosine = cosine.reshape(-1, *(1,) * (first.ndim - 1))
    sine = (1 - cosine**2).sqrt()
    angle = torch.atan2(sine, cosine)
    degenerate = sine < 1e-6
    safe = torch.where(degenerate, torch.ones_like(sine), sine)
    left = torch.where(degenerate, 1 - fraction, torch.sin((1 - fraction) * angle) / safe)
    right = torch.where(degenerate, fraction, torch.sin(fraction * angle) / safe)
    return left.to(first.real.dtype) * first + right.to(first.real.dtype) * second


class Inverted(NamedTuple):
    """Two inverted signals, (B, *) each."""

    latents: tuple[Tensor, Tensor]
    """l1 and l2, scaled to unit variance."""
    signals: tuple[Tensor, Tensor]
    """What was inverted, I1 and I2."""
    a: Tensor
    """Weight of the signal in a latent."""
    s: Tensor
    """Standard deviation of the noise in a latent."""


class Mixing(ABC):
    """How two noisy signals become one."""

    @abstractmethod
    def __call__(self, ends: Inverted, fraction: float, noise: Noise | None = None) -> Tensor:
        """The mixed latent, (B, *); `fraction` 0 gives the first, 1 the second, `noise` is a source where some is
        added."""


@dataclass(frozen=True)
class Slerp(Mixing):
    """`slerp` of the latents (Song et al. 2021, section 5.3)."""

    def __call__(self, ends: Inverted, fraction: float, noise: Noise | None = None) -> Tensor:
        return slerp(*ends.latents, fraction)


@dataclass(frozen=True)
class Lerp(Mixing):
    """`lerp` of the latents: their variance falls to one half in the middle."""

    def __call__(self, ends: Inverted, fraction: float, noise: Noise | None = None) -> Tensor:
        return lerp(*ends.latents, fraction)


@dataclass(frozen=True)
class NoiseDiffusion(Mixing):
    """alpha l1 + beta l2 + (mu - alpha) a I1 + (nu - beta) a I2 + gamma s n, the latents and the sum clipped to +-clip
    (Zheng et al. 2024, equation 8).

    alpha = sqrt(1 - gamma^2) cos(f 90 deg), beta with the sine, (mu, nu) = strength (alpha, beta)/(alpha + beta).
    Latent spaces want a wider clip, 3. At the ends mu = strength: the published 1.2 does not give the signals
    themselves.
    """

    clip: float = 2.0
    gamma: float = 0.0
    strength: float = 1.2

    def __post_init__(self) -> None:
        if self.clip <= 0 or not 0 <= self.gamma < 1:
            raise UserError(f"NoiseDiffusion needs clip > 0 and 0 <= gamma < 1, got {self.clip:g} and {self.gamma:g}")

    def weights(self, fraction: float) -> tuple[float, float, float, float]:
        """alpha, beta, mu, nu."""
        spread = math.sqrt(1 - self.gamma**2)
        alpha, beta = (spread * f(fraction * math.pi / 2) for f in (math.cos, math.sin))
        return alpha, beta, self.strength * alpha / (alpha + beta), self.strength * beta / (alpha + beta)

    def __call__(self, ends: Inverted, fraction: float, noise: Noise | None = None) -> Tensor:
        first, second = (_clipped(latent, self.clip) for latent in ends.latents)
        alpha, beta, mu, nu = self.weights(fraction)
        mixed = alpha * first + beta * second
        mixed = mixed + expand(ends.a, mixed) * ((mu - alpha) * ends.signals[0] + (nu - beta) * ends.signals[1])
        if self.gamma > 0:
            mixed = mixed + self.gamma * expand(ends.s, mixed) * drawn(noise, mixed)
        return _clipped(mixed, self.clip)


def _clipped(x: Tensor, limit: float) -> Tensor:
    if x.is_complex():
        return x * (limit / x.abs().clamp(min=limit))
    return x.clamp(-limit, limit)


@dataclass(frozen=True)
class Interpolation:
    """Inverts two signals to the start of a grid, mixes them there and samples from the mixture.

    Mixing is done on (x - b y)/sqrt(a^2 + s^2), which is x itself where a process preserves the variance. The
    published setting is DDIM with 200 steps, up to step 140.
    """

    inversion: DDIMInversion = DDIMInversion(steps=200)
    mixing: Mixing = NoiseDiffusion()

    def __call__(
        self,
        denoiser: DenoiserLike,
        first: Tensor,
        second: Tensor,
        fraction: float,
        y: Tensor | tuple[Tensor, Tensor] | None = None,
        noise: Noise | None = None,
        guided: DenoiserLike | None = None,
        **condition: Tensor,
    ) -> Tensor:
        """The signal between `first` and `second`, both (B, *).

        Args:
            denoiser: inverts the signals, guidance 1.
            first: the signal at fraction 0.
            second: the signal at fraction 1.
            fraction: from 0 to 1.
            y: the observation of both, or of each; the mixture then has their `lerp`.
            noise: a source of noise, for a mixing that adds some.
            guided: samples from the mixture, `denoiser` if None.
            **condition: the condition of every call.

        Raises:
            UserError: `fraction` is outside [0, 1], the signals differ in shape, or the network gives NaN.
        """
        if not 0 <= fraction <= 1:
            raise UserError(f"the fraction must be from 0 to 1, got {fraction:g}")
        if first.shape != second.shape:
            raise UserError(f"cannot interpolate {tuple(first.shape)} and {tuple(second.shape)}; give equal shapes")
        observed = (y, y) if not isinstance(y, tuple) else y
        between = None if observed[0] is None or observed[1] is None else lerp(observed[0], observed[1], fraction)
        t, _ = next(iter(self.inversion.sampler.pairs(denoiser.process)))
        a, b, s, _ = denoiser.process.coefficients(as_time(t))
        scale = (a**2 + s**2).sqrt()
        latents = []
        for signal, own in zip((first, second), observed, strict=True):
            x = self.inversion(denoiser, signal, own, **condition)
            latents.append(combine(x, (1 / scale, x), (-b / scale, denoiser.process.require(own))))
        ends = Inverted((latents[0], latents[1]), (first, second), a / scale, s / scale)
        mixed = self.mixing(ends, fraction, noise)
        start = combine(mixed, (scale, mixed), (b, denoiser.process.require(between)))
        sampled = self.inversion.sampler(guided or denoiser, start, between, noise=None, on_step=None, **condition)
        return require_finite(sampled, "the interpolated signal")
