"""Shortest Path Diffusion: every frequency has its own variance-preserving schedule."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ornstein.process.affine import Coefficients
from ornstein.process.tabulated import TabulatedProcess


@dataclass(frozen=True)
class ShortestPath(TabulatedProcess):
    """a = phi = sqrt(A), s = sqrt(1 - A) with A = (1 - d^tau)/(1 - d) for every frequency of power d: the geodesic of
    the Fisher metric from N(0, d) to N(0, 1) (Das et al. 2023, arXiv 2306.00501).

    Signals are pictures (B, C, height, width) in an orthonormal basis of frequencies, as `hartley` makes them;
    d = scale/(offset + |f|)^exponent with |f| in cycles a picture. The defaults are the published fit to CIFAR-10 and
    belong to no other data: see `fitted`. tau falls from 1 at t = 0, over (T - 1)/T at node 1, to 1/T, so that it never
    reaches 0. Grids go by a frequency of geometric mean power.
    """

    height: int = 32
    width: int = 32
    scale: float = 1.59
    """c1."""
    offset: float = 0.0086
    """c2; keeps the power finite at frequency 0."""
    exponent: float = 2.0
    """m."""
    steps: int = 4000

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1 or self.steps < 2 or not (self.scale > 0 and self.offset > 0):
            raise ValueError(
                f"ShortestPath needs a size of at least 1, steps >= 2, scale > 0 and offset > 0, got "
                f"{self.height} x {self.width}, {self.steps}, {self.scale} and {self.offset}"
            )

    @classmethod
    def fitted(cls, spectra: Tensor, offset: float = 0.0086, steps: int = 4000) -> "ShortestPath":
        """The process whose power follows signals in the basis of frequencies, (B, C, H, W): least squares of
        log d = log scale - exponent log(offset + |f|), d the variance over the batch, averaged over the channels."""
        if spectra.ndim != 4 or len(spectra) < 2:
            raise ValueError(f"the fit needs signals (B, C, H, W), two or more, got {tuple(spectra.shape)}")
        power = spectra.double().var(0).mean(0).flatten()
        seen = power > 0
        distance = torch.log(offset + frequencies(*spectra.shape[2:]).flatten()[seen])
        basis = torch.stack([torch.ones_like(distance), -distance], 1)
        logarithm, exponent = torch.linalg.lstsq(basis, power[seen].log()[:, None]).solution[:, 0].tolist()
        height, width = spectra.shape[2:]
        return cls(height, width, math.exp(logarithm), offset, exponent, steps)

    @property
    def levels(self) -> int:
        return self.steps

    @cached_property
    def log_power(self) -> Tensor:
        """log d, (height, width)."""
        distance = frequencies(self.height, self.width)
        return math.log(self.scale) - self.exponent * torch.log(self.offset + distance)

    def reference(self, t: Tensor) -> Coefficients:
        return self._coefficients(t, self.log_power.mean())

    def coefficients(self, t: Tensor) -> Coefficients:
        return self._coefficients(t.reshape(-1, 1, 1, 1), self.log_power.to(t.device))

    def derivatives(self, t: Tensor) -> Coefficients:
        t, log_d = t.reshape(-1, 1, 1, 1), self.log_power.to(t.device)
        a, b, s, _ = self._coefficients(t, log_d)
        rate = self._rate(t, log_d)
        return Coefficients(a=rate / (2 * a), b=b, s=-rate / (2 * s), phi=rate / (2 * a))

    def variance_rate(self, t: Tensor) -> Tensor:
        return -self._rate(t.reshape(-1, 1, 1, 1), self.log_power.to(t.device))

    def _coefficients(self, t: Tensor, log_d: Tensor) -> Coefficients:
        done = self._done(t)
        a = _share(1 - done, log_d).sqrt()
        s = (torch.exp((1 - done) * log_d) * _share(done, log_d)).sqrt()  # 1 - A, with its digits near t = 0
        return Coefficients(a=a, b=torch.zeros_like(a), s=s, phi=a)

    def _done(self, t: Tensor) -> Tensor:
        """1 - tau: 0 at t = 0, 1/T at node 1 and (T - 1)/T at node T, linear between them."""
        stretch = (self.steps - 2) / (self.steps - 1)
        return torch.where(t < 1, t, 1 + (t - 1) * stretch) / self.steps

    def _rate(self, t: Tensor, log_d: Tensor) -> Tensor:
        """dA/dt."""
        stretch = (self.steps - 2) / (self.steps - 1)
        speed = torch.where(t < 1, torch.ones_like(t), torch.full_like(t, stretch)) / self.steps
        some = log_d != 0
        safe = torch.where(some, log_d, torch.ones_like(log_d))
        slope = torch.where(some, safe / torch.expm1(safe), torch.ones_like(log_d))
        return -speed * slope * torch.exp((1 - self._done(t)) * log_d)


def frequencies(height: int, width: int) -> Tensor:
    """|f| in cycles a picture, (height, width), in the order of the discrete Fourier transform."""
    rows, columns = (torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) for n in (height, width))
    return (rows[:, None] ** 2 + columns**2).sqrt()


def hartley(x: Tensor) -> Tensor:
    """The orthonormal Hartley transform of the last two axes, its own inverse: real part minus imaginary part of the
    Fourier transform. White noise stays white noise, and what acts on |f| alone acts here as it does on Fourier."""
    spectrum = torch.fft.fft2(x, norm="ortho")
    return spectrum.real - spectrum.imag


def _share(part: Tensor, log_d: Tensor) -> Tensor:
    """(1 - d^part)/(1 - d), and part where d = 1."""
    some = log_d != 0
    safe = torch.where(some, log_d, torch.ones_like(log_d))
    return torch.where(some, torch.expm1(part * safe) / torch.expm1(safe), part)
