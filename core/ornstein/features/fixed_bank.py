"""A fixed bank of filters: edges, details and oriented waves, without weights to learn."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ornstein.errors import UserError
from ornstein.features.base import FeatureExtractor


class FixedBank(FeatureExtractor):
    """Sobel gradients, Haar details of several scales, and Gabor filters, all of grey pictures; each is a layer.

    Sobel (B, 2, H, W): d/dx and d/dy for a step of 1 a pixel. Haar, one layer a scale: horizontal, vertical and
    diagonal details (B, 3, H/2^k, W/2^k), orthonormal (Mallat 1989). Gabor (B, 2 orientations, H, W): a cosine and a
    sine of every orientation under a Gaussian, without a mean.

    Args:
        scales: of the Haar details.
        orientations: of the Gabor filters.
        wavelength: of the waves in pixels; the deviation of the Gaussian is half of it.

    Raises:
        UserError: no scales and no orientations, or a wavelength of 2 pixels or less, whose sine no pixel sees.
    """

    def __init__(self, scales: int = 3, orientations: int = 4, wavelength: float = 4.0) -> None:
        super().__init__()
        if scales < 1 or orientations < 1 or wavelength <= 2:
            raise UserError(
                "a bank of filters needs scales and orientations of at least 1 and a wavelength above 2, got "
                f"{scales}, {orientations} and {wavelength}"
            )
        self.scales, self.orientations, self.wavelength = scales, orientations, wavelength
        self.name = f"sobel, haar of {scales} scales, gabor of {orientations} orientations"
        self.channels, self.weights_source = 1, "none, the filters are fixed"
        self.sobel: Tensor
        self.haar: Tensor
        self.gabor: Tensor
        smooth, slope = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([-1.0, 0.0, 1.0])
        across = smooth[:, None] * slope / 8
        self.register_buffer("sobel", torch.stack([across, across.T])[:, None], persistent=False)
        low, high = torch.tensor([1.0, 1.0]) / math.sqrt(2), torch.tensor([1.0, -1.0]) / math.sqrt(2)
        pairs = [(low, low), (low, high), (high, low), (high, high)]
        haar = torch.stack([rows[:, None] * columns for rows, columns in pairs])[:, None]
        self.register_buffer("haar", haar, persistent=False)
        self.register_buffer("gabor", _gabor(orientations, wavelength)[:, None], persistent=False)
        self.minimum = max(2**scales, self.gabor.shape[-1] // 2 + 1)
        self.freeze()

    def forward(self, x: Tensor) -> list[Tensor]:
        found = [_filtered(x, self.sobel)]
        low = x
        for _ in range(self.scales):
            low = F.pad(low, (0, low.shape[-1] % 2, 0, low.shape[-2] % 2), mode="replicate")
            parts = F.conv2d(low, self.haar, stride=2)
            low = parts[:, :1]
            found.append(parts[:, 1:])
        return [*found, _filtered(x, self.gabor)]


def _filtered(x: Tensor, filters: Tensor) -> Tensor:
    margin = filters.shape[-1] // 2
    return F.conv2d(F.pad(x, (margin,) * 4, mode="reflect"), filters)


def _gabor(orientations: int, wavelength: float) -> Tensor:
    """(2 orientations, n, n), of norm 1."""
    deviation = wavelength / 2
    margin = math.ceil(2 * deviation)
    line = torch.arange(-margin, margin + 1, dtype=torch.float64)
    envelope = torch.exp(-(line[:, None] ** 2 + line**2) / (2 * deviation**2))
    filters = []
    for k in range(orientations):
        angle = math.pi * k / orientations
        phase = 2 * math.pi / wavelength * (line * math.cos(angle) + line[:, None] * math.sin(angle))
        for wave in (phase.cos(), phase.sin()):
            mean = (wave * envelope).sum() / envelope.sum()
            kernel = (wave - mean) * envelope
            filters.append(kernel / kernel.norm())
    return torch.stack(filters).float()
