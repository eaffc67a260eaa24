"""Two classical answers to compare with: log-MMSE with minimum-statistics noise tracking, and RNNoise.

Both take a 1-D waveform and return one of the same length.
"""

import math
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from ornstein.errors import UserError

Array = npt.NDArray[np.float64]

RNNOISE_RATE = 48000
RNNOISE_FRAME = 480
RNNOISE_DELAY = 960
"""Samples at 48 kHz by which RNNoise lags: two frames, 20 ms (SI-SDR is best between 959 and 960)."""

# M(D), the mean of the minimum of D correlated periodogram estimates (Martin 2001, table III).
_MINIMUM_LENGTHS = (1, 2, 5, 8, 10, 15, 20, 30, 40, 60, 80, 120, 140, 160)
_MINIMUM_MEANS = (0.0, 0.26, 0.48, 0.58, 0.61, 0.668, 0.705, 0.762, 0.8, 0.841, 0.865, 0.89, 0.9, 0.91)


def log_mmse(noisy: npt.NDArray[np.floating], rate: int, *, smoothing: float = 0.98, floor_db: float = -25.0) -> Array:
    """Log-spectral amplitude estimator (Ephraim & Malah 1985) on noise tracked by minimum statistics.

    With gamma = |Y|^2 / noise, xi the decision-directed a-priori SNR (weight `smoothing`, at least `floor_db`) and
    v = gamma xi / (1 + xi), the gain is xi / (1 + xi) exp(E1(v) / 2) (equation 20). Frames of 32 ms, half overlapped.
    """
    from scipy.signal import ShortTimeFFT
    from scipy.special import exp1

    noisy = np.asarray(noisy, dtype=np.float64)
    if not noisy.any():
        return np.zeros_like(noisy)
    size = 2 * round(0.016 * rate)
    hop = size // 2
    window = np.sqrt(
        0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(size) + 0.5) / size)
    )  # squares of neighbours add up to 1
    transform = ShortTimeFFT(window, hop, rate)
    padded = np.pad(noisy, (0, max(0, size - len(noisy))))
    spectrum = transform.stft(padded)
    power = np.abs(spectrum) ** 2
    noise = minimum_statistics(power, hop / rate)
    gamma = np.minimum(power / noise, 1e3)
    floor = 10 ** (floor_db / 10)
    gains = np.empty_like(power)
    previous = np.ones(len(power))  # G^2 gamma of the frame before
    for i in range(power.shape[1]):
        xi = np.maximum(smoothing * previous + (1 - smoothing) * np.maximum(gamma[:, i] - 1, 0), floor)
        v = np.maximum(gamma[:, i] * xi / (1 + xi), 1e-10)
        gains[:, i] = np.minimum(xi / (1 + xi) * np.exp(exp1(v) / 2), 1.0)
        previous = gains[:, i] ** 2 * gamma[:, i]
    return np.asarray(transform.istft(spectrum * gains, k1=len(padded)))[: len(noisy)]


