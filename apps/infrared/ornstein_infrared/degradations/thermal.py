"""What a cheap thermal camera makes of a scene: its lens, its detector, and the picture it shows."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ornstein.errors import UserError
from ornstein.pictures.degraded import Degraded, check_images, to_eight_bits, uniform
from ornstein.pictures.filters import gaussian_blur


@dataclass(frozen=True)
class Thermal:
    """Lens, detector, noise in counts, then the picture: in the order of a camera.

    The frame in [0, 1] is taken for a scene that spans some kelvin. Widths are in pixels of the small frame, whose
    pixels see the mean over their area; noise is in kelvin, the same in the whole frame.

    Args:
        scale: factor.
        psf: range of the standard deviation of the lens.
        span: range of the kelvin between 0 and 1.
        netd: range of the temporal noise (NETD).
        columns: range of the fixed pattern of the columns.
        rows: range of the noise of the rows, whose spectrum falls with 1/f from row to row.
        dead: range of the share of pixels that are stuck at their lowest or highest count.
        counts: of one kelvin; the noise is added before they are rounded.
        agc: percentiles of the small frame that become 0 and 1, as cameras do; None keeps the range of the large one,
            so that levels of both mean the same.
    """

    scale: int = 4
    psf: tuple[float, float] = (0.5, 1.2)
    span: tuple[float, float] = (8.0, 40.0)
    netd: tuple[float, float] = (0.03, 0.08)
    columns: tuple[float, float] = (0.01, 0.05)
    rows: tuple[float, float] = (0.0, 0.03)
    dead: tuple[float, float] = (0.0, 2e-4)
    counts: float = 38.0
    agc: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.counts <= 0 or self.span[0] <= 0:
            raise UserError(f"{self.counts} counts a kelvin over {self.span} kelvin; give numbers above 0")
        if self.agc is not None and not 0 <= self.agc[0] < self.agc[1] <= 100:
            raise UserError(f"the percentiles {self.agc} are no range; give two between 0 and 100")

    def __call__(self, image: Tensor, generator: torch.Generator) -> Degraded:
        """Degrade (1, H, W); the result has 8 bits, the mask (1, h, w) marks dead pixels."""
        height, width = check_images(image, channels=1).shape[-2:]
        size = (max(1, height // self.scale), max(1, width // self.scale))
        span = uniform(self.span, generator)
        blurred = gaussian_blur(image[None], self.scale * uniform(self.psf, generator))
        kelvin = span * F.adaptive_avg_pool2d(blurred, size)[0, 0]
        kelvin = kelvin + uniform(self.netd, generator) * torch.randn(size, generator=generator)
        kelvin = kelvin + uniform(self.columns, generator) * torch.randn(size[1], generator=generator)
        kelvin = kelvin + uniform(self.rows, generator) * flicker(size[0], generator)[:, None]
        seen = (self.counts * kelvin).round() / self.counts / span
        low, high = (0.0, 1.0) if self.agc is None else _percentiles(seen, self.agc)
        seen = ((seen - low) / (high - low) if high > low else seen).clamp(0, 1)
        stuck = torch.rand(size, generator=generator) < uniform(self.dead, generator)
        ends = (torch.rand(size, generator=generator) < 0.5).float()
        return Degraded(to_eight_bits(torch.where(stuck, ends, seen))[None], stuck.float()[None])


def flicker(length: int, generator: torch.Generator) -> Tensor:
    """Noise (length,) of standard deviation 1 with a power of 1/f; white for a length below 3."""
    white = torch.randn(length, generator=generator, dtype=torch.float64)
    spectrum = torch.fft.rfft(white)
    frequency = torch.arange(len(spectrum), dtype=torch.float64)
    weight = torch.where(frequency > 0, frequency.clamp(min=1).rsqrt(), 0)
    if length < 3:
        return white.float()
    both = torch.full_like(weight, 2.0)  # of rfft each bin stands for two, but for the last of an even length
    if length % 2 == 0:
        both[-1] = 1
    power = (both * weight.square()).sum() / length
    return (torch.fft.irfft(spectrum * weight, n=length) / power.sqrt()).float()


def _percentiles(values: Tensor, percentiles: tuple[float, float]) -> tuple[float, float]:
    low, high = (float(torch.quantile(values.flatten().double(), p / 100)) for p in percentiles)
    return low, high
