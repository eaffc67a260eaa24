"""DNSMOS: opinion scores predicted without the clean recording, by the networks of the optional package speechmos.

The networks (ONNX) are those of the package; what they are fed is computed here, because the package itself needs
librosa. P.835 (Reddy et al. 2022, arXiv 2110.01763) rates the speech (SIG), the background (BAK) and the whole (OVRL)
from the waveform; P.808 (Reddy et al. 2021, arXiv 2010.15258) rates the whole from a mel spectrogram.
"""

import functools
import math
from importlib.resources import as_file, files
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from ornstein.errors import UserError

Array = npt.NDArray[np.float64]

NAMES = {
    "dnsmos_ovrl": "DNSMOS",
    "dnsmos_sig": "DNSMOS SIG",
    "dnsmos_bak": "DNSMOS BAK",
    "dnsmos_p808": "DNSMOS P.808",
}
"""Names to print."""

NEEDS = "the packages speechmos and onnxruntime (pip install -c constraints.txt -e 'apps/speech[dnsmos]')"

RATE = 16000
WINDOW = int(9.01 * RATE)
"""Samples that are rated at once; longer signals are rated every second and averaged, shorter ones are repeated."""

# Coefficients, highest power first, that map the outputs of the P.835 network to opinions.
_CURVES = {
    "dnsmos_sig": (-0.08397278, 1.22083953, 0.0052439),
    "dnsmos_bak": (-0.13166888, 1.60915514, -0.39604546),
    "dnsmos_ovrl": (-0.06766283, 1.11546468, 0.04602535),
}


def available() -> bool:
    """Whether the packages of `NEEDS` are installed."""
    return all(find_spec(name) is not None for name in ("speechmos", "onnxruntime"))


def dnsmos(wave: npt.NDArray[np.floating], rate: int = RATE) -> dict[str, float]:
    """Opinions from 1 to 5 about a 1-D signal at `rate` Hz, full scale 1, by the keys of `NAMES`; louder samples are
    clipped, other rates are resampled to 16 kHz.

    NaN for silence and for values that are not finite.

    Raises:
        UserError: the packages are not installed.
    """
    if not available():
        raise UserError(f"DNSMOS needs {NEEDS}")
    from ornstein_speech.metrics import resampled

    if not wave.any() or not np.isfinite(wave).all():
        return dict.fromkeys(NAMES, math.nan)
    signal = np.clip(resampled(np.asarray(wave, dtype=np.float64), rate, RATE), -1, 1)
    while len(signal) < WINDOW:
        signal = np.concatenate([signal, signal])
    count = int(len(signal) // RATE - WINDOW / RATE) + 1
    scores = [_rate(signal[start : start + WINDOW]) for start in range(0, count * RATE, RATE)]
    return {name: float(np.mean([score[name] for score in scores])) for name in NAMES}


def _rate(window: Array) -> dict[str, float]:
    """Opinions about `WINDOW` samples."""
    p835, p808 = _session("sig_bak_ovr.onnx"), _session("model_v8.onnx")
    raw = p835.run(None, {"input_1": window[None].astype(np.float32)})[0][0]
    found = {name: float(np.polyval(_CURVES[name], value)) for name, value in zip(_CURVES, raw, strict=True)}
    features = mel_features(window[:-160])[None].astype(np.float32)
    return found | {"dnsmos_p808": float(p808.run(None, {"input_1": features})[0][0, 0])}


def mel_features(wave: Array) -> Array:
    """Input (T, 120) of the P.808 network: (L + 40)/40, L the power in mel bands in dB re the loudest, at least -80.

    Frames of 321 samples (periodic Hann, centred, zeros beyond the ends), hop 160; 120 triangles of equal area on
    Slaney's mel scale from 0 to 8 kHz.
    """
    size, hop = 321, 160
    padded = np.pad(np.asarray(wave, dtype=np.float64), size // 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * window
    power = np.abs(np.fft.rfft(frames)) ** 2 @ _mel_filters(size, 120)
    level = 10 * np.log10(np.maximum(power, 1e-10))
    return np.asarray((np.maximum(level - level.max(), -80) + 40) / 40)


def _mel_filters(size: int, bands: int) -> Array:
    """Triangles (size // 2 + 1, bands) of equal area from 0 to 8 kHz, their corners equally far apart in mel.

    Slaney's scale is linear up to 1 kHz, 15 mel, and logarithmic above, 27 mel for a factor of 6.4.
    """
    step = math.log(6.4) / 27
    mels = np.linspace(0, 15 + math.log(RATE / 2 / 1000) / step, bands + 2)
    corners = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(step * (mels - 15)))
    frequencies = np.fft.rfftfreq(size, 1 / RATE)[:, None]
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    return np.asarray(np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low))


@functools.cache
def _session(name: str) -> Any:
    """The network of that file name; one thread, because files are scored side by side."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with as_file(files("speechmos") / "dnsmos_models" / name) as path:
        return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
