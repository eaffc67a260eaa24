"""Guidance by the gradient G of an energy E of the clean estimate, and where it enters a step (DifIISR, arXiv
2503.01187).

The paper says "into the noise during the reverse process" and gives no coefficients that could be read; its code has no
guidance. Every way in is a change of x0, lambda `strength`:

    x0' = x0hat - lambda f G,    noise' = noise + lambda f (a/s) G,

so x = a x0' + b y + s noise' stays true and every sampler takes it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.estimate import Estimate
from ornstein.process.affine import Process, as_time, combine

Energy = Callable[[Tensor], Tensor]
"""E of clean signals (B, *), one number a sample."""


class Injection(ABC):
    """Where G enters."""

    of_state: ClassVar[bool] = True
    """Whether G is the gradient with respect to x_t, through the network, or to x0hat."""
    needs_next: ClassVar[bool] = False
    """Whether f depends on where the step ends."""

    @abstractmethod
    def factor(self, process: Process, t: Tensor, s: Tensor) -> Tensor:
        """f at time `t` for a step to `s`, s <= t; a coefficient."""


@dataclass(frozen=True)
class ShiftedMean(Injection):
    """mu' = mu - lambda tau^2 G, mu and tau^2 mean and variance of the ancestral step from t to s, G = grad_{x_t} E.

    f = tau^2 / w, w the weight of x0 in that step: (s at its end)^2 on residual shifting, where the last step, without
    variance, is not guided. `Ancestral(eta=1)` takes exactly this step. Other samplers take their own step with the
    same x0': it is the clean signal that would have moved the mean so.
    """

    needs_next = True

    def factor(self, process: Process, t: Tensor, s: Tensor) -> Tensor:
        weights = process.step_weights(t, s)
        moves = weights.x0 != 0
        some = torch.where(moves, weights.x0, torch.ones_like(weights.x0))
        return torch.where(moves, weights.noise**2 / some, torch.zeros_like(some))


@dataclass(frozen=True)
class RaisedNoise(Injection):
    """noise' = noise + lambda s G, the paper's wording: f = s^2/a, G = grad_{x_t} E; the score falls by lambda G.

    This is `EnergyGuidance`. On residual shifting f falls from 197 to 0.0016 over 15 steps: the first ones explode
    without `ClippedNorm` or a `GuidanceInterval`. Where a = 0 nothing changes.
    """

    def factor(self, process: Process, t: Tensor, s: Tensor) -> Tensor:
        a, _, noise, _ = process.coefficients(t)
        acts = a != 0
        return torch.where(acts, noise**2 / torch.where(acts, a, torch.ones_like(a)), torch.zeros_like(a))


@dataclass(frozen=True)
class ShiftedEstimate(Injection):
    """x0' = x0hat - lambda G, G = grad_{x0hat} E: f = 1, and nothing is propagated through the network."""

    of_state = False

    def factor(self, process: Process, t: Tensor, s: Tensor) -> Tensor:
        return torch.ones_like(t)


