"""Too little light: a dark exposure with the noise of a sensor."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.pictures.degraded import Degraded, check_images, log_uniform, to_eight_bits, uniform


@dataclass(frozen=True)
class LowLight:
    """Darken and add noise: light L = x^gamma, n = Poisson(gain L photons) / photons + read noise, output n^(1/2.2).

    A gamma above 2.2 deepens the shadows more than an exposure would. The result has 8 bits.

    Args:
        gain: range of the exposure, on linear light.
        gamma: range of the exponent that takes image values to linear light.
        photons: range of the number of events of white at full exposure, uniform in its logarithm.
        read_noise: range of the standard deviation in parts of white, on linear light.
    """

    gain: tuple[float, float] = (0.05, 0.25)
    gamma: tuple[float, float] = (2.0, 3.5)
    photons: tuple[float, float] = (500.0, 5000.0)
    read_noise: tuple[float, float] = (0.0005, 0.003)

    scale = 1

    def __call__(self, image: Tensor, generator: torch.Generator) -> Degraded:
        """Degrade (3, H, W)."""
        gain, gamma = uniform(self.gain, generator), uniform(self.gamma, generator)
        photons, sigma = log_uniform(self.photons, generator), uniform(self.read_noise, generator)
        light = gain * check_images(image).pow(gamma)
        noisy = sensor(light, photons, sigma, generator)
        return Degraded(to_eight_bits(noisy.clamp(0, 1).pow(1 / 2.2)))


def sensor(light: Tensor, photons: float, sigma: float, generator: torch.Generator) -> Tensor:
    """Shot and read noise on linear light: mean `light`, variance light / photons + sigma^2."""
    shot = torch.poisson(light * photons, generator=generator) / photons
    return shot + sigma * torch.randn(light.shape, generator=generator)
