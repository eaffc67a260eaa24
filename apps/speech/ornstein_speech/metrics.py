"""How good an estimate of clean speech is: PESQ, ESTOI, SI-SDR and its parts.

Signals are 1-D numpy arrays or tensors of one length; x is clean, n = noisy - x the noise, xh the estimate.
"""

import math
import warnings
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Signal: TypeAlias = "npt.NDArray[np.floating] | Tensor"
Array = npt.NDArray[np.float64]

PESQ_RATE = 16000
PESQ_LONGEST = 30.0
"""Seconds. The reference code of P.862 has room for 50 utterances and was validated on cuts of up to 30 s."""

NAMES = {
    "pesq": "PESQ",
    "estoi": "ESTOI",
    "si_sdr": "SI-SDR",
    "si_sir": "SI-SIR",
    "si_sar": "SI-SAR",
}
"""Names to print; SI-* are in dB."""


PAIRED = ("pesq", "si_sdr")
"""The two metrics that are compared file by file: a method may buy one at the cost of the other."""


def pesq_wb(clean: Signal, estimate: Signal, rate: int = PESQ_RATE) -> float:
    """Wide-band PESQ (ITU-T P.862.2), a MOS from 1.04 to 4.64, of signals at `rate` Hz; other rates are resampled to 16
    kHz.

    Signals over 30 s are scored in equal parts, and the mean of the parts is given. NaN where PESQ is not defined:
    silence, no utterance found, less than a quarter of a second, or values that are not finite.
    """
    x, xh = _pair(clean, estimate)
    x, xh = resampled(x, rate, PESQ_RATE), resampled(xh, rate, PESQ_RATE)
    parts = max(1, math.ceil(len(x) / (PESQ_LONGEST * PESQ_RATE)))
    scores = [_pesq(*part) for part in zip(np.array_split(x, parts), np.array_split(xh, parts), strict=True)]
    return _nanmean(scores)


def _pesq(x: Array, xh: Array) -> float:
    from pesq import PesqError, pesq

    if len(x) < PESQ_RATE // 4 or not _usable(x, xh):
        return math.nan
    try:
        return float(pesq(PESQ_RATE, x, xh, "wb"))
    except PesqError:  # no utterance in one of the two: no score exists
        return math.nan


def estoi(clean: Signal, estimate: Signal, rate: int) -> float:
    """Extended short-time objective intelligibility (Jensen & Taal 2016), about 0 to 1.

    NaN for silence, less than about 0.4 s of speech, or values that are not finite.
    """
    from pystoi import stoi

    x, xh = _pair(clean, estimate)
    if not _usable(x, xh):
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter(
            "error", RuntimeWarning
        )  # "not enough frames": the value that would be returned means nothing
        state = np.random.get_state()  # noqa: NPY002  # pystoi adds noise of 1e-16 from the global generator
        np.random.seed(0)  # noqa: NPY002
        try:
            return float(stoi(x, xh, rate, extended=True))
        except (RuntimeWarning, ValueError):
            return math.nan
        finally:
            np.random.set_state(state)  # noqa: NPY002


def si_sdr(clean: Signal, estimate: Signal) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, without removing the mean (Le Roux et al. 2019); NaN for
    silence.

    With a = <xh, x>/|x|^2: 10 log10(|a x|^2 / |xh - a x|^2).
    """
    x, xh = _pair(clean, estimate)
    if not _usable(x, xh):
        return math.nan
    target = _project(xh, x)
    return _decibels(target, xh - target)


def si_sir(clean: Signal, noisy: Signal, estimate: Signal) -> float:
    """Speech against remaining noise in dB: |e_target|^2 / |e_noise|^2, e_noise the part of xh along n."""
    return _components(clean, noisy, estimate)[0]


def si_sar(clean: Signal, noisy: Signal, estimate: Signal) -> float:
    """Speech against artefacts in dB: |e_target|^2 / |e_art|^2, e_art = xh - e_target - e_noise."""
    return _components(clean, noisy, estimate)[1]


def _components(clean: Signal, noisy: Signal, estimate: Signal) -> tuple[float, float]:
    x, xh = _pair(clean, estimate)
    n = _pair(noisy, clean)[0] - x
    if not _usable(x, xh, n):
        return math.nan, math.nan
    target, noise = _project(xh, x), _project(xh, n)
    return _decibels(target, noise), _decibels(target, xh - target - noise)


def score(clean: Signal, noisy: Signal, estimate: Signal, rate: int) -> dict[str, float]:
    """All metrics of one file at `rate` Hz, by the keys of `NAMES`; NaN where a metric is not defined."""
    return {
        "pesq": pesq_wb(clean, estimate, rate),
        "estoi": estoi(clean, estimate, rate),
        "si_sdr": si_sdr(clean, estimate),
        "si_sir": si_sir(clean, noisy, estimate),
        "si_sar": si_sar(clean, noisy, estimate),
    }


def _pair(first: Signal, second: Signal) -> tuple[Array, Array]:
    a, b = _array(first), _array(second)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"metrics need two 1-D signals of one length, not {a.shape} and {b.shape}")
    return a, b


def _array(signal: Signal) -> Array:
    if not isinstance(signal, np.ndarray):
        signal = signal.detach().cpu().numpy()
    return signal.astype(np.float64)


def _usable(*signals: Array) -> bool:
    return all(len(s) > 0 and bool(np.isfinite(s).all()) and bool(s.any()) for s in signals)


def _project(xh: Array, onto: Array) -> Array:
    return onto * (float(xh @ onto) / float(onto @ onto))


def _decibels(signal: Array, rest: Array) -> float:
    upper, lower = float(signal @ signal), float(rest @ rest)
    if lower == 0:
        return math.inf
    return 10 * math.log10(upper / lower) if upper > 0 else -math.inf


def _nanmean(values: list[float]) -> float:
    kept = [v for v in values if not math.isnan(v)]
    return sum(kept) / len(kept) if kept else math.nan


def resampled(signal: Array, rate: int, to: int) -> Array:
    """`signal` at the rate `to` Hz, by a polyphase filter."""
    from scipy.signal import resample_poly

    if rate == to:
        return signal
    common = math.gcd(rate, to)
    return np.asarray(resample_poly(signal, to // common, rate // common))
