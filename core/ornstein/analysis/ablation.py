"""What each part of a method is worth: the scores of its variants beside those without it, file by file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ornstein.analysis.statistics import Difference, Interval, interval, paired
from ornstein.errors import UserError

Scores = Mapping[str, Sequence[float]]
"""One number a file, by the name of the measure; the files of all variants are the same, in the same order."""


@dataclass(frozen=True)
class Row:
    """One measure of one variant."""

    variant: str
    measure: str
    mean: Interval
    change: Difference | None
    """Of the variant from the baseline, file by file; None for the baseline itself."""

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON and CSV."""
        row = {"variant": self.variant, "measure": self.measure, **self.mean._asdict()}
        change = (None, None, None) if self.change is None else self.change
        return row | dict(zip(("change", "change_low", "change_high"), change, strict=True))


def ablate(
    evaluate: Callable[[str, int], Scores],
    variants: Sequence[str],
    seeds: Sequence[int] = (0,),
    baseline: str | None = None,
    on_run: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Rows of every variant and measure, each with its paired difference from `baseline`, the first variant if None.

    A file's score is its mean over the seeds, so the intervals are over files.

    Args:
        evaluate: the scores of a variant with a seed; the same seed means the same noise in every variant.
        variants: their names, for example those of `ornstein.guidance.guide.ablation_guides`.
        seeds: of the noise.
        baseline: what the others are compared with.
        on_run: is told runs done and runs in all.

    Raises:
        UserError: no variants or seeds, an unknown baseline, or variants with other measures or files.
    """
    if not variants or not seeds or (baseline is not None and baseline not in variants):
        raise UserError(
            f"an ablation needs variants, seeds and a baseline among the variants, got {list(variants)}, {list(seeds)} "
            f"and {baseline}"
        )
    scores: dict[str, Scores] = {}
    for index, variant in enumerate(variants):
        runs = []
        for number, seed in enumerate(seeds):
            runs.append(evaluate(variant, seed))
            if on_run is not None:
                on_run(index * len(seeds) + number + 1, len(variants) * len(seeds))
        scores[variant] = over_seeds(runs)
    return compare(scores, variants[0] if baseline is None else baseline)


def compare(scores: Mapping[str, Scores], baseline: str) -> list[Row]:
    """Rows for scores that are there already, of every variant; raises UserError as `ablate`."""
    known = scores[baseline]
    rows = []
    for variant, found in scores.items():
        _same_files(variant, found, known)
        for measure, values in found.items():
            change = None if variant == baseline else paired(values, known[measure])
            rows.append(Row(variant, measure, interval(values), change))
    return rows


def over_seeds(runs: Sequence[Scores]) -> dict[str, list[float]]:
    """The mean over the seeds of every file; NaN where one of them is."""
    for number, run in enumerate(runs):
        _same_files(f"seed number {number + 1}", run, runs[0])
    means = {name: np.array([run[name] for run in runs], dtype=np.float64).mean(0) for name in runs[0]}
    return {name: [float(value) for value in mean] for name, mean in means.items()}


def _same_files(variant: str, found: Scores, known: Scores) -> None:
    counts, wanted = ({name: len(values) for name, values in each.items()} for each in (found, known))
    if counts != wanted:
        raise UserError(f"{variant} has scores of {counts}, the first has {wanted}; score the same files by the same")
