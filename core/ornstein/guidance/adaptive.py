"""Adaptive Guidance: stop asking for the unconditional estimate once it agrees (arXiv 2312.12487, section 4)."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ornstein.acceleration.branches import one_a_row
from ornstein.errors import UserError
from ornstein.estimate import Estimate
from ornstein.guidance.classifier_free import ClassifierFreeGuidance
from ornstein.process.affine import as_time
from ornstein.sampling_run import current_run


class AdaptiveGuidance:
    """Classifier-free guidance that each sample leaves on its own: after a step with cos(c, u) > threshold it uses c.

    c and u are two estimates of one sample. The paper compares the noise; but where the state is nearly all noise, both
    noise estimates are the state itself and the cosine is 1 from the first step on. The cosine of x0 rises with the
    steps and is the default. Which samples have left is remembered between the calls of one run, whatever their times.
    Every call of a sampler is a run of its own; where a trajectory is driven by hand, `reset`, another batch size or a
    later time than any before begins one. threshold > 1 is plain classifier-free guidance, threshold < -1 is the
    conditional estimate.

    Args:
        guidance: the classifier-free guidance to leave.
        threshold: gamma-bar.
        compare: the field of the two estimates.

    Raises:
        UserError: another `compare`, or a threshold that is NaN.
    """

    def __init__(
        self, guidance: ClassifierFreeGuidance, threshold: float = 0.991, compare: Literal["x0", "noise"] = "x0"
    ) -> None:
        if compare not in ("x0", "noise"):
            raise UserError(f"adaptive guidance compares x0 or noise, not {compare!r}")
        if math.isnan(threshold):
            raise UserError("the threshold of adaptive guidance is NaN; give a cosine such as 0.991")
        self.guidance = guidance
        self.process = guidance.process
        self.threshold = threshold
        self.compare = compare
        self.reset()

    def reset(self) -> None:
        """Forget the run."""
        self._active: Tensor | None = None
        self._run: object | None = None
        self._first = float("inf")

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        t = as_time(t)
        active = self._guided(len(x), t)
        if bool(active.all()):
            conditional, unconditional = self.guidance.both(x, t, y, condition)
            self._active = ~self._agrees(conditional, unconditional)
            return self.guidance.combine(conditional, unconditional)
        if not bool(active.any()):
            return self.guidance.denoiser(x, t, y, **condition)
        rows = active.nonzero()[:, 0]
        conditional, unconditional = self._some(x, t, y, condition, rows)
        guided = self.guidance.combine(_rows(conditional, rows), unconditional)
        self._active = active.index_put((rows,), ~self._agrees(_rows(conditional, rows), unconditional))
        x0, noise = conditional.x0.clone(), conditional.noise.clone()
        x0[rows], noise[rows] = guided.x0, guided.noise
        observed = conditional.y
        if observed is not None and guided.y is not None:  # a network may estimate it, and guidance moves it then
            observed = observed.clone()
            observed[rows] = guided.y
        return Estimate(conditional.process, x, t, x0, noise, observed)

    def _guided(self, count: int, t: Tensor) -> Tensor:
        """Which of the `count` samples are still guided at `t`, (B,) on the host."""
        now, run, active = float(t.max()), current_run(), self._active
        begins = run is not self._run or (run is None and now > self._first)
        if active is None or len(active) != count or begins:
            active = torch.full((count,), self.threshold >= -1)
            self._active, self._run, self._first = active, run, now
        return active

    def _agrees(self, conditional: Estimate, unconditional: Estimate) -> Tensor:
        fields = [getattr(estimate, self.compare) for estimate in (conditional, unconditional)]
        pairs = [(torch.view_as_real(field) if field.is_complex() else field).flatten(1) for field in fields]
        return (F.cosine_similarity(pairs[0], pairs[1], dim=1, eps=1e-30) > self.threshold).cpu()

    def _some(
        self, x: Tensor, t: Tensor, y: Tensor | None, condition: Mapping[str, Tensor], rows: Tensor
    ) -> tuple[Estimate, Estimate]:
        """Conditional estimate of all samples and unconditional one of `rows`, from one call."""
        rows, condition = rows.to(x.device), one_a_row(condition, len(x))
        empty = self.guidance.without(condition)
        joined = {name: torch.cat([value, empty[name][rows]]) for name, value in condition.items()}
        times = t if t.ndim == 0 else torch.cat([t, t[rows.to(t.device)]])
        observed = None if y is None else torch.cat([y, y[rows]])
        whole = self.guidance.denoiser(torch.cat([x, x[rows]]), times, observed, **joined)
        every = torch.arange(len(x), device=x.device)
        return _rows(whole, every), _rows(whole, torch.arange(len(x), len(whole.x), device=x.device))


def _rows(estimate: Estimate, rows: Tensor) -> Estimate:
    rows = rows.to(estimate.x.device)
    t = estimate.t if estimate.t.ndim == 0 else estimate.t[rows.to(estimate.t.device)]
    y = None if estimate.y is None else estimate.y[rows]
    return Estimate(estimate.process, estimate.x[rows], t, estimate.x0[rows], estimate.noise[rows], y)
