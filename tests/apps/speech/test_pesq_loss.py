"""The PESQ loss: published values, the reference measure on recordings, gradients, and signals at the edge."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_vectors import ReferenceFile, reference_files
from scipy.signal import butter, lfilter
from scipy.stats import spearmanr
from torch import Tensor
from torchaudio.functional import resample

from ornstein.errors import UserError
from ornstein_speech import metrics, pesq_bands, pesq_loss
from ornstein_speech.pesq_loss import BAND_PASS, PRE_EMPHASIS, SHORTEST, Disturbance, disturbance

DATA = Path(__file__).parents[3] / "data/speech"
NAMES = sorted(path.name for path in (DATA / "noisy").glob("*.flac"))


def recording(name: str, start: int = 16000, samples: int = 32640) -> tuple[Tensor, Tensor]:
    """Two seconds of a clean and a noisy recording, (1, L) each, float64."""
    clean, noisy = (
        torch.from_numpy(soundfile.read(DATA / kind / name, frames=samples, start=start)[0])[None]
        for kind in ("clean", "noisy")
    )
    return clean, noisy


def noise(samples: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(1, samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_same(found: Disturbance, expected: Disturbance, rtol: float) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=0)


@reference_files("speech", "pesq_loss*.npz", needs=["ref", "deg", "d_symm", "d_asymm", "mos", "loss"])
def test_published_values(vectors: ReferenceFile) -> None:
    degraded = vectors.tensor("deg", torch.float64)
    found = disturbance(vectors.tensor("ref", torch.float64).expand_as(degraded), degraded)
    values = {"d_symm": found.symmetric, "d_asymm": found.asymmetric, "mos": found.mos, "loss": found.loss}
    for name, value in values.items():
        torch.testing.assert_close(value, vectors.tensor(name), rtol=1e-4, atol=0)


@reference_files("speech", "pesq_loss*.npz", needs=["bins_per_band", "centre_bark", "width_bark", "Sp", "Sl"])
def test_bands(vectors: ReferenceFile) -> None:
    tables = {
        "bins_per_band": pesq_bands.BINS,
        "centre_bark": pesq_bands.CENTRES,
        "width_bark": pesq_bands.WIDTHS,
        "power_correction": pesq_bands.CORRECTIONS,
        "abs_threshold_power": pesq_bands.THRESHOLDS,
        "Sp": pesq_bands.POWER_SCALE,
        "Sl": pesq_bands.LOUDNESS_SCALE,
    }
    for name, table in tables.items():
        np.testing.assert_allclose(table, vectors[name], rtol=1e-9)
    assert sum(pesq_bands.BINS) == 256


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [1, 0.1, 0.01])
def test_float32_is_enough(name: str, share: float) -> None:
    clean, noisy = recording(name)
    estimate = clean + share * (noisy - clean)
    found = disturbance(clean.float(), estimate.float())
    assert found.loss.dtype == torch.float32
    assert_same(Disturbance(*(part.double() for part in found)), disturbance(clean, estimate), rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_less_noise_is_better(name: str) -> None:
    clean, noisy = recording(name)
    mixes = torch.stack([clean[0] + share * (noisy - clean)[0] for share in (1, 0.5, 0.25, 0.1, 0.03, 0)])
    found = disturbance(clean.expand_as(mixes), mixes)
    assert found.loss.tolist() == sorted(found.loss.tolist(), reverse=True)
    assert found.mos.tolist() == sorted(found.mos.tolist())
    assert found.mos[-1] > 4.64


def test_ranks_recordings_as_pesq_does() -> None:
    ours, reference = [], []
    for name in NAMES:
        clean, noisy = recording(name)
        for share in (1.0, 0.3, 0.1, 0.03):
            estimate = clean + share * (noisy - clean)
            ours.append(float(disturbance(clean, estimate).mos))
            reference.append(metrics.pesq_wb(clean[0], estimate[0]))
    assert spearmanr(ours, reference).statistic > 0.97
    assert np.abs(np.subtract(ours, reference)).mean() < 0.15


def test_descent_raises_pesq() -> None:
    """Steps along the gradient improve what the reference measure says of a noisy recording."""
    clean, noisy = recording(NAMES[0])
    estimate, step = noisy, 0.05 * (noisy - clean).norm()
    for _ in range(10):
        estimate = estimate.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(disturbance(clean, estimate).loss.sum(), estimate)
        estimate = estimate - step * gradient / gradient.norm()
    assert metrics.pesq_wb(clean[0], estimate.detach()[0]) > metrics.pesq_wb(clean[0], noisy[0]) + 0.1


@pytest.mark.parametrize("part", ["symmetric", "asymmetric", "mos"])
def test_gradient_is_the_finite_difference(part: str) -> None:
    clean, noisy = recording(NAMES[0], samples=8000)
    estimate = (clean + 0.3 * (noisy - clean)).requires_grad_()
    (gradient,) = torch.autograd.grad(getattr(disturbance(clean, estimate), part).sum(), estimate)
    for seed in range(3):
        direction = noise(8000, seed) * estimate.detach().std()
        up, down = (getattr(disturbance(clean, estimate.detach() + h * direction), part) for h in (1e-6, -1e-6))
        torch.testing.assert_close((gradient * direction).sum(1), (up - down) / 2e-6, rtol=1e-4, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.floats(-4, 4), st.floats(-2, 2))
def test_level_does_not_matter(clean_decades: float, estimate_decades: float) -> None:
    clean, estimate = noise(SHORTEST, 0), noise(SHORTEST, 1)
    scaled = disturbance(10**clean_decades * clean, 10 ** (clean_decades + estimate_decades) * estimate)
    assert_same(scaled, disturbance(clean, estimate), rtol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_items_do_not_know_their_batch(dtype: torch.dtype) -> None:
    pairs = [recording(name, samples=SHORTEST + 1000) for name in NAMES]
    clean, noisy = (torch.cat(signals).to(dtype) for signals in zip(*pairs, strict=True))
    together = disturbance(clean, noisy)
    for i in range(len(clean)):
        alone = disturbance(clean[i : i + 1, None], noisy[i : i + 1, None])
        assert_same(
            Disturbance(*(part[i : i + 1] for part in together)), alone, 1e-12 if dtype == torch.float64 else 1e-5
        )
    assert_same(disturbance(clean, noisy), together, rtol=0)


CLICK = torch.zeros(1, SHORTEST, dtype=torch.float64)
CLICK[0, SHORTEST // 2] = 1
SPEECH = noise(SHORTEST, 0) * 0.1
SILENT = torch.zeros_like(SPEECH)
EDGES = {
    "silence": (SILENT, SILENT),
    "silence for speech": (SPEECH, SILENT),
    "speech for silence": (SILENT, SPEECH),
    "identical": (SPEECH, SPEECH),
    "nearly identical": (SPEECH, SPEECH * (1 + 1e-6)),
    "nearly silent": (SPEECH, 1e-20 * SPEECH),
    "both nearly silent": (1e-20 * SPEECH, 1e-25 * noise(SHORTEST, 1)),
    "very loud": (SPEECH, 1e15 * noise(SHORTEST, 1)),
    "both very loud": (1e15 * SPEECH, 1e15 * noise(SHORTEST, 1)),
    "constant": (SPEECH, torch.ones_like(SPEECH)),
    "click": (SPEECH, CLICK),
    "speech for a click": (CLICK, SPEECH),
    "clipped": (SPEECH, SPEECH.sign()),
    "half silent": (SPEECH * (torch.arange(SHORTEST) < 3000), noise(SHORTEST, 1) * (torch.arange(SHORTEST) > 3000)),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", EDGES)
def test_values_and_gradients_are_finite(name: str, dtype: torch.dtype) -> None:
    clean, estimate = (signal.to(dtype, copy=True).requires_grad_() for signal in EDGES[name])
    found = disturbance(clean, estimate)
    for part in found:
        assert 0 <= part.item() <= 45.001
    (found.loss + found.mos).sum().backward()
    for signal in (clean, estimate):
        assert signal.grad is not None
        assert bool(signal.grad.isfinite().all())


@pytest.mark.parametrize("name", ["silence", "identical"])
def test_what_sounds_alike_has_no_disturbance(name: str) -> None:
    found = disturbance(*EDGES[name])
    assert float(found.loss) < 1e-6
    assert float(found.mos) == pytest.approx(4.6439, abs=1e-4)  # the top of the scale of P.862.2


def test_nan_is_not_hidden() -> None:
    broken = SPEECH.clone()
    broken[0, 100] = torch.nan
    assert bool(disturbance(SPEECH, broken).loss.isnan())


def test_never_waits_for_the_device() -> None:
    """No operation has a result that the host must see: a value, or a shape that depends on values."""
    waits = {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::masked_select"}
    clean, estimate = SPEECH, noise(SHORTEST, 1).requires_grad_()
    with torch.autograd.profiler.profile(use_kineto=False) as profile:
        found = disturbance(clean, estimate)
        (found.loss + found.mos).sum().backward()
    names = {event.name for event in profile.function_events}
    assert "aten::_fft_r2c" in names
    assert not names & waits


def test_autocast_does_not_matter() -> None:
    clean, estimate = SPEECH.float(), noise(SHORTEST, 1, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = disturbance(clean, estimate)
    assert_same(mixed, disturbance(clean, estimate), rtol=0)
    assert disturbance(clean.bfloat16(), estimate.bfloat16()).loss.dtype == torch.float32


def test_gradients_after_inference_mode() -> None:
    """What is kept between calls serves training, whoever came first."""
    estimate = noise(SHORTEST + 37, 1)  # a length that no other test has
    with torch.inference_mode():
        disturbance(SPEECH, noise(SHORTEST, 1))
        first = disturbance(noise(SHORTEST + 37, 0), estimate).loss.clone()
    later = disturbance(noise(SHORTEST + 37, 0), estimate.requires_grad_()).loss
    later.sum().backward()
    assert estimate.grad is not None
    assert later.item() == first.item()


@pytest.mark.parametrize("filter_name", ["band-pass", "pre-emphasis"])
@pytest.mark.parametrize("length", [SHORTEST, 32640])
def test_filters_equal_the_recursion(filter_name: str, length: int) -> None:
    signal = noise(length, 0)
    band_pass, pre_emphasis, _ = pesq_loss._filters(length, signal.device, signal.dtype)
    if filter_name == "band-pass":
        coefficients = [np.float32(part).astype(np.float64) for part in butter(5, (325, 3250), "bandpass", fs=16000)]
        np.testing.assert_allclose(BAND_PASS, coefficients, rtol=1e-6)
        coefficients, response = list(np.float32(BAND_PASS).astype(np.float64)), band_pass
    else:
        coefficients, response = list(np.array(PRE_EMPHASIS)), pre_emphasis
    expected = lfilter(*coefficients, signal.numpy())
    np.testing.assert_allclose(pesq_loss._filter(signal, response).numpy(), expected, rtol=0, atol=1e-9)


def test_other_rates_are_resampled() -> None:
    clean, estimate = noise(3 * SHORTEST, 0), noise(3 * SHORTEST, 1)
    expected = disturbance(resample(clean, 48000, 16000), resample(estimate, 48000, 16000))
    assert_same(disturbance(clean, estimate, rate=48000), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("clean", "estimate", "problem"),
    [
        ((1, SHORTEST - 1), (1, SHORTEST - 1), "needs 0.336 s"),
        ((1, SHORTEST), (2, SHORTEST), "shapes"),
        ((SHORTEST,), (SHORTEST,), "shape"),
        ((1, 2, SHORTEST), (1, 2, SHORTEST), "shape"),
    ],
)
def test_refuses(clean: tuple[int, ...], estimate: tuple[int, ...], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        disturbance(torch.ones(clean), torch.ones(estimate))
