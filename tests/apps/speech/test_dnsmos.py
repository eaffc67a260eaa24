import math

import numpy as np
import pytest

from ornstein.errors import UserError
from ornstein_speech import audio, dnsmos
from ornstein_speech.demo import recordings

# OVRL, SIG, BAK and P.808 as the package speechmos 0.0.1.1 itself gives them with librosa 0.11.0.
PUBLISHED = (1.5027503259, 2.2864448538, 1.3993934690, 2.6045215)  # of the four noisy recordings one after another


def test_scores_are_those_of_the_package() -> None:
    wave = np.concatenate([audio.read(path)[0][0] for path in sorted((recordings() / "noisy").glob("*.flac"))])
    found = dnsmos.dnsmos(wave)
    assert list(found) == list(dnsmos.NAMES)
    assert tuple(found.values()) == pytest.approx(PUBLISHED, abs=1e-4)


def test_features_of_a_tone() -> None:
    """All of the power is in the bands around the tone, whose centres lie on Slaney's scale."""
    tone = np.sin(2 * np.pi * 3000 * np.arange(16000) / 16000)
    features = dnsmos.mel_features(tone)
    assert features.shape == (100, 120)
    assert features.max() == pytest.approx(1)
    assert features.min() == pytest.approx(-1)
    mel = 15 + 27 * math.log(3) / math.log(6.4)
    top = 15 + 27 * math.log(8) / math.log(6.4)
    assert abs(features[50].argmax() - (mel / top * 121 - 1)) <= 1


@pytest.mark.parametrize("seconds", [0.1, 10.5])
def test_any_length_and_rate(seconds: float) -> None:
    wave = np.random.default_rng(0).normal(size=int(48000 * seconds))
    assert all(0 < value < 5 for value in dnsmos.dnsmos(wave, 48000).values())


def test_undefined() -> None:
    for wave in (np.zeros(100), np.zeros(0), np.array([0.1, np.nan])):
        assert all(math.isnan(value) for value in dnsmos.dnsmos(wave).values())


def test_without_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnsmos, "find_spec", lambda name: None)
    assert not dnsmos.available()
    with pytest.raises(UserError, match="dnsmos"):
        dnsmos.dnsmos(np.ones(100))
