"""A differentiable model of wide-band PESQ, for training.

It follows ITU-T P.862.2 with the simplifications of the PESQ loss of SGMSE+ (Richter et al. 2024, arXiv 2409.10753): no
time alignment, and levels measured through a band-pass. Its value is not a PESQ score to report: for that see
`metrics.pesq_wb`. Everything is computed on the device of the signals without waiting for it.

Legend: B batch, L samples, N points of the Fourier transform, K = 49 Bark bands, T frames of 512 samples, hop 256.
"""

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ornstein.errors import UserError
from ornstein_speech import pesq_bands

RATE = 16000
FRAME, HOP = 512, 256
WINDOW, STRIDE = 20, 10
"""Frames of a split-second interval (0.32 s) and from one interval to the next."""
SHORTEST = FRAME + (WINDOW - 1) * HOP
"""Samples at 16 kHz that one split-second interval takes."""

LEVEL = 1e7
"""Mean square that both signals are brought to between 325 and 3250 Hz."""
SILENCE = 1e-10
"""Mean square, relative to the squared peak of the clean signal, that a quieter estimate is taken to have."""
QUIETEST_PEAK = 1e-8
"""A clean signal with a smaller peak is not brought to full level."""
BAND_PASS = (
    (0.015360199, 0.0, -0.076800995, 0.0, 0.15360199, 0.0, -0.15360199, 0.0, 0.076800995, 0.0, -0.015360199),
    (
        1.0,
        -5.752629,
        15.015483,
        -23.855875,
        25.98068,
        -20.408026,
        11.656143,
        -4.7485204,
        1.3240253,
        -0.22934994,
        0.018095171,
    ),
)
"""Butterworth, 5th order, 325 to 3250 Hz: numerator and denominator rounded to float32, as published. The rounding
moves the gain near 325 Hz, which shows in the level, so the numbers are kept and not the design."""
PRE_EMPHASIS = ((2.740826, -5.4816519, 2.740826), (1.0, -1.9444777, 0.94597794))
DECAY = 4096
"""Samples after which the responses of both filters have vanished in float64."""


class Disturbance(NamedTuple):
    """Perceived distortion of each signal, shape (B,): 0 if the estimate sounds like the clean signal, at most 45."""

    symmetric: Tensor
    """All differences in loudness."""
    asymmetric: Tensor
    """What was added, weighted more than what was taken away."""

    @property
    def loss(self) -> Tensor:
        """0.1 d_symm + 0.0309 d_asymm, shape (B,)."""
        return 0.1 * self.symmetric + 0.0309 * self.asymmetric

    @property
    def mos(self) -> Tensor:
        """The listening quality that P.862.2 maps the loss to, 1 to 4.64, shape (B,)."""
        return 0.999 + 4 / (1 + torch.exp(-1.3669 * (4.5 - self.loss) + 3.8224))


def disturbance(clean: Tensor, estimate: Tensor, rate: int = RATE) -> Disturbance:
    """Compare `estimate` with `clean`, shape (B, L) or (B, 1, L) each, at `rate` Hz; other rates are resampled to 16
    kHz.

    Computed in float32, or float64 for float64 signals, also under autocast. The level of either signal does not
    matter. Gradients are finite for all finite signals; where nothing is audible or a clamp holds they are 0.

    Raises:
        UserError: the shapes differ or are others, or there are fewer than 5376 samples (0.336 s) at 16 kHz.
    """
    if clean.shape != estimate.shape:
        raise UserError(f"clean and estimate have shapes {tuple(clean.shape)} and {tuple(estimate.shape)}; cut to one")
    if clean.ndim != 2 and not (clean.ndim == 3 and clean.shape[1] == 1):
        raise UserError(f"PESQ compares signals of shape (B, L) or (B, 1, L), not {tuple(clean.shape)}")
    dtype = torch.promote_types(torch.promote_types(clean.dtype, estimate.dtype), torch.float32)
    clean, estimate = (signal.reshape(-1, signal.shape[-1]).to(dtype) for signal in (clean, estimate))
    with torch.autocast(clean.device.type, enabled=False):
        if rate != RATE:
            clean, estimate = _resample(clean, rate), _resample(estimate, rate)
        if clean.shape[-1] < SHORTEST:
            raise UserError(
                f"the PESQ loss needs {SHORTEST / RATE} s, got {clean.shape[-1] / RATE:.3f} s; "
                "use longer segments (--data.samples) or set pesq_weight to 0"
            )
        return _compare(*_peak_normalise(clean, estimate))


