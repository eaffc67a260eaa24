"""Ablations and the choice of a strength, on scores that are known."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from ornstein.analysis.ablation import Scores, ablate, compare, over_seeds
from ornstein.analysis.statistics import interval, paired
from ornstein.analysis.strength import choose_strength
from ornstein.errors import UserError

BASE = np.random.default_rng(0).normal(30, 3, 12)
SPREAD = (BASE - BASE.mean()) / 1000
"""Of what guidance does to the files; its mean is 0."""
GAIN = {"off": 0.0, "spectrum": 0.5, "both": 1.0}


def scored(variant: str, seed: int) -> Scores:
    noise = np.random.default_rng(seed).normal(0, 0.1, 12)
    return {"psnr": (BASE + GAIN[variant] + noise).tolist(), "distance": (10 - GAIN[variant] * (1 + SPREAD)).tolist()}


def test_rows_hold_paired_changes() -> None:
    told: list[tuple[int, int]] = []
    rows = ablate(scored, list(GAIN), seeds=(1, 2, 3), on_run=lambda done, runs: told.append((done, runs)))
    assert told == [(i, 9) for i in range(1, 10)]
    assert [(row.variant, row.measure) for row in rows] == [(v, m) for v in GAIN for m in ("psnr", "distance")]
    assert [row.change is None for row in rows] == [True, True] + [False] * 4
    both = rows[4]
    mean = {v: np.mean([scored(v, seed)["psnr"] for seed in (1, 2, 3)], axis=0) for v in GAIN}
    assert both.mean == interval(mean["both"])
    assert both.change == paired(mean["both"], mean["off"])
    assert both.change is not None
    assert both.change.mean == pytest.approx(1.0)
    assert both.change.low > 0.99  # the same seeds: the noise cancels, and so does what the files have in common
    assert json.loads(json.dumps(both.as_dict()))["change"] == pytest.approx(1.0)
    assert rows[0].as_dict()["change"] is None
    other = ablate(scored, list(GAIN), baseline="both")
    assert other[0].change is not None
    assert other[0].change.mean == pytest.approx(-1.0)


def test_files_that_fail_with_one_seed_count_in_none() -> None:
    merged = over_seeds([{"psnr": [1.0, math.nan, 3.0]}, {"psnr": [2.0, 2.0, 5.0]}])
    assert merged["psnr"][::2] == [1.5, 4.0]
    assert math.isnan(merged["psnr"][1])


def test_ablations_that_compare_nothing_are_refused() -> None:
    refused: list[tuple[str, Callable[[], object]]] = [
        ("needs variants", lambda: ablate(scored, [])),
        ("needs variants", lambda: ablate(scored, ["off"], seeds=())),
        ("needs variants", lambda: ablate(scored, ["off"], baseline="none")),
        ("score the same files", lambda: compare({"off": {"psnr": [1.0]}, "on": {"psnr": [1.0, 2.0]}}, "off")),
        ("score the same files", lambda: compare({"off": {"psnr": [1.0]}, "on": {"ssim": [1.0]}}, "off")),
    ]
    for message, attempt in refused:
        with pytest.raises(UserError, match=message):
            attempt()


def guided(strength: float) -> Scores:
    """The distance falls down to strength 4 and rises again; PSNR falls by 0.05 dB a unit."""
    distance = (strength - 4) ** 2 / 16 + strength * SPREAD
    return {
        "spectrum": (BASE / 30 + distance).tolist(),
        "similarity": (BASE / 30 - distance).tolist(),
        "psnr_gray": (BASE - strength * (0.05 + SPREAD)).tolist(),
    }


def test_the_best_strength_that_is_allowed() -> None:
    choice = choose_strength(guided, [8.0, 1.0, 2.0, 4.0], "spectrum", largest_loss=0.2)
    assert [each.strength for each in choice.candidates] == [0.0, 1.0, 2.0, 4.0, 8.0]
    assert [each.allowed for each in choice.candidates] == [True, True, True, True, False]
    assert choice.strength == 4.0
    assert choice.candidates[3].loss.mean == pytest.approx(0.2)
    assert choice.candidates[3].change.mean == pytest.approx(-1.0)
    assert choose_strength(guided, [1.0, 2.0, 4.0], "spectrum", largest_loss=0.15).strength == 2.0
    assert choose_strength(guided, [2.0, 4.0], "similarity", higher_is_better=True, largest_loss=1.0).strength == 4.0
    assert choose_strength(guided, [9.0], "spectrum", largest_loss=1.0).strength == 0.0
    assert choose_strength(guided, [4.0], "spectrum", largest_loss=0.0).strength == 0.0


def test_a_strength_that_breaks_pictures_is_not_chosen() -> None:
    def broken(strength: float) -> Scores:
        scores = dict(guided(strength))
        return scores if strength == 0 else {name: [math.nan] * 12 for name in scores}

    assert choose_strength(broken, [1.0], "spectrum").strength == 0.0


def test_searches_without_candidates_or_measures_are_refused() -> None:
    for strengths in ([], [0.0], [-1.0], [math.inf]):
        with pytest.raises(UserError, match="must be positive"):
            choose_strength(guided, strengths, "spectrum")
    with pytest.raises(UserError, match="have no lpips"):
        choose_strength(guided, [1.0], "lpips")
