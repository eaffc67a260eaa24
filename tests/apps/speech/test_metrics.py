import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_vectors import ReferenceFile, reference_files

from ornstein_speech import metrics

RATE = 16000


def speechlike(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise in syllables: enough for PESQ to find utterances."""
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE)
    return rng.normal(size=n) * np.repeat(rng.uniform(size=n // 1600 + 1) > 0.4, 1600)[:n] * 0.1


@reference_files("speech", "metrics*.npz", needs=["clean", "noise", "estimate", "si_sdr_sir_sar"])
def test_si_vectors(vectors: ReferenceFile) -> None:
    clean, estimate = vectors["clean"], vectors["estimate"]
    noisy = clean + vectors["noise"]
    found = [
        metrics.si_sdr(clean, estimate),
        metrics.si_sir(clean, noisy, estimate),
        metrics.si_sar(clean, noisy, estimate),
    ]
    assert found == pytest.approx(vectors["si_sdr_sir_sar"].tolist(), abs=1e-9)


@given(st.floats(0.01, 100), st.integers(0, 1000))
def test_si_sdr_ignores_scale(scale: float, seed: int) -> None:
    x, n = np.random.default_rng(seed).normal(size=(2, 500))
    estimate = x + 0.3 * n
    sdr = metrics.si_sdr(x, estimate)
    assert metrics.si_sdr(x, scale * estimate) == pytest.approx(sdr, abs=1e-9)
    assert metrics.si_sdr(torch.from_numpy(x), torch.from_numpy(estimate)) == pytest.approx(sdr, abs=1e-9)


def test_si_sdr_of_orthogonal_error_is_the_power_ratio() -> None:
    x, e = np.array([1.0, 0.0]), np.array([0.0, 0.1])
    assert metrics.si_sdr(x, x + e) == pytest.approx(20)
    assert metrics.si_sdr(x, x) == math.inf


def test_quality_falls_with_noise() -> None:
    clean = speechlike(4)
    noise = np.random.default_rng(1).normal(size=len(clean))
    scores = [metrics.score(clean, clean + noise, clean + level * noise, RATE) for level in (1e-4, 1e-2, 1e-1)]
    for name in ("pesq", "estoi", "si_sdr"):
        values = [score[name] for score in scores]
        assert values == sorted(values, reverse=True)
    assert scores[0]["pesq"] > 3
    assert list(scores[0]) == list(metrics.NAMES)


def test_pesq_takes_other_rates_and_long_files() -> None:
    clean = speechlike(2)
    assert 1 <= metrics.pesq_wb(np.repeat(clean, 3), np.repeat(clean, 3) * 0.5, 48000) <= 4.65
    long = np.tile(clean, 40)  # 80 s
    assert metrics.pesq_wb(long, long) == pytest.approx(4.64, abs=0.01)


@pytest.mark.parametrize(
    ("clean", "estimate"),
    [
        (np.zeros(RATE), speechlike(1)),
        (speechlike(1), np.zeros(RATE)),
        (speechlike(0.01), speechlike(0.01)),
        (speechlike(1), speechlike(1) * np.nan),
        (np.zeros(0), np.zeros(0)),
    ],
    ids=["silent clean", "silent estimate", "10 ms", "nan", "empty"],
)
def test_undefined_scores_are_nan(clean: np.ndarray, estimate: np.ndarray) -> None:
    assert math.isnan(metrics.pesq_wb(clean, estimate))
    assert math.isnan(metrics.estoi(clean, estimate, RATE))
    if len(clean) != 160:
        assert math.isnan(metrics.si_sdr(clean, estimate))
        assert math.isnan(metrics.si_sir(clean, clean + 1, estimate))


def test_estoi_repeats_and_leaves_the_global_generator_alone() -> None:
    clean = speechlike(2)
    noisy = clean + speechlike(2, seed=3)
    np.random.seed(5)  # noqa: NPY002
    first = metrics.estoi(clean, noisy, RATE)
    drawn = np.random.rand()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    assert np.random.rand() == drawn  # noqa: NPY002
    assert metrics.estoi(clean, noisy, RATE) == first


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="one length"):
        metrics.si_sdr(np.ones(5), np.ones(6))
