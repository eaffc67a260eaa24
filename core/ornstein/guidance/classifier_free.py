"""Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598), its interval and its rescaling."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ornstein.acceleration.branches import evaluate_together
from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.estimate import Estimate, estimate_from_x0
from ornstein.process.affine import as_time


class ClassifierFreeGuidance:
    """u + scale (c - u), c the estimate under the condition of the call and u under `unconditional`, in one call.

    scale = 1 is c, scale = 0 is u. A negative prompt is another `unconditional`.

    Args:
        denoiser: takes every name of `unconditional` as condition.
        scale: w.
        unconditional: what stands in place of the condition; an entry is for all samples, (*), or one a sample, (B, *).
            Conditions that are not named here go to both.
        rescale: phi of Lin et al. 2023 (arXiv 2305.08891, equation 16): how much of the standard deviation of the
            conditional x0 is restored, 0 to 1.

    Raises:
        UserError: the scale is NaN or infinite.
        ValueError: a call lacks a condition that `unconditional` names.
    """

    def __init__(
        self, denoiser: DenoiserLike, scale: float, unconditional: Mapping[str, Tensor], rescale: float = 0.0
    ) -> None:
        if not unconditional:
            raise ValueError("name the unconditional value of at least one condition")
        if not 0 <= rescale <= 1:
            raise ValueError(f"rescale is {rescale}; it must lie between 0 and 1")
        require_scale(scale)
        self.denoiser = denoiser
        self.process = denoiser.process
        self.scale = scale
        self.unconditional = dict(unconditional)
        self.rescale = rescale

    def without(self, condition: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The condition (B, *) with the unconditional values in place."""
        missing = [name for name in self.unconditional if name not in condition]
        if missing:
            raise ValueError(f"guidance needs the condition {missing[0]}; pass it to the sampler")
        emptied = dict(condition)
        for name, value in self.unconditional.items():
            like = condition[name]
            if value.device != like.device:  # kept there: a copy from the host would be waited for in every call
                self.unconditional[name] = value = value.to(like.device)
            if value.ndim == like.ndim and like.ndim and len(value) not in (1, len(like)):
                raise UserError(
                    f"the unconditional {name} has {len(value)} rows and the condition {len(like)}; give one for all"
                )
            emptied[name] = value.to(device=like.device, dtype=like.dtype).expand(like.shape)
        return emptied

    def both(
        self, x: Tensor, t: Tensor | float, y: Tensor | None, condition: Mapping[str, Tensor]
    ) -> tuple[Estimate, Estimate]:
        """The conditional and the unconditional estimate, from one call."""
        conditional, unconditional = evaluate_together(self.denoiser, x, t, [condition, self.without(condition)], y)
        return conditional, unconditional

    def combine(self, conditional: Estimate, unconditional: Estimate) -> Estimate:
        """u + scale (c - u) in x0 and noise, rescaled."""
        guided = extrapolate(conditional, unconditional, self.scale)
        return guided if self.rescale == 0 else restore_deviation(guided, conditional, self.rescale)

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        return self.combine(*self.both(x, t, y, condition))


class GuidanceInterval:
    """`guided` where low <= t <= high, `plain` elsewhere (Kynkaanniemi et al. 2024, arXiv 2404.07724).

    Raises:
        ValueError: low > high, or a batch with times on both sides.
    """

    def __init__(self, guided: DenoiserLike, plain: DenoiserLike, low: float, high: float) -> None:
        if not low <= high:
            raise ValueError(f"the guidance interval from {low:g} to {high:g} is empty; give low <= high")
        self.guided, self.plain = guided, plain
        self.process = guided.process
        self.low, self.high = low, high

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        t = as_time(t)
        inside = (t >= self.low) & (t <= self.high)
        if bool(inside.any()) and not bool(inside.all()):
            raise ValueError(
                "the samples of a batch stand on both sides of the guidance interval; give one time to all"
            )
        return (self.guided if bool(inside.all()) else self.plain)(x, t, y, **condition)


def require_scale(scale: float) -> None:
    """Raise UserError if the scale of guidance is NaN or infinite."""
    if not math.isfinite(scale):
        raise UserError(f"the scale of guidance is {scale}; give a finite number")


def extrapolate(one: Estimate, other: Estimate, scale: float) -> Estimate:
    """other + scale (one - other), in x0, noise and an estimated y; x = a x0 + b y + s noise stays true."""
    x0 = other.x0 + scale * (one.x0 - other.x0)
    noise = other.noise + scale * (one.noise - other.noise)
    y = one.y if one.y is None or other.y is None or one.y is other.y else other.y + scale * (one.y - other.y)
    return Estimate(one.process, one.x, one.t, x0, noise, y)


def restore_deviation(guided: Estimate, conditional: Estimate, share: float) -> Estimate:
    """x0 scaled by 1 + share (std(conditional)/std(guided) - 1), each deviation over one sample."""
    shape = (-1, *(1,) * (guided.x0.ndim - 1))
    wanted, is_now = (torch.std(e.x0.flatten(1), dim=1).reshape(shape) for e in (conditional, guided))
    x0 = guided.x0 * (1 + share * (wanted / is_now.clamp(min=torch.finfo(is_now.dtype).tiny) - 1))
    return estimate_from_x0(guided.process, guided.x, guided.t, x0, guided.y)