def minimum_statistics(power: Array, hop_s: float, *, window_s: float = 1.5, parts: int = 8) -> Array:
    """Noise power of every bin and frame from the minima of the smoothed periodogram (Martin, IEEE TSAP 9(5), 2001).

    `power` (F, T) is |Y|^2, `hop_s` the time between frames in seconds. The minimum is searched over `window_s` seconds
    in `parts` sub-windows; smoothing parameter, bias compensation and the faster update in sub-windows are those of the
    paper (section V).
    """
    part = max(1, round(window_s / hop_s / parts))
    length = part * parts
    mean_whole = float(np.interp(length, _MINIMUM_LENGTHS, _MINIMUM_MEANS))
    mean_part = float(np.interp(part, _MINIMUM_LENGTHS, _MINIMUM_MEANS))
    power = np.maximum(power, 1e-12 * float(power.max(initial=0.0)) + 1e-30)
    bins, frames = power.shape

    first = power[:, : max(1, round(0.1 / hop_s))].mean(
        axis=1
    )  # the search starts from the first 100 ms, taken as noise
    smoothed, noise = first.copy(), first.copy()
    moment1, moment2 = first.copy(), first**2
    correction = 1.0
    least_whole, least_part = np.full(bins, np.inf), np.full(bins, np.inf)
    stored = np.full((parts, bins), np.inf)
    local = np.zeros(bins, dtype=bool)
    slot, counter = 0, 0
    estimate = np.empty_like(power)
    for i in range(frames):
        periodogram = power[:, i]
        # optimal smoothing, lowered while the smoothed power lags behind the periodogram (equations 9 to 11)
        lag = 1 / (1 + (smoothed.sum() / periodogram.sum() - 1) ** 2)
        correction = 0.7 * correction + 0.3 * max(lag, 0.7)
        alpha = 0.96 * correction / (1 + (smoothed / noise - 1) ** 2)
        snr = smoothed.sum() / noise.sum()
        alpha = np.maximum(alpha, min(0.3, snr ** (-hop_s / 0.064)))
        smoothed = alpha * smoothed + (1 - alpha) * periodogram
        # bias of a minimum, from the variance of the smoothed power (equations 17, 20 to 23)
        beta = np.minimum(alpha**2, 0.8)
        moment1 = beta * moment1 + (1 - beta) * smoothed
        moment2 = beta * moment2 + (1 - beta) * smoothed**2
        inverse_q = np.clip((moment2 - moment1**2) / (2 * noise**2), 1e-6, 0.5)
        average = float(inverse_q.mean())
        variance_factor = 1 + 2.12 * math.sqrt(average)
        bias_whole = 1 + (length - 1) * 2 / ((1 / inverse_q - 2 * mean_whole) / (1 - mean_whole))
        bias_part = 1 + (part - 1) * 2 / ((1 / inverse_q - 2 * mean_part) / (1 - mean_part))
        candidate = smoothed * bias_whole * variance_factor
        lower = candidate < least_whole
        least_whole = np.where(lower, candidate, least_whole)
        least_part = np.where(lower, smoothed * bias_part * variance_factor, least_part)
        counter += 1
        if counter == part:
            local &= ~lower
            stored[slot] = least_whole
            slot = (slot + 1) % parts
            least_stored = stored.min(axis=0)
            steepest = 8.0 if average < 0.03 else 4.0 if average < 0.05 else 2.0 if average < 0.06 else 1.2
            rising = local & (least_part < steepest * least_stored) & (least_part > least_stored)
            stored[:, rising] = least_part[rising]  # the noise rose: do not wait for the whole window
            noise = np.where(rising, least_part, least_stored)
            least_whole = np.full(bins, np.inf)
            least_part = np.full(bins, np.inf)
            local[:] = False
            counter = 0
        else:
            if counter > 1:
                local |= lower
            noise = np.minimum(np.where(local, least_part, np.inf), np.minimum(stored.min(axis=0), least_whole))
        estimate[:, i] = noise
    return estimate


def has_rnnoise() -> bool:
    """Whether the optional package pyrnnoise is installed."""
    return find_spec("pyrnnoise") is not None


def rnnoise(noisy: npt.NDArray[np.floating], rate: int) -> Array:
    """RNNoise (Valin 2018) with the network inside librnnoise: resampled to 48 kHz and back, its delay removed.

    Raises:
        UserError: pyrnnoise is not installed.
    """
    if not has_rnnoise():
        raise UserError("RNNoise needs the package pyrnnoise; pip install -c constraints.txt -e 'apps/speech[rnnoise]'")
    import ctypes

    from pyrnnoise.rnnoise import create, destroy, lib
    from scipy.signal import resample_poly

    noisy = np.asarray(noisy, dtype=np.float64)
    peak = float(np.abs(noisy).max(initial=0.0))
    if peak == 0:
        return np.zeros_like(noisy)
    common = math.gcd(rate, RNNOISE_RATE)
    up, down = RNNOISE_RATE // common, rate // common
    wave = resample_poly(noisy, up, down)
    padded = np.zeros(-(-(len(wave) + RNNOISE_DELAY) // RNNOISE_FRAME) * RNNOISE_FRAME, dtype=np.float32)
    padded[: len(wave)] = wave * 32768.0  # the library works on the scale of 16-bit samples
    state = create()
    try:
        for start in range(0, len(padded), RNNOISE_FRAME):
            address = padded[start : start + RNNOISE_FRAME].ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            lib.rnnoise_process_frame(state, address, address)
    finally:
        destroy(state)
    cleaned = padded[RNNOISE_DELAY : RNNOISE_DELAY + len(wave)].astype(np.float64) / 32768.0
    return np.asarray(resample_poly(cleaned, down, up))[: len(noisy)]
