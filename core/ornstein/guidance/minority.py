"""Minority guidance: towards samples that a model finds hard to restore (Um et al., ICLR 2024, arXiv 2301.12334)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.guidance.corruption import corrupted, require_pairs, require_steps
from ornstein.guidance.fitting import Fit, fit, held_out, spread
from ornstein.guidance.gradient import ClassifierGuidance, class_log_probability
from ornstein.noise import Noise
from ornstein.process.affine import Process

Distance = Callable[[Tensor, Tensor], Tensor]
"""Distance of two batches of signals (B, *), one number a sample."""


def squared_distance(one: Tensor, other: Tensor) -> Tensor:
    """Sum of |one - other|^2 of each sample, (B,)."""
    return ((one - other).abs() ** 2).flatten(1).sum(1)


@torch.no_grad()
def minority_scores(
    denoiser: DenoiserLike,
    x0: Tensor,
    t: float,
    noise: Noise,
    draws: int = 5,
    distance: Distance = squared_distance,
    y: Tensor | None = None,
    **condition: Tensor,
) -> Tensor:
    """l(x0) = E d(x0, x0hat(x_t)) over `draws` noises (the paper's equation 5): large for rare signals, (B,).

    Args:
        denoiser: judges; give it no class, so that rare means rare in the whole set.
        x0: signals (B, *).
        t: how far they are corrupted; too little separates nothing.
        noise: source of unit noise.
        draws: noises averaged.
        distance: d; the paper's is LPIPS, the default |.|^2 needs no weights.

    Raises:
        UserError: no draw, or a time that the process does not have.
    """
    if draws < 1:
        raise UserError(f"draws is {draws}; it must be at least 1")
    if not 0 <= t <= denoiser.process.T:
        raise UserError(f"t is {t:g}, and {type(denoiser.process).__name__} has times from 0 to {denoiser.process.T:g}")
    total = torch.zeros(len(x0), dtype=x0.real.dtype, device=x0.device)
    for _ in range(draws):
        x = denoiser.process.sample(x0, t, noise(x0), y)
        total += distance(x0, denoiser(x, t, y, **condition).x0)
    return total / draws


def minority_labels(scores: Tensor, classes: int) -> Tensor:
    """Class by rank, 0 (common) to classes - 1 (rare), as equal in size as the count allows; ties never empty a class.

    Raises:
        UserError: fewer scores than classes, or scores that are not finite.
    """
    if not 2 <= classes <= len(scores):
        raise UserError(f"{len(scores)} scores cannot make {classes} classes; choose between 2 and {len(scores)}")
    if not bool(scores.isfinite().all()):
        raise UserError("some minority scores are not finite; check the signals and the denoiser")
    rank = torch.empty(len(scores), dtype=torch.long, device=scores.device)
    rank[scores.argsort(stable=True)] = torch.arange(len(scores), device=scores.device)
    return rank * classes // len(scores)


def train_noisy_classifier(
    classifier: nn.Module,
    process: Process,
    signals: Tensor,
    labels: Tensor,
    steps: int,
    generator: torch.Generator,
    batch: int = 64,
    learning_rate: float = 3e-4,
    observations: Tensor | None = None,
    on_step: Callable[[int, int], None] | None = None,
    validation: float = 0.1,
) -> Fit:
    """Train `classifier`(x_t, t) -> logits on corrupted `signals` (N, *) at uniform times.

    AdamW with weight decay 0.05 and a linear fall of the rate, as published. The share `validation` of the signals is
    held out, and the weights with the smallest loss on them are kept; 0 trains on all and keeps the last weights.
    `observations` (N, *) are the y of the signals where the process has one. `on_step(done, steps)` is called after
    every step.

    Raises:
        UserError: no step, no signal, an empty batch, another number of labels or observations than of signals, or a
            bad share.
    """
    require_pairs(signals, labels, "labels")
    require_pairs(signals, observations, "observations")
    require_steps(steps, batch)
    rows, held = (part.to(signals.device) for part in held_out(len(signals), validation, generator))

    def loss(chosen: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return F.cross_entropy(classifier(x, t.to(x.real.dtype)), labels[chosen])

    def drawn(chosen: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t = u.to(signals.device) * process.T
        y = None if observations is None else observations[chosen]
        return chosen, corrupted(process, signals[chosen], t, generator, y), t

    def of_batch() -> Tensor:
        chosen = torch.randint(len(rows), (batch,), generator=generator, device=generator.device)
        u = torch.rand(batch, generator=generator, dtype=torch.float64, device=generator.device)
        return loss(*drawn(rows[chosen.to(rows.device)], u))

    fixed = drawn(held, spread(len(held))) if len(held) else None  # the same noise at every look
    classifier.train()
    found = fit(
        classifier,
        of_batch,
        None if fixed is None else lambda: loss(*fixed),
        steps,
        learning_rate,
        None if on_step is None else lambda done: on_step(done, steps),
    )
    classifier.eval()
    return found


class MinorityGuidance(ClassifierGuidance):
    """Guidance to one class of minority score, the rarest if `target` is None (equation 8; published scale 3.5).

    Args:
        denoiser: what is guided.
        classifier: logits (B, classes) of x_t (B, *) and t (B,), trained on `minority_labels`.
        classes: number of classes.
        scale: strength.
        target: class wanted.
    """

    def __init__(
        self,
        denoiser: DenoiserLike,
        classifier: Callable[[Tensor, Tensor], Tensor],
        classes: int,
        scale: float = 3.5,
        target: int | None = None,
    ) -> None:
        wanted = classes - 1 if target is None else target
        if not 0 <= wanted < classes:
            raise ValueError(f"target is {target}; the classes are 0 to {classes - 1}")
        super().__init__(denoiser, class_log_probability(classifier, wanted), scale)
