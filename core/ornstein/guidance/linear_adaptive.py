"""LinearAG: a linear guess of the unconditional estimate from the history (arXiv 2312.12487, section 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.estimate import Estimate, estimate_from_noise
from ornstein.guidance.classifier_free import ClassifierFreeGuidance
from ornstein.process.affine import as_time
from ornstein.samplers.base import Sampler, require_sampler


@dataclass(frozen=True)
class GuidanceHistory:
    """Noise estimates of guided runs: `times` (N,), `conditional` and `unconditional` (N, B, *)."""

    times: Tensor
    conditional: Tensor
    unconditional: Tensor


@dataclass(frozen=True)
class LinearPrediction:
    """u_i = sum_{j <= i} beta_ij c_j + sum_{j < i} gamma_ij u_j at the steps of `times` (N,).

    Row i of `coefficients` (N, 2 N - 1) holds beta_i0..beta_ii, gamma_i0..gamma_i(i-1), then zeros. `error` (N,) is
    |u - u_hat|^2/|u|^2 over the runs it was fitted on.
    """

    times: Tensor
    coefficients: Tensor
    error: Tensor

    def __call__(self, step: int, conditional: Sequence[Tensor], unconditional: Sequence[Tensor]) -> Tensor:
        """The guess at `step`, from c_0..c_step and u_0..u_(step-1), (B, *) each."""
        weights = self.coefficients[step, : 2 * step + 1].tolist()
        terms = [*conditional[: step + 1], *unconditional[:step]]
        return torch.stack([weight * term for weight, term in zip(weights, terms, strict=True)]).sum(0)


class _Recorder:
    def __init__(self, guidance: ClassifierFreeGuidance) -> None:
        self.guidance, self.process = guidance, guidance.process
        self.kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        conditional, unconditional = self.guidance.both(x, t, y, condition)
        self.kept.append((as_time(t), conditional.noise, unconditional.noise))
        return self.guidance.combine(conditional, unconditional)


def record_guidance(
    guidance: ClassifierFreeGuidance, sampler: Sampler, x: Tensor, y: Tensor | None = None, **condition: Tensor
) -> GuidanceHistory:
    """Run `sampler` from `x` (B, *) under `guidance` and keep both estimates of every step.

    Raises:
        UserError: the sampler draws noise, or calls the network more often than once a step.
    """
    require_sampler("linear adaptive guidance", sampler, guidance.process, deterministic=True)
    recorder = _Recorder(guidance)
    sampler(recorder, x, y, None, None, **condition)
    times, conditional, unconditional = (torch.stack(column) for column in zip(*recorder.kept, strict=True))
    return GuidanceHistory(times, conditional, unconditional)


def fit_linear_prediction(history: GuidanceHistory, ridge: float = 1e-4) -> LinearPrediction:
    """Least squares with `ridge` times the number of rows on the diagonal, one fit a step; float64.

    Without a ridge the training error is smallest and the guess explodes when it is fed back: 0 is refused.

    Raises:
        ValueError: ridge is not positive.
    """
    if ridge <= 0:
        raise ValueError(f"ridge is {ridge}; it must be positive, for example 1e-4: without it the guess diverges")
    steps = len(history.times)
    c, u = (_columns(kept) for kept in (history.conditional, history.unconditional))
    coefficients = torch.zeros(steps, 2 * steps - 1, dtype=torch.float64)
    error = torch.zeros(steps, dtype=torch.float64)
    for i in range(steps):
        terms = torch.cat([c[: i + 1], u[:i]]).T
        gram = terms.T @ terms + ridge * len(terms) * torch.eye(2 * i + 1, dtype=torch.float64)
        solution = torch.linalg.solve(gram, terms.T @ u[i])
        coefficients[i, : 2 * i + 1] = solution
        error[i] = ((terms @ solution - u[i]) ** 2).mean() / (u[i] ** 2).mean()
    return LinearPrediction(history.times.double().cpu(), coefficients, error)


def _columns(kept: Tensor) -> Tensor:
    real = torch.view_as_real(kept) if kept.is_complex() else kept
    return real.flatten(1).double().cpu()


class LinearAdaptiveGuidance:
    """Classifier-free guidance that guesses u at the steps `guessed` and uses c alone from step `conditional_from` on.

    Guesses enter the history. A guess with |u_hat - c| > fallback |u - c| of the last step, in any sample, is replaced
    by a real call; `fallback` None trusts every guess. The default guesses every other step of the first half.
    It needs a sampler with one call a step on the times of `prediction`; step 0 begins a run.

    Raises:
        ValueError: a call at a time that is not the next one of `prediction`.
    """

    def __init__(
        self,
        guidance: ClassifierFreeGuidance,
        prediction: LinearPrediction,
        guessed: Sequence[int] | None = None,
        conditional_from: int | None = None,
        fallback: float | None = 2.0,
    ) -> None:
        half = len(prediction.times) // 2
        self.guidance = guidance
        self.process = guidance.process
        self.prediction = prediction
        self.guessed = frozenset(range(1, half, 2) if guessed is None else guessed)
        self.conditional_from = half if conditional_from is None else conditional_from
        self.fallback = fallback
        if 0 in self.guessed:
            raise ValueError("step 0 has no history to guess from; leave it out of `guessed`")
        self._conditional: list[Tensor] = []
        self._unconditional: list[Tensor] = []

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        t = as_time(t)
        step = self._step(t)
        if step in self.guessed:
            conditional = self.guidance.denoiser(x, t, y, **condition)
            guess = self.prediction(step, [*self._conditional, conditional.noise], self._unconditional)
            if self._trusts(guess, conditional.noise):
                unconditional = estimate_from_noise(self.process, x, t, guess, y)
            else:
                unconditional = self.guidance.denoiser(x, t, y, **self.guidance.without(condition))
        elif step >= self.conditional_from:
            return self._keep(self.guidance.denoiser(x, t, y, **condition), None)
        else:
            conditional, unconditional = self.guidance.both(x, t, y, condition)
        self._keep(conditional, unconditional)
        return self.guidance.combine(conditional, unconditional)

    def _step(self, t: Tensor) -> int:
        step = len(self._conditional)
        times = self.prediction.times
        if t.ndim == 0 and bool((t - times[0]).abs() <= 1e-12 * times[0].abs()):
            self._conditional, self._unconditional, step = [], [], 0
        if t.ndim or step >= len(times) or not bool((t - times[step]).abs() <= 1e-9 * times[0].abs()):
            wanted = f"{float(times[step]):g}" if step < len(times) else "none"
            raise ValueError(
                f"linear adaptive guidance was fitted to other times: its step {step} is at {wanted}, the call at "
                f"{t.tolist()}; use the sampler, grid and number of steps of the fit, with one call a step"
            )
        return step

    def _trusts(self, guess: Tensor, conditional: Tensor) -> bool:
        if self.fallback is None:
            return True
        gap = (guess - conditional).flatten(1).norm(dim=1)
        before = (self._unconditional[-1] - self._conditional[-1]).flatten(1).norm(dim=1)
        return bool((gap <= self.fallback * before).all())

    def _keep(self, conditional: Estimate, unconditional: Estimate | None) -> Estimate:
        self._conditional.append(conditional.noise)
        self._unconditional.append(conditional.noise if unconditional is None else unconditional.noise)
        return conditional
