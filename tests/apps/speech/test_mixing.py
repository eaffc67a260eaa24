import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ornstein.errors import UserError
from ornstein_speech import mixing

quick = settings(max_examples=25, deadline=None)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@quick
@given(seed=st.integers(0, 1000), snr=st.floats(-20, 40), level=st.floats(1e-4, 10))
def test_snr_is_exact(seed: int, snr: float, level: float) -> None:
    g = generator(seed)
    clean = torch.randn(3, 4000, generator=g)
    noise = level * torch.randn(3, 4000, generator=g)
    exact = mixing.mix(clean.double(), noise.double(), snr)
    assert (mixing.snr(clean, exact) - snr).abs().max() < 1e-9
    assert (mixing.snr(clean, mixing.mix(clean, noise, snr)) - snr).abs().max() < 1e-3


def test_silence() -> None:
    noise = torch.randn(100, generator=generator(0))
    assert torch.equal(mixing.mix(torch.zeros(100), noise, 5.0), torch.zeros(100))
    with pytest.raises(UserError, match="silent"):
        mixing.mix(noise, torch.zeros(100), 5.0)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_spectrum_of_coloured_noise(exponent: float, fast: bool) -> None:
    noise = mixing.coloured_noise(1 << 17, generator(1), exponent, fast=fast).double()
    assert float(mixing.power(noise)) == pytest.approx(1, rel=1e-5)
    spectrum = torch.fft.rfft(noise).abs().square()
    frequency = torch.fft.rfftfreq(1 << 17, 1 / 16000).double()
    bands = [(f, 2 * f) for f in (60, 120, 240, 480, 960, 1920, 3840)]
    level = torch.stack([spectrum[(frequency >= a) & (frequency < b)].mean().log() for a, b in bands])
    place = torch.tensor([float(a) for a, _ in bands]).double().log()
    slope = ((level - level.mean()) * (place - place.mean())).sum() / (place - place.mean()).square().sum()
    assert float(slope) == pytest.approx(-exponent, abs=0.1)


def test_fast_white_noise_is_gaussian_and_white() -> None:
    noise = torch.stack([mixing.coloured_noise(4096, generator(seed), fast=True) for seed in range(200)]).double()
    assert float(noise.pow(4).mean()) == pytest.approx(3, abs=0.03)  # kurtosis of a Gaussian
    assert noise.mean().abs() < 0.01
    power = torch.fft.rfft(noise).abs().square().mean(0) / 4096
    assert (power - 1).abs().max() < 0.6  # every bin, the real first and last ones too: 200 draws each
    assert float(power.mean()) == pytest.approx(1, abs=0.01)
    variance = noise.square().mean(0)
    assert float(variance[:64].mean()) == pytest.approx(float(variance[-64:].mean()), abs=0.06)


def test_fast_modulation_is_the_same_curve() -> None:
    for frames, period in ((64000, 0.5), (1000, 2.0), (33, 0.001)):
        exact = mixing.slow_modulation(frames, generator(2), 6.0, period)
        assert torch.allclose(mixing.slow_modulation(frames, generator(2), 6.0, period, fast=True), exact, atol=1e-5)


@quick
@given(seed=st.integers(0, 10**9), frames=st.integers(100, 20000), fast=st.booleans())
def test_everything_is_a_function_of_the_generator(seed: int, frames: int, fast: bool) -> None:
    clips = [torch.randn(700 * (k + 1), generator=generator(k)) for k in range(6)]
    recordings = {"babble": clips, "music": clips, "effects": clips}
    for kind in ("coloured", *mixing.COLOURS, *recordings):
        first = mixing.make_noise(kind, recordings, frames, generator(seed), fast=fast)
        assert first.shape == (frames,)
        assert first.dtype == torch.float32
        assert torch.isfinite(first).all()
        assert float(mixing.power(first)) > 0
        assert torch.equal(first, mixing.make_noise(kind, recordings, frames, generator(seed), fast=fast))
    assert not torch.equal(
        mixing.coloured_noise(frames, generator(seed)), mixing.coloured_noise(frames, generator(seed + 1))
    )


def test_join_leaves_gaps() -> None:
    clips = [torch.ones(8000), torch.ones(4000)]
    joined = mixing.join(clips, 64000, generator(3))
    edges = torch.diff(joined).nonzero()[:, 0] + 1
    assert joined[0] == 1
    gaps = (edges[1::2] - edges[:-1:2])[: len(edges) // 2]
    assert len(gaps) >= 5
    assert gaps.min() >= 0.05 * 16000
    assert gaps.max() <= 0.2 * 16000
    ramp = [torch.arange(100000.0)]
    starts = {float(mixing.join(ramp, 1000, generator(seed))[0]) for seed in range(20)}
    assert max(starts) > 50000
    assert min(starts) < 50000


def test_nothing_to_join() -> None:
    with pytest.raises(UserError, match="no clips"):
        mixing.join([], 100, generator(0))
    with pytest.raises(UserError, match="no noise of kind"):
        mixing.make_noise("rain", {}, 100, generator(0))


def test_level() -> None:
    x = torch.randn(10000, generator=generator(0))
    for seed in range(20):
        level = 10 * torch.log10(mixing.power(x * mixing.level_gain(x, generator(seed))))
        assert -35.01 < level < -14.99
    assert mixing.level_gain(torch.zeros(10), generator(0)) == 1.0


def test_modulation_stays_in_its_range() -> None:
    gain = 20 * torch.log10(mixing.slow_modulation(64000, generator(0), 6.0, 0.5))
    assert gain.abs().max() <= 6.001
    assert gain.diff().abs().max() < 0.01
