"""How strongly to guide: a search on a validation set that gives up no more PSNR than is allowed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ornstein.analysis.ablation import Scores
from ornstein.analysis.statistics import Difference, Interval, interval, paired
from ornstein.errors import UserError

ROUNDING = 1e-9
"""Of a mean loss in dB."""


@dataclass(frozen=True)
class Candidate:
    """One strength that was tried."""

    strength: float
    target: Interval
    """The measure that guidance is to improve."""
    change: Difference
    """Of it, from strength 0."""
    loss: Difference
    """Of PSNR in dB, from strength 0: positive is worse."""
    allowed: bool


@dataclass(frozen=True)
class Choice:
    """The best strength that is allowed, and all that were tried, 0 first."""

    strength: float
    candidates: tuple[Candidate, ...]


def choose_strength(
    evaluate: Callable[[float], Scores],
    strengths: Sequence[float],
    target: str,
    psnr: str = "psnr_gray",
    largest_loss: float = 0.2,
    higher_is_better: bool = False,
    on_candidate: Callable[[int, int], None] | None = None,
) -> Choice:
    """Try every strength, and 0, and take the one with the best mean `target` whose mean loss of PSNR is at most
    `largest_loss` dB; 0 where no other improves it.

    Args:
        evaluate: the scores of the validation files for a strength, with the same noise for all of them. Choose on
            other files than those that results are reported on.
        strengths: positive ones; a grid such as 1, 3, 10, 30, 100.
        target: the measure to improve.
        psnr: the measure that must not fall.
        largest_loss: in dB.
        higher_is_better: of `target`.
        on_candidate: is told candidates done and candidates in all.

    Raises:
        UserError: no strengths, one that is not positive, or measures that `evaluate` does not give.
    """
    if not strengths or not all(0 < strength < float("inf") for strength in strengths):
        raise UserError(f"strengths to choose from must be positive numbers, got {list(strengths)}")
    tried = [0.0, *sorted(set(strengths))]
    candidates: list[Candidate] = []
    known: Scores = {}
    for done, strength in enumerate(tried, start=1):
        found = evaluate(strength)
        missing = [name for name in (target, psnr) if name not in found]
        if missing:
            raise UserError(f"the scores have no {missing[0]}; choose of {', '.join(found)}")
        known = known or found
        loss = paired(known[psnr], found[psnr])
        change = paired(found[target], known[target])
        allowed = strength == 0 or loss.mean <= largest_loss + ROUNDING  # NaN is not
        candidates.append(Candidate(strength, interval(found[target]), change, loss, allowed))
        if on_candidate is not None:
            on_candidate(done, len(tried))
    sign = -1 if higher_is_better else 1
    useful = [each for each in candidates if each.allowed and sign * each.change.mean < 0]
    best = min(useful, key=lambda each: sign * each.change.mean, default=candidates[0])
    return Choice(best.strength, tuple(candidates))
