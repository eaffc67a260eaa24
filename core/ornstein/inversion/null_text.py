"""Null-text inversion: a null embedding per step with which guided sampling reproduces a signal."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.estimate import Estimate
from ornstein.guidance.classifier_free import extrapolate
from ornstein.inversion.ddim import DDIMInversion
from ornstein.inversion.states import require_finite
from ornstein.process.affine import as_time
from ornstein.sampling_run import current_run

Condition = dict[str, Tensor]


@dataclass(frozen=True)
class NullTextCode:
    """What an inversion keeps: the start, the null conditions and how well every step was met."""

    start: Tensor
    """The state at the first time of the grid, (B, *)."""
    times: Tensor
    """The times at which the null conditions are used, (steps,)."""
    null: list[Condition]
    """The null condition of every step."""
    reconstruction: Tensor
    """Where guided sampling with them ends, (B, *)."""
    first_loss: Tensor
    """Mean squared distance to the pivot before the inner steps, (steps, B)."""
    last_loss: Tensor
    """The same at the last inner step, (steps, B)."""
    inner_steps: Tensor
    """Inner steps taken, (steps, B)."""


class NullTextGuidance:
    """A denoiser with the guidance of a code: the null condition of each step in place of the unconditional one.

    It is asked only at the times of the code, so it belongs to a sampler with one call a step on the same grid; one
    that calls twice at a time is refused.
    """

    def __init__(self, denoiser: DenoiserLike, code: NullTextCode, guidance: float = 7.5) -> None:
        self.denoiser, self.code, self.guidance = denoiser, code, guidance
        self.process = denoiser.process
        self._asked: tuple[object, int] | None = None

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        """Guided Estimate under `condition`, at a time of the code."""
        distance = (self.code.times - float(as_time(t))).abs()
        step = int(distance.argmin())
        if float(distance[step]) > 1e-9:
            raise UserError(f"the code has no null condition for t = {float(t):g}; sample on the grid it was made with")
        run = current_run()
        if run is not None:
            if self._asked is not None and self._asked[0] is run and step <= self._asked[1]:
                raise UserError(
                    f"null-text guidance needs a sampler of one call a step, and this one calls again at "
                    f"t = {float(t):g}; take one such as Euler"
                )
            self._asked = run, step
        unconditional = self.denoiser(x, t, y, **self.code.null[step])
        return extrapolate(self.denoiser(x, t, y, **condition), unconditional, self.guidance)


@dataclass(frozen=True)
class NullTextInversion:
    """Inverts with guidance 1, then fits the null condition of every step so that the guided DDIM step from the current
    state meets the pivot (Mokady et al. 2023, algorithm 1).

    Adam with rate learning_rate (1 - i/100) at step i, not below a hundredth of it (the published rate turns negative
    after 100 steps); a sample stops when its loss falls below tolerance + tolerance_growth i. Ten inner steps may leave
    a step unmet or even worse than unfitted: look at `last_loss`. Null conditions are fitted in float32 or better.
    """

    inversion: DDIMInversion = DDIMInversion(steps=50)
    guidance: float = 7.5
    inner_steps: int = 10
    learning_rate: float = 1e-2
    tolerance: float = 1e-5
    tolerance_growth: float = 2e-5

    def __post_init__(self) -> None:
        if self.inner_steps < 0 or self.learning_rate <= 0 or min(self.tolerance, self.tolerance_growth) < 0:
            raise UserError("null-text inversion needs inner_steps >= 0, learning_rate > 0 and tolerances >= 0")

    def __call__(
        self, denoiser: DenoiserLike, x0: Tensor, condition: Condition, null: Condition, y: Tensor | None = None
    ) -> NullTextCode:
        """Code `x0` (B, *), whose meaning `condition` describes; `null` holds the unconditional one.

        The floating-point tensors of `null`, each (B, *), are what is fitted; the network's weights get no gradient.

        Raises:
            UserError: nothing in `null` can be fitted or does not fit the batch, or the network gives NaN.
        """
        free = {name: value for name, value in null.items() if value.is_floating_point()}
        if not free or any(len(value) != len(x0) for value in free.values()):
            raise UserError(
                f"the null condition must hold floating-point tensors with one row for each of {len(x0)} samples; "
                f"got { ({name: tuple(value.shape) for name, value in null.items()}) }"
            )
        pivot = self.inversion.states(denoiser, x0, y, **condition)
        pairs = list(self.inversion.sampler.pairs(denoiser.process))
        exact = {name: torch.promote_types(value.dtype, torch.float32) for name, value in free.items()}
        current = {name: value.detach().to(exact[name]) for name, value in free.items()}
        x, nulls, records = pivot[0], [], []
        for i, (t, s) in enumerate(pairs):
            with torch.no_grad():
                conditional = denoiser(x, t, y, **condition)

            def step(values: Condition, x=x, t=t, s=s, conditional=conditional) -> Tensor:  # type: ignore[no-untyped-def]
                full = {**null, **{name: value.to(null[name].dtype) for name, value in values.items()}}
                estimate = extrapolate(conditional, denoiser(x, t, y, **full), self.guidance)
                return denoiser.process.step(x, t, s, estimate.x0, y)

            current, record = self._fit(step, current, pivot[i + 1], i)
            records.append(record)
            nulls.append({**null, **{name: value.to(null[name].dtype) for name, value in current.items()}})
            with torch.no_grad():
                x = step(current)
        first, last, count = (torch.stack(column) for column in zip(*records, strict=True))
        times = torch.stack([t for t, _ in pairs])
        return NullTextCode(pivot[0], times, nulls, require_finite(x, "the reconstruction"), first, last, count)

    def decode(
        self, denoiser: DenoiserLike, code: NullTextCode, y: Tensor | None = None, **condition: Tensor
    ) -> Tensor:
        """Guided sampling from a code; the condition of the inversion reconstructs, another one edits."""
        model = NullTextGuidance(denoiser, code, self.guidance)
        return self.inversion.sampler(model, code.start, y, noise=None, on_step=None, **condition)

    def _fit(self, step, start: Condition, target: Tensor, i: int):  # type: ignore[no-untyped-def]
        """The fitted null condition of one step, and its first loss, last loss and count, each (B,)."""
        values = {name: value.clone().requires_grad_() for name, value in start.items()}
        rate = self.learning_rate * max(1 - i / 100, 0.01)
        optimizer = torch.optim.Adam(values.values(), lr=rate)
        active = torch.ones(len(target), dtype=torch.bool, device=target.device)
        first = last = torch.full((len(target),), torch.nan, device=target.device)
        count = torch.zeros(len(target), dtype=torch.long, device=target.device)
        for inner in range(self.inner_steps):
            loss = (step(values) - target).abs().square().flatten(1).mean(1)
            gradients = torch.autograd.grad(loss.sum(), list(values.values()))
            before = {name: value.detach().clone() for name, value in values.items()}
            for value, gradient in zip(values.values(), gradients, strict=True):
                value.grad = gradient
            optimizer.step()
            with torch.no_grad():
                for name, value in values.items():
                    value.copy_(torch.where(active.reshape(-1, *(1,) * (value.ndim - 1)), value, before[name]))
            loss = require_finite(loss.detach(), "the loss of a null condition")
            first = loss if inner == 0 else first
            last = torch.where(active, loss, last.to(loss))
            count = count + active
            active = active & (loss >= self.tolerance + self.tolerance_growth * i)
            if not bool(active.any()):
                break
        return {name: value.detach() for name, value in values.items()}, (first, last, count)
