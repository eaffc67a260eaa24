"""Waveform <-> compressed complex spectrogram, the space the speech processes run in.

An STFT coefficient c becomes beta |c|^a exp(i arg c): the power a < 1 lifts the quiet parts of speech, beta scales most
values into the unit disc (Welker et al. 2022; Richter et al., TASLP 2023, section IV). Legend: B batch, L samples, F
bins, T frames.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Window = Literal["hann", "sqrthann"]
Transform = Literal["exponent", "log", "none"]
Padding = Literal["zero", "reflect"]


@dataclass(frozen=True)
class CompressedSpectrogram:
    """Centred one-sided STFT (reflected ends, periodic window, not normalised), then compression of the magnitude.

    The defaults are those of 16 kHz; at 48 kHz the published models use n_fft 1534, hop 384, exponent 0.667, factor
    0.065.
    """

    n_fft: int = 510
    """Window length in samples; gives n_fft // 2 + 1 bins."""
    hop: int = 128
    """Samples from frame to frame."""
    window: Window = "hann"
    transform: Transform = "exponent"
    """`exponent`: beta |c|^a; `log`: beta log(1 + |c|); `none`: the plain STFT. The phase is kept."""
    exponent: float = 0.5
    """a."""
    factor: float = 0.15
    """beta."""
    sample_rate: int = 16000
    """Rate in Hz the numbers above are meant for."""
    padding: Padding = "zero"
    """How `pad_frames` extends a spectrogram; belongs to the trained network, which notices the difference."""

    def __post_init__(self) -> None:
        for name, choice, choices in (
            ("window", self.window, get_args(Window)),
            ("transform", self.transform, get_args(Transform)),
            ("padding", self.padding, get_args(Padding)),
        ):
            if choice not in choices:
                raise ValueError(f"{name} is {choice!r}; choose one of {', '.join(choices)}")
        if not 0 < self.hop <= self.n_fft:
            raise ValueError(f"hop {self.hop} must lie in 1..n_fft ({self.n_fft})")
        if self.exponent <= 0 or self.factor <= 0:
            raise ValueError(f"exponent {self.exponent} and factor {self.factor} must be positive")

    @property
    def bins(self) -> int:
        """F."""
        return self.n_fft // 2 + 1

    def frames(self, length: int) -> int:
        """T of a waveform of `length` samples."""
        return 1 + max(length, self.n_fft // 2 + 1) // self.hop

    def forward(self, wave: Tensor) -> Tensor:
        """Spectrogram (B, 1, F, T), complex, of `wave` (B, 1, L); half-precision input is computed in float32.

        A waveform too short to be reflected (L <= n_fft // 2) is extended with zeros on the right first; `inverse` cuts
        them again.
        """
        wave = wave if wave.dtype in (torch.float32, torch.float64) else wave.float()
        missing = self.n_fft // 2 + 1 - wave.shape[-1]
        if missing > 0:
            wave = F.pad(wave, (0, missing))
        batch, channels, length = wave.shape
        spec = torch.stft(
            wave.reshape(-1, length), self.n_fft, self.hop, window=self._window(wave), return_complex=True
        )
        return self.compress(spec.reshape(batch, channels, *spec.shape[-2:]))

    def inverse(self, spec: Tensor, length: int) -> Tensor:
        """Waveform (B, 1, length) of the compressed `spec` (B, 1, F, T).

        Frames added by `pad_frames` may stay, as in the published inference: they blend into the last half window.
        """
        batch, channels = spec.shape[:2]
        spec = self.expand(spec)
        wave = self._overlap_add(spec.reshape(-1, *spec.shape[-2:]), length)
        return wave.reshape(batch, channels, length)

    def _overlap_add(self, spec: Tensor, length: int) -> Tensor:
        """Inverse STFT (N, length) of `spec` (N, F, T): torch.istft without its check of the window.

        That check reads a number from the device: in training it would make every step wait for the GPU.
        """
        window = self._window(spec.real)[:, None]
        frames = torch.fft.irfft(spec, n=self.n_fft, dim=-2) * window
        size = (1, self.n_fft + self.hop * (spec.shape[-1] - 1))
        kept = slice(self.n_fft // 2, self.n_fft // 2 + length)
        wave, weight = (
            F.fold(part, size, (1, self.n_fft), stride=(1, self.hop))[:, 0, 0, kept]
            for part in (frames, (window**2).expand(1, -1, spec.shape[-1]))
        )
        return F.pad(wave / weight, (0, length - wave.shape[-1]))

    def compress(self, c: Tensor) -> Tensor:
        """beta |c|^a exp(i arg c), elementwise on the STFT `c`; zero stays zero and has a finite gradient."""
        if self.transform == "none":
            return c
        magnitude = _magnitude(c)
        if self.transform == "log":
            return c * (self.factor * torch.log1p(magnitude) / magnitude)
        return c * self.factor if self.exponent == 1 else c * (self.factor * magnitude ** (self.exponent - 1))

    def expand(self, c: Tensor) -> Tensor:
        """|c/beta|^(1/a) exp(i arg c), the inverse of `compress`."""
        if self.transform == "none":
            return c
        c = c / self.factor
        if self.transform == "log":
            magnitude = _magnitude(c)
            return c * (torch.expm1(magnitude) / magnitude)
        return c if self.exponent == 1 else c * _magnitude(c) ** (1 / self.exponent - 1)

    def pad_frames(self, spec: Tensor, multiple: int = 64, mode: Padding | None = None) -> Tensor:
        """Extend `spec` (..., T) on the right to a multiple of `multiple` frames, with zeros or by reflection (default:
        `padding`).

        Reflection needs more frames than it adds; where there are too few (T <= pad), zeros are used instead.
        """
        frames = spec.shape[-1]
        pad = -frames % multiple
        if (mode or self.padding) == "reflect" and frames > pad:
            return torch.cat([spec, spec[..., frames - 1 - pad : frames - 1].flip(-1)], dim=-1)
        return torch.cat([spec, spec.new_zeros(*spec.shape[:-1], pad)], dim=-1)

    def _window(self, like: Tensor) -> Tensor:
        """Built on each call: cheap beside the STFT, and nothing to move between devices or to keep."""
        window = torch.hann_window(self.n_fft, dtype=like.dtype, device=like.device)
        return window.sqrt() if self.window == "sqrthann" else window


def _magnitude(c: Tensor) -> Tensor:
    """|c|, kept off zero so that powers of it, and their gradients, stay finite."""
    return c.abs().clamp_min(torch.finfo(c.real.dtype).tiny)