class Treatment(ABC):
    """Changes G (B, *) before it is used."""

    @abstractmethod
    def __call__(self, gradient: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Normalized(Treatment):
    """G sqrt(n)/(|G| + 1e-12), n the values of a sample: its root mean square is 1."""

    def __call__(self, gradient: Tensor) -> Tensor:
        count = gradient[0].numel()
        return gradient * count**0.5 / (_norm(gradient) + 1e-12)


@dataclass(frozen=True)
class ClippedNorm(Treatment):
    """G min(1, limit/|G|) of each sample.

    Raises:
        UserError: limit is not positive.
    """

    limit: float

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise UserError(f"the limit of the gradient's norm is {self.limit}; it must be positive")

    def __call__(self, gradient: Tensor) -> Tensor:
        return gradient * (self.limit / _norm(gradient).clamp(min=torch.finfo(gradient.dtype).tiny)).clamp(max=1)


class Pull(NamedTuple):
    """What pulls on an estimate."""

    estimate: Estimate
    """Unguided, without a graph."""
    gradient: Tensor
    """G (B, *), treated."""
    energy: Tensor
    """E, (B,)."""


class GradientGuidance:
    """x0hat - lambda f G and the noise that belongs to it; G is the gradient of `energy`.

    No noise is drawn. strength 0 and steps with f = 0 give the estimate of `denoiser` itself, to the last bit. G goes
    through everything between x_t and E: input scaling, network and what the energy decodes with.

    Args:
        denoiser: what is guided; differentiable.
        energy: E of clean estimates (B, *), one number a sample.
        injection: where G enters.
        strength: lambda.
        treatments: of G, in this order, such as `Normalized`, `ClippedNorm`.
        times: of the sampler, `sampler.times(process)`, where the injection needs the end of a step; None for all
            levels of a tabulated process. A call between them counts as a step to the next one below.

    Raises:
        UserError: strength is negative or not finite, or the injection needs times that are missing.
    """

    def __init__(
        self,
        denoiser: DenoiserLike,
        energy: Energy,
        injection: Injection = ShiftedMean(),
        strength: float = 1.0,
        treatments: Sequence[Treatment] = (),
        times: Tensor | None = None,
    ) -> None:
        if not 0 <= strength < float("inf"):
            raise UserError(f"the strength of guidance is {strength}; give a number from 0 on")
        self.denoiser = denoiser
        self.process = denoiser.process
        self.energy, self.injection, self.strength = energy, injection, strength
        self.treatments = tuple(treatments)
        self.times = _levels(self.process) if times is None and injection.needs_next else times

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        t = as_time(t)
        factor = self.strength * self.injection.factor(self.process, t, self._next(t))
        if self.strength == 0 or (factor.device.type == "cpu" and not bool(factor.any())):
            return self.denoiser(x, t, y, **condition)
        estimate, gradient, _ = self.pull(x, t, y, **condition)
        a, _, s, _ = estimate.process.coefficients(t)
        noisy = s != 0
        back = torch.where(noisy, factor * a / torch.where(noisy, s, torch.ones_like(s)), torch.zeros_like(s))
        one = torch.ones(())
        x0 = combine(x, (one, estimate.x0), (-factor, gradient))
        noise = combine(x, (one, estimate.noise), (back, gradient))
        return Estimate(estimate.process, x, t, x0, noise, estimate.y)

    def pull(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Pull:
        """The unguided estimate of `x` (B, *) with G and E there.

        Raises:
            UserError: the energy does not depend on what it is differentiated by.
        """
        with torch.enable_grad():
            if self.injection.of_state:
                state = x.detach().requires_grad_()
                estimate = self.denoiser(state, t, y, **condition)
                energy = self.energy(estimate.x0)
            else:
                with torch.no_grad():
                    estimate = self.denoiser(x, t, y, **condition)
                state = estimate.x0.detach().requires_grad_()
                energy = self.energy(state)
            if not energy.requires_grad:
                raise UserError("the energy that guides has no gradient; give one, and a network, that keep it")
            (gradient,) = torch.autograd.grad(energy.sum(), state)
        for treatment in self.treatments:
            gradient = treatment(gradient)
        observed = None if estimate.y is None else estimate.y.detach()
        kept = Estimate(estimate.process, x, estimate.t, estimate.x0.detach(), estimate.noise.detach(), observed)
        return Pull(kept, gradient.detach(), energy.detach())

    def _next(self, t: Tensor) -> Tensor:
        """Where the step from `t` ends: the last time of the grid below it, or `t` itself."""
        if self.times is None:
            return t
        times = self.times.to(t.device).sort().values
        before = torch.searchsorted(times, (t - 1e-9 * self.process.T).contiguous()) - 1
        return torch.where(before >= 0, times[before.clamp(min=0)], t)


def _levels(process: Process) -> Tensor:
    levels = getattr(process, "levels", None)
    if levels is None:
        raise UserError(
            f"guidance of the mean needs the steps on {type(process).__name__}; give times=sampler.times(process)"
        )
    return torch.arange(levels + 1, dtype=torch.float64)


def _norm(gradient: Tensor) -> Tensor:
    return gradient.flatten(1).norm(dim=1).reshape(-1, *(1,) * (gradient.ndim - 1))
