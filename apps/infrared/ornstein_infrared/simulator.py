"""Radiometric scenes for training and testing where there is no data: temperatures whose statistics are those of
infrared streets (spectral slope, kurtosis of gradients, what bicubic enlargement makes of them), with hot objects whose
place is known.

The scene: sky over ground, hundreds of flat boxes and ellipses whose sizes follow r^-3 (occlusion, the "dead leaves"
of natural scenes), warm bodies on the ground, 1/f texture; then a lens and a detector. Before the cold sky bodies would
have edges of up to 40 kelvin, which streets do not have, and rule the kurtosis of gradients.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.pictures.degraded import integer, uniform
from ornstein.pictures.filters import gaussian_blur


@dataclass(frozen=True)
class Scene:
    """Temperatures (H, W) in degrees Celsius, float32, and where the warm bodies are, bool."""

    temperature: Tensor
    hot: Tensor

    def picture(self, percentiles: tuple[float, float] = (0.5, 99.5)) -> Tensor:
        """The frame in [0, 1], (1, H, W), that a camera shows: percentiles become 0 and 1 (linear AGC), 8 bits."""
        exact = self.temperature.double()
        low, high = (float(level) for level in np.percentile(exact.numpy(), percentiles))
        shown = ((exact - low) / max(high - low, 1e-9)).clamp(0, 1)
        return ((255 * shown).round() / 255).float()[None]

    def counts(self, gain: float = 0.01) -> Tensor:
        """Kelvin in steps of `gain`, (H, W), int32 between 0 and 65534."""
        return ((self.temperature.double() + 273.15) / gain).round().clamp(0, 65534).int()


@dataclass(frozen=True)
class Simulator:
    """Draws scenes of `height` x `width` pixels.

    Args:
        height: of a scene, at least 64.
        width: of a scene, at least 64.
        objects: range of their number in 640 x 512 pixels.
        sizes: range of the radius of an object in pixels, in the density r^-3.
        spread: standard deviation in kelvin of an object from the background.
        bodies: range of the number of warm bodies.
        body: range of their temperature in degrees Celsius.
        texture: standard deviation in kelvin of the 1/f texture.
        psf: range of the standard deviation of the lens in pixels.
        noise: standard deviation in kelvin of every pixel.
        columns: standard deviation in kelvin of every column.
    """

    height: int = 512
    width: int = 640
    objects: tuple[int, int] = (250, 450)
    sizes: tuple[float, float] = (6.0, 140.0)
    spread: float = 3.0
    bodies: tuple[int, int] = (2, 8)
    body: tuple[float, float] = (26.0, 34.0)
    texture: float = 1.0
    psf: tuple[float, float] = (0.5, 0.9)
    noise: float = 0.05
    columns: float = 0.03

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 64:
            raise UserError(f"scenes of {self.width} x {self.height} pixels; give at least 64 a side")

    def __call__(self, generator: torch.Generator) -> Scene:
        """Draw one scene."""
        size = (self.height, self.width)
        horizon = uniform((0.3, 0.55), generator) * self.height
        background = self._background(horizon, generator)
        scene = background.clone()
        share = self.height * self.width / (640 * 512)
        for _ in range(max(1, round(share * integer(self.objects, generator)))):
            place, shape, (y, x) = self._shape(self._radius(generator), generator)
            row, column = min(max(int(y), 0), size[0] - 1), min(max(int(x), 0), size[1] - 1)
            temperature = float(background[row, column]) + self.spread * _normal(generator)
            scene[place] = torch.where(shape, temperature, scene[place])
        hot = torch.zeros(size, dtype=torch.bool)
        for _ in range(integer(self.bodies, generator)):
            radius = uniform((0.012, 0.05), generator) * self.height
            place, shape, _ = self._shape(radius, generator, horizon)
            scene[place] = torch.where(shape, uniform(self.body, generator), scene[place])
            hot[place] |= shape
        scene = scene + self.texture * _texture(size, generator)
        scene = gaussian_blur(scene[None, None], uniform(self.psf, generator))[0, 0]
        scene = scene + self.noise * torch.randn(size, generator=generator)
        return Scene(scene + self.columns * torch.randn(self.width, generator=generator), hot)

    def _background(self, horizon: float, generator: torch.Generator) -> Tensor:
        """Sky that warms towards the horizon, ground that warms towards the camera."""
        zenith, low_sky = uniform((-12.0, 0.0), generator), uniform((2.0, 8.0), generator)
        far, near = uniform((10.0, 14.0), generator), uniform((14.0, 20.0), generator)
        rows = torch.arange(self.height, dtype=torch.float32)
        sky = zenith + (low_sky - zenith) * (rows / horizon).clamp(max=1)
        ground = far + (near - far) * ((rows - horizon) / (self.height - horizon)).clamp(min=0)
        return torch.where(rows < horizon, sky, ground)[:, None].expand(-1, self.width)

    def _radius(self, generator: torch.Generator) -> float:
        """A draw of the density r^-3."""
        low, high = (radius**-2 for radius in self.sizes)
        return uniform((high, low), generator) ** -0.5

    def _shape(
        self, radius: float, generator: torch.Generator, horizon: float | None = None
    ) -> tuple[tuple[slice, slice], Tensor, tuple[float, float]]:
        """A turned box or ellipse, or an upright ellipse below `horizon`: the window it lies in, which pixels there are
        in it, and its centre."""
        upright = horizon is not None
        y, x = uniform((horizon or 0.0, self.height), generator), uniform((0.0, self.width), generator)
        ellipse = upright or uniform((0.0, 1.0), generator) < 0.5
        angle = uniform((0.0, math.pi), generator) * (0 if upright else 1)
        a, b = radius, radius * uniform((0.4, 0.8) if upright else (0.3, 1.0), generator)
        reach = math.ceil(1.5 * radius) + 1
        top, left = max(0, int(y) - reach), max(0, int(x) - reach)
        bottom, right = min(self.height, int(y) + reach + 1), min(self.width, int(x) + reach + 1)
        rows = torch.arange(top, bottom, dtype=torch.float32)[:, None] - y
        columns = torch.arange(left, right, dtype=torch.float32) - x
        along = math.cos(angle) * rows + math.sin(angle) * columns
        across = math.cos(angle) * columns - math.sin(angle) * rows
        u, v = (along / a).abs(), (across / b).abs()
        inside = u**2 + v**2 <= 1 if ellipse else torch.maximum(u, v) <= 1
        return (slice(top, bottom), slice(left, right)), inside, (y, x)


def _texture(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Noise (H, W) of standard deviation 1 whose amplitude falls with 1/f."""
    spectrum = torch.fft.rfft2(torch.randn(size, generator=generator))
    frequency = torch.hypot(torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1]))
    frequency[0, 0] = math.inf
    noise = torch.fft.irfft2(spectrum / frequency, s=size)
    return noise / noise.std()


def _normal(generator: torch.Generator) -> float:
    return float(torch.randn((), generator=generator))
