import numpy as np
import pytest

from ornstein.errors import UserError
from ornstein_speech import baselines
from ornstein_speech.baselines import log_mmse, minimum_statistics, rnnoise
from ornstein_speech.metrics import si_sdr

RATE = 16000


def voiced(seconds: float = 4.0, rate: int = RATE) -> np.ndarray:
    """A buzz with moving formants in syllables, like speech for a noise reducer."""
    t = np.arange(int(seconds * rate)) / rate
    pitch = np.cumsum(120 + 20 * np.sin(2 * np.pi * 0.7 * t)) / rate
    wave = sum(
        np.exp(-(((120 * k - 600 - 300 * np.sin(2 * np.pi * 1.3 * t)) / 500) ** 2)) * np.sin(2 * np.pi * k * pitch)
        for k in range(1, 25)
    )
    return wave * (np.sin(2 * np.pi * 1.5 * t) > -0.3) * 0.05


@pytest.mark.parametrize("method", [log_mmse, rnnoise])
def test_noise_is_reduced(method) -> None:
    clean = voiced()
    noise = np.random.default_rng(0).normal(size=len(clean))
    noisy = clean + noise * np.sqrt((clean @ clean) / (noise @ noise) / 10**0.5)
    cleaned = method(noisy, RATE)
    assert cleaned.shape == noisy.shape
    assert si_sdr(clean, cleaned) > si_sdr(clean, noisy) + 3


@pytest.mark.parametrize("method", [log_mmse, rnnoise])
@pytest.mark.parametrize("length", [1, 159, 16000])
def test_any_length_and_silence(method, length: int) -> None:
    assert method(np.zeros(length), RATE).tolist() == [0.0] * length
    wave = 0.1 * np.random.default_rng(0).normal(size=length)
    assert method(wave, RATE).shape == wave.shape
    assert np.isfinite(method(wave, RATE)).all()


def test_rnnoise_delay_is_removed() -> None:
    clean = voiced(3)
    cleaned = rnnoise(clean + 0.001 * np.random.default_rng(0).normal(size=len(clean)), RATE)
    middle = slice(RATE, 2 * RATE)
    lags = range(-20, 21)
    match = [cleaned[middle.start + lag : middle.stop + lag] @ clean[middle] for lag in lags]
    assert abs(lags[int(np.argmax(match))]) <= 1


def test_rnnoise_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "find_spec", lambda name: None)
    assert not baselines.has_rnnoise()
    with pytest.raises(UserError, match="rnnoise"):
        rnnoise(np.ones(10), RATE)


def test_minimum_statistics_is_unbiased_on_noise_and_follows_a_rise() -> None:
    rng = np.random.default_rng(0)
    power = rng.exponential(size=(257, 600))
    found = minimum_statistics(power, 0.016)
    assert found[:, 200:].mean() == pytest.approx(1.0, rel=0.25)
    power[:, 300:] *= 10
    assert minimum_statistics(power, 0.016)[:, 500:].mean() == pytest.approx(10, rel=0.3)


def test_minimum_statistics_sees_through_speech() -> None:
    rng = np.random.default_rng(0)
    power = rng.exponential(size=(129, 600))
    power[:, np.arange(600) % 60 < 40] *= 1000  # loud two thirds of the time, pauses of 0.3 s
    assert np.median(minimum_statistics(power, 0.016)[:, 200:]) == pytest.approx(1.0, rel=0.6)