def _resample(signal: Tensor, rate: int) -> Tensor:
    from torchaudio.functional import resample

    return resample(signal, rate, RATE)


def _peak_normalise(clean: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
    """Bring the clean signal, and the louder of the two, to peak 1: later steps ignore level, so the factors are
    constants to the gradient."""
    peak = clean.detach().abs().amax(-1, keepdim=True).clamp(min=QUIETEST_PEAK)
    joint = torch.maximum(estimate.detach().abs().amax(-1, keepdim=True), peak)
    return clean / peak, estimate / joint


def _compare(clean: Tensor, estimate: Tensor) -> Disturbance:
    """Disturbances of peak-normalised signals (B, L)."""
    c = _constants(clean.device, clean.dtype)
    reference, degraded = _band_powers(clean, c), _band_powers(estimate, c)

    # Compensate the reference for a filter that the estimate went through, the estimate for gains that vary in time.
    active = _audible(reference, c, 100).sum(1, keepdim=True) >= 1e7
    ratio = (_mean_power(degraded, active, c) + 1000) / (_mean_power(reference, active, c) + 1000)
    reference = reference * ratio.clamp(0.01, 100)
    total = _audible(reference, c).sum(1, keepdim=True)
    gain = (total + 5e3) / (_audible(degraded, c).sum(1, keepdim=True) + 5e3)
    gain = torch.cat([gain[..., :1], 0.8 * gain[..., 1:] + 0.2 * gain[..., :-1]], dim=-1)
    degraded = degraded * gain.clamp(3e-4, 5)

    loud, expected = _loudness(degraded, c), _loudness(reference, c)
    difference = loud - expected
    difference = difference.sign() * (difference.abs() - 0.25 * torch.minimum(loud, expected)).clamp(min=0)
    asymmetry = ((degraded + 50) / (reference + 50)) ** 1.2
    asymmetry = (asymmetry * (asymmetry >= 3)).clamp(max=12)

    # The lowest band, mostly hum, does not count.
    width = c.width[1:]
    weighted = width * difference[:, 1:]
    symmetric = width.sum().sqrt() * torch.linalg.vector_norm(weighted, dim=1)
    asymmetric = (weighted * asymmetry[:, 1:]).abs().sum(1)
    weight = ((total[:, 0] + 1e5) / 1e7) ** 0.04
    return Disturbance(*(_over_time((frames / weight).clamp(max=45)) for frames in (symmetric, asymmetric)))


def _band_powers(signal: Tensor, c: "_Constants") -> Tensor:
    """Power in every Bark band (B, K, T) of a signal (B, L), after level alignment and pre-emphasis."""
    length = signal.shape[-1]
    band_pass, pre_emphasis, ramp = _filters(length, signal.device, signal.dtype)
    in_band = _filter(signal, band_pass)
    # 5120 and 1.04684 come from padding and a rounding of the reference implementation.
    power = in_band.square().sum(-1, keepdim=True) / ((length + 5120) * 1.04684)
    aligned = signal * (LEVEL / power.clamp(min=SILENCE)).sqrt()
    emphasised = F.pad(_filter(aligned * ramp, pre_emphasis), (0, length % HOP))
    # Not torch.stft, whose gradient adds up overlapping frames in no fixed order on GPUs.
    spectrum = torch.fft.rfft(emphasised.unfold(-1, FRAME, HOP) * c.window)
    return c.bands @ (spectrum.real.square() + spectrum.imag.square()).mT


def _filter(signal: Tensor, response: Tensor) -> Tensor:
    """The first L samples of a recursive filter that starts at rest, as a product of spectra.

    Equal to the recursion: zeros behind the signal outlast the impulse response, so nothing wraps round.
    """
    points = 2 * (response.shape[-1] - 1)
    return torch.fft.irfft(torch.fft.rfft(signal, points) * response, points)[..., : signal.shape[-1]]


def _audible(powers: Tensor, c: "_Constants", factor: float = 1) -> Tensor:
    """Band powers above `factor` times the threshold of hearing, others 0."""
    return powers * (powers > factor * c.threshold)


def _mean_power(powers: Tensor, active: Tensor, c: "_Constants") -> Tensor:
    """Audible power of each band (B, K, 1): the sum over active frames divided by the number of all frames."""
    return (_audible(powers, c, 100) * active).mean(-1, keepdim=True)


def _loudness(powers: Tensor, c: "_Constants") -> Tensor:
    """Zwicker's law: S_l (2 P0)^g ((1/2 + P / 2 P0)^g - 1) above the threshold P0, else 0."""
    sone = c.loudness * ((0.5 + 0.5 * powers / c.threshold) ** c.exponent - 1)
    return sone * (powers > c.threshold)


def _over_time(frames: Tensor) -> Tensor:
    """From disturbances of frames (B, T) to (B,): L6 over split-second intervals, L2 over these.

    Both norms are kept off 0, where their gradients have no limit.
    """
    intervals = frames.unfold(-1, WINDOW, STRIDE)
    # Sixth powers leave the range of float32; relative to the largest they do not.
    largest = intervals.detach().amax(-1, keepdim=True).clamp(min=1e-20)
    mean = (intervals / largest).pow(6).mean(-1)
    interval = largest[..., 0] * mean.clamp(min=1e-3) ** (1 / 6)
    return interval.square().mean(-1).clamp(min=1e-20).sqrt()


class _Constants(NamedTuple):
    window: Tensor
    """(512,), Hann."""
    bands: Tensor
    """(K, 257): from the squared magnitude of the spectrum to band powers."""
    threshold: Tensor
    """(K, 1)."""
    exponent: Tensor
    """(K, 1): Zwicker's 0.23, larger at low frequencies."""
    loudness: Tensor
    """(K, 1): what Zwicker's law is scaled by."""
    width: Tensor
    """(K, 1)."""


@lru_cache(maxsize=8)
def _constants(device: torch.device, dtype: torch.dtype) -> _Constants:
    """Made once per device: a copy from the host in every step would wait for the device."""
    bands = np.zeros((len(pesq_bands.BINS), FRAME // 2 + 1))
    edges = np.cumsum([0, *pesq_bands.BINS])
    for band, (start, end) in enumerate(pairwise(edges)):
        bands[band, start:end] = pesq_bands.CORRECTIONS[band] * pesq_bands.POWER_SCALE
    bands[:, 0] = 0  # no constant component
    threshold = np.array(pesq_bands.THRESHOLDS)
    exponent = 0.23 * np.clip(6 / (np.array(pesq_bands.CENTRES) + 2), 1, 2) ** 0.15
    loudness = pesq_bands.LOUDNESS_SCALE * (2 * threshold) ** exponent
    columns = (values[:, None] for values in (threshold, exponent, loudness, np.array(pesq_bands.WIDTHS)))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
    return _Constants(*(_tensor(values, device, dtype) for values in (window, bands, *columns)))


@lru_cache(maxsize=8)
def _filters(length: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Responses of band-pass and pre-emphasis, each (N / 2 + 1,), and the ramps at both ends (L,)."""
    from scipy.fft import next_fast_len

    points = next_fast_len(length + DECAY, real=True)
    points += points % 2
    delay = np.exp(-2j * np.pi * np.arange(points // 2 + 1) / points)
    rounded = np.array(BAND_PASS, dtype=np.float32).astype(np.float64)
    band_pass, pre_emphasis = (
        np.polyval(numerator[::-1], delay) / np.polyval(denominator[::-1], delay)
        for numerator, denominator in (rounded, np.array(PRE_EMPHASIS))
    )
    ramp = np.minimum(1, np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)) / 16)
    complex_type = torch.complex128 if dtype == torch.float64 else torch.complex64
    first, second = (_tensor(response, device, complex_type) for response in (band_pass, pre_emphasis))
    return first, second, _tensor(ramp, device, dtype)


def _tensor(values: npt.NDArray[np.generic], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # training may follow a call under inference_mode
        return torch.from_numpy(values).to(device=device, dtype=dtype)
