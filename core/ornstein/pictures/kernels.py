"""Blur kernels of Real-ESRGAN (arXiv 2107.10833, section 3.1 and appendix), float64, of sum 1, shape (size, size).

Gaussian kernels see a distance d^2 = u^T C^-1 u of a pixel u, with C of standard deviations sigma_x, sigma_y turned by
an angle in radians.
"""

import math
from dataclasses import dataclass, field

import torch
from scipy.special import j1
from torch import Tensor

from ornstein.pictures.degraded import choose, integer, uniform


def gaussian_kernel(
    size: int, sigma_x: float, sigma_y: float | None = None, angle: float = 0.0, beta: float = 1.0
) -> Tensor:
    """exp(-d^(2 beta) / 2): Gaussian for beta = 1, generalised Gaussian otherwise; isotropic without `sigma_y`."""
    return _normalised((-0.5 * _distance(size, sigma_x, sigma_y, angle).pow(beta)).exp())


def plateau_kernel(
    size: int, sigma_x: float, sigma_y: float | None = None, angle: float = 0.0, beta: float = 1.0
) -> Tensor:
    """1 / (1 + d^(2 beta)), flat in the middle; isotropic without `sigma_y`."""
    return _normalised(1 / (1 + _distance(size, sigma_x, sigma_y, angle).pow(beta)))


def sinc_kernel(size: int, cutoff: float) -> Tensor:
    """Circular ideal low-pass w J1(w r) / (2 pi r), `cutoff` w in radians per pixel; it rings."""
    x, y = _grid(size)
    radius = (x**2 + y**2).sqrt()
    # torch.special.bessel_j1 is accurate to 1e-7 only
    wave = torch.from_numpy(j1((cutoff * radius).numpy())) / (2 * math.pi * radius)
    kernel = cutoff * torch.where(radius > 0, wave, torch.full_like(wave, cutoff / (4 * math.pi)))
    return _normalised(kernel)


def pulse_kernel(size: int) -> Tensor:
    """The identity."""
    kernel = torch.zeros(size, size, dtype=torch.float64)
    kernel[size // 2, size // 2] = 1
    return kernel


def padded(kernel: Tensor, size: int) -> Tensor:
    """Centre a kernel in zeros of shape (size, size)."""
    margin = (size - len(kernel)) // 2
    return torch.nn.functional.pad(kernel, (margin, margin, margin, margin))


@dataclass(frozen=True)
class RandomKernel:
    """Draws a kernel of shape (padded_size, padded_size).

    Args:
        sizes: smallest and largest odd size.
        padded_size: of the result.
        weights: of isotropic and anisotropic Gaussian, both generalised, both plateau.
        sigma: range of the standard deviations in pixels.
        beta_gaussian: range of the exponent; half of the draws lie below 1, half above.
        beta_plateau: the same of the plateau.
        sinc_probability: of a low-pass in place of these, with a cut-off between pi/3 (pi/5 from size 13 on) and pi.
    """

    sizes: tuple[int, int] = (3, 19)
    padded_size: int = 21
    weights: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sigma: tuple[float, float] = (0.2, 3.0)
    beta_gaussian: tuple[float, float] = (0.5, 4.0)
    beta_plateau: tuple[float, float] = (1.0, 2.0)
    sinc_probability: float = 0.1

    def __call__(self, generator: torch.Generator) -> Tensor:
        """Draw one kernel, float64."""
        size = odd(self.sizes, generator)
        if uniform((0.0, 1.0), generator) < self.sinc_probability:
            lowest = math.pi / 3 if size < 13 else math.pi / 5
            return padded(sinc_kernel(size, uniform((lowest, math.pi), generator)), self.padded_size)
        kind = choose(self.weights, generator)
        sigma_x = uniform(self.sigma, generator)
        sigma_y, angle = None, 0.0
        if kind % 2 == 1:
            sigma_y, angle = uniform(self.sigma, generator), uniform((-math.pi, math.pi), generator)
        if kind < 2:
            return padded(gaussian_kernel(size, sigma_x, sigma_y, angle), self.padded_size)
        low, high = self.beta_gaussian if kind < 4 else self.beta_plateau
        below = uniform((0.0, 1.0), generator) < 0.5
        beta = uniform((low, 1.0) if below else (1.0, high), generator)
        make = gaussian_kernel if kind < 4 else plateau_kernel
        return padded(make(size, sigma_x, sigma_y, angle, beta), self.padded_size)


@dataclass(frozen=True)
class RandomSinc:
    """Draws the low-pass of the last stage: a sinc with the given probability, else the identity."""

    sizes: tuple[int, int] = (3, 19)
    padded_size: int = 21
    probability: float = 0.8
    cutoff: tuple[float, float] = field(default=(math.pi / 3, math.pi))

    def __call__(self, generator: torch.Generator) -> Tensor:
        """Draw one kernel, float64."""
        if uniform((0.0, 1.0), generator) >= self.probability:
            return pulse_kernel(self.padded_size)
        size = odd(self.sizes, generator)
        return padded(sinc_kernel(size, uniform(self.cutoff, generator)), self.padded_size)


def odd(limits: tuple[int, int], generator: torch.Generator) -> int:
    """Draw an odd number between two odd numbers, both included."""
    low, high = limits
    return low + 2 * integer((0, (high - low) // 2), generator)


def _grid(size: int) -> tuple[Tensor, Tensor]:
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def _distance(size: int, sigma_x: float, sigma_y: float | None, angle: float) -> Tensor:
    """d^2, shape (size, size)."""
    x, y = _grid(size)
    if sigma_y is None:
        return (x**2 + y**2) / sigma_x**2
    cos, sin = math.cos(angle), math.sin(angle)
    return ((cos * x + sin * y) / sigma_x) ** 2 + ((cos * y - sin * x) / sigma_y) ** 2


def _normalised(kernel: Tensor) -> Tensor:
    return kernel / kernel.sum()
