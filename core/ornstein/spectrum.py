"""Distances of pictures in the frequency domain ("thermal spectrum distribution regulation" of DifIISR, CVPR 2025).

The paper shows amplitudes over frequencies and gives no formula that could be read; the definitions here are our own.
Legend: F orthonormal 2-D FFT of every channel, A amplitude, f_x and f_y frequencies in cycles per pixel, -1/2 to 1/2.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ornstein.errors import UserError

Comparison = Literal["amp_l2", "amp_l1", "logamp_l2", "complex_l2"]

FLOOR = 1e-8
"""Added to the power, because the root has no gradient at 0."""


@dataclass(frozen=True)
class SpectrumLoss:
    """Mean over the kept frequencies of a difference between the spectra of x and of the reference g.

    `amp_l2`: (A(x) - A(g))^2; `amp_l1`: |A(x) - A(g)|; `logamp_l2`: (log(1 + A(x)) - log(1 + A(g)))^2; `complex_l2`:
    |F x - F g|^2, which without a cutoff is the mean square error (Parseval) and adds nothing to it.
    """

    comparison: Comparison = "amp_l2"
    cutoff: float | None = None
    """f_c: only |f_x| <= f_c and |f_y| <= f_c count; a picture `scale` times smaller can know 1 / (2 scale). None
    keeps all."""

    def __post_init__(self) -> None:
        if self.comparison not in get_args(Comparison):
            raise UserError(f"comparison is {self.comparison!r}; use one of {', '.join(get_args(Comparison))}")
        if self.cutoff is not None and not 0 <= self.cutoff <= 0.5:
            raise UserError(f"a cutoff of {self.cutoff} cycles per pixel; give one between 0 and 0.5, or null")

    def __call__(self, x: Tensor, g: Tensor) -> Tensor:
        """The mean over the batch, a scalar."""
        return self.per_sample(x, g).mean()

    def per_sample(self, x: Tensor, g: Tensor) -> Tensor:
        """The loss of each sample, (B,).

        Args:
            x: (B, C, H, W), real.
            g: of the same shape.
        """
        if x.shape != g.shape or x.dim() != 4:
            raise ValueError(f"spectra need two batches (B, C, H, W) of one shape, not {_shape(x)} and {_shape(g)}")
        match self.comparison:
            case "amp_l2":
                error = (amplitude(x) - amplitude(g)).square()
            case "amp_l1":
                error = (amplitude(x) - amplitude(g)).abs()
            case "logamp_l2":
                error = (amplitude(x).log1p() - amplitude(g).log1p()).square()
            case "complex_l2":
                # of the difference itself, whose rounding is that of the error and not that of the pictures
                difference = transform(x - g)
                error = difference.real.square() + difference.imag.square()
        if self.cutoff is not None:
            kept = band(x.shape[-2], x.shape[-1], self.cutoff).to(x.device)
            error = error[..., kept]
        return error.flatten(1).mean(1)


def transform(x: Tensor) -> Tensor:
    """F x, complex, of x (..., H, W); in float32 at least, because half precision knows few sizes."""
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    return torch.fft.fft2(x, norm="ortho")


def amplitude(x: Tensor) -> Tensor:
    """A = sqrt(Re^2 + Im^2 + 1e-8) of F x, (..., H, W)."""
    found = transform(x)
    return (found.real.square() + found.imag.square() + FLOOR).sqrt()


def band(height: int, width: int, cutoff: float) -> Tensor:
    """Which frequencies (H, W), in the order of the FFT, have |f_x| and |f_y| up to `cutoff` cycles per pixel."""
    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64).abs() <= cutoff for side in (height, width))
    return rows[:, None] & columns


def radial_power(picture: Tensor) -> Tensor:
    """Power of a square picture (n, n) under a Hann window, averaged over rings of integer radius, (n // 2,), float64.

    The mean is taken out first; ring k holds the bins whose distance from zero frequency is k or more, and below k + 1.
    """
    side = picture.shape[-1]
    if picture.dim() != 2 or picture.shape[0] != side or side < 4:
        raise ValueError(f"a radial spectrum needs a square picture (n, n) with n >= 4, not {_shape(picture)}")
    x = picture.double()
    window = torch.hann_window(side, periodic=False, dtype=torch.float64)
    spectrum = transform((x - x.mean()) * window[:, None] * window)
    power = spectrum.real.square() + spectrum.imag.square()
    frequency = torch.fft.fftfreq(side, dtype=torch.float64) * side
    ring = torch.hypot(frequency[:, None], frequency).long()
    total = torch.zeros(int(ring.max()) + 1, dtype=torch.float64).index_add_(0, ring.flatten(), power.flatten())
    return (total / ring.flatten().bincount())[: side // 2]


def spectral_slope(picture: Tensor) -> float:
    """Slope of log radial power over log frequency, bins 4 to n / 4, of the top left n x n square, n the shorter side.

    Natural scenes have about -2, infrared ones down to -3.3. NaN for a side below 24 or a constant picture.

    Args:
        picture: (H, W).
    """
    side = min(picture.shape)
    if side < 24:
        return math.nan
    power = radial_power(picture[:side, :side])[4 : side // 4 + 1]
    if not bool((power > 0).all()):
        return math.nan
    x = torch.arange(4, side // 4 + 1, dtype=torch.float64).log()
    x = x - x.mean()
    return float((x * power.log()).sum() / x.square().sum())


def _shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)
