"""Rain: oriented streaks in the air and drops on the lens."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ornstein.pictures.degraded import (
    Degraded,
    check_images,
    integer,
    log_uniform,
    to_eight_bits,
    uniform,
)
from ornstein.pictures.filters import filter2d, gaussian_blur


@dataclass(frozen=True)
class Rain:
    """Layers of streaks, then drops that show the scene behind them blurred, upside down and brighter.

    Args:
        layers: number of layers of streaks; (0, 0) for drops alone.
        angle: range of the direction of fall in degrees from the vertical; layers differ from it by up to 5.
        length: range of the length of a streak in pixels.
        density: range of the share of pixels where a streak begins.
        brightness: range of the light that a streak adds.
        drops: number of drops; (0, 0) for streaks alone.
        radius: range of the radius of a drop, in parts of the shorter side.
    """

    layers: tuple[int, int] = (1, 3)
    angle: tuple[float, float] = (-30.0, 30.0)
    length: tuple[int, int] = (9, 25)
    density: tuple[float, float] = (0.001, 0.01)
    brightness: tuple[float, float] = (0.3, 0.8)
    drops: tuple[int, int] = (4, 16)
    radius: tuple[float, float] = (0.02, 0.1)

    scale = 1

    def __call__(self, image: Tensor, generator: torch.Generator) -> Degraded:
        """Degrade (3, H, W); the result has 8 bits."""
        x = check_images(image)
        angle = uniform(self.angle, generator)
        for _ in range(integer(self.layers, generator)):
            rain = self._streaks(x, angle + uniform((-5.0, 5.0), generator), generator)
            x = x + uniform(self.brightness, generator) * rain * (1 - x)
        scene, x = gaussian_blur(x.unsqueeze(0), 0.01 * min(x.shape[-2:])), x.clone()
        for _ in range(integer(self.drops, generator)):
            self._drop(x, scene, generator)
        return Degraded(to_eight_bits(x))

    def _streaks(self, image: Tensor, angle: float, generator: torch.Generator) -> Tensor:
        """Opacity (1, H, W) in [0, 1] of one layer."""
        size = image.shape[-2:]
        begins = torch.rand(size, generator=generator) < log_uniform(self.density, generator)
        strength = begins * (0.4 + 0.6 * torch.rand(size, generator=generator))
        kernel = streak_kernel(integer(self.length, generator), angle, uniform((0.5, 1.0), generator))
        return filter2d(strength.view(1, 1, *size), kernel / kernel.max())[0].clamp(0, 1)

    def _drop(self, image: Tensor, blurred: Tensor, generator: torch.Generator) -> None:
        """Put one drop on the image, in place: an ellipse that a lens of short focal length fills from `blurred`."""
        height, width = image.shape[-2:]
        radius = max(1.0, uniform(self.radius, generator) * min(height, width))
        centre_y, centre_x = uniform((0.0, height), generator), uniform((0.0, width), generator)
        flattening, reach = uniform((0.7, 1.3), generator), math.ceil(1.6 * radius)
        top, left = max(0, int(centre_y) - reach), max(0, int(centre_x) - reach)
        window = image[:, top : int(centre_y) + reach + 1, left : int(centre_x) + reach + 1]
        y = (torch.arange(window.shape[1]) + top + 0.5 - centre_y).view(-1, 1) / (radius * flattening)
        x = (torch.arange(window.shape[2]) + left + 0.5 - centre_x).view(1, -1) / radius
        opacity = ((1.2 - (x**2 + y**2).sqrt()) / 0.4).clamp(0, 1)  # its rim is out of focus
        view = uniform((2.0, 4.0), generator) * radius  # wider than the drop, and both axes turned around
        rows = (centre_y - y.expand(window.shape[1:]) * view) / height * 2 - 1
        columns = (centre_x - x.expand(window.shape[1:]) * view) / width * 2 - 1
        grid = torch.stack([columns, rows], -1).unsqueeze(0).to(image)
        inside = F.grid_sample(blurred, grid, padding_mode="reflection", align_corners=False)[0]
        window += opacity * ((inside * uniform((0.9, 1.2), generator)).clamp(0, 1) - window)


def streak_kernel(length: int, angle: float, width: float) -> Tensor:
    """A line of sum 1 through the middle of an odd square: `angle` in degrees from the vertical, a Gaussian across."""
    half = length // 2 + 1
    y, x = torch.meshgrid(torch.arange(-half, half + 1), torch.arange(-half, half + 1), indexing="ij")
    sin, cos = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    along, across = sin * x + cos * y, cos * x - sin * y
    kernel = (-0.5 * (across / width) ** 2).exp() * (along.abs() <= length / 2)
    return kernel / kernel.sum()
