"""JPEG as a differentiable model: the losses of a baseline 4:2:0 file on a batch, without writing one.

The constants are those of JFIF 1.02 and of annex K of ITU-T T.81, scaled by quality as libjpeg does it. It agrees with
the model that Real-ESRGAN trains with, and three things in it differ from a file: steps of quantisation are not rounded
to whole numbers, the luminance table is transposed (horizontal and vertical frequencies change places), and colours
are rounded only at the end.
"""

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))  # 99 elsewhere
_FROM_RGB = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def jpeg(images: Tensor, quality: Tensor, soft: bool = False) -> Tensor:
    """Compress and decompress.

    Args:
        images: (B, 3, H, W) in [0, 1]; filled up with zeros to multiples of 16, as the published model does.
        quality: (B,), from 1 to 100; need not be whole.
        soft: round(x) + (x - round(x))^3 in place of rounding, which has a useful gradient.

    Returns:
        (B, 3, H, W) in [0, 1], not rounded.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images * 255, (0, -width % 16, 0, -height % 16))
    luminance, blue, red = torch.einsum("ij,bjhw->ibhw", _constant(_FROM_RGB, images), padded)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50).clamp(min=0.01)  # 0 at quality 100
    scale = scale.to(images).view(-1, 1, 1, 1, 1)
    chrominance = torch.full((8, 8), 99.0)
    chrominance[:4, :4] = torch.tensor(_CHROMINANCE, dtype=torch.float32)
    tables = (_constant(_LUMINANCE, images).T, chrominance.to(images))
    y = _quantised(luminance - 128, tables[0] * scale, soft) + 128
    small = F.avg_pool2d(torch.stack([blue, red], 1), 2)
    b, r = (_quantised(plane, tables[1] * scale, soft) for plane in small.unbind(1))
    chroma = F.interpolate(torch.stack([b, r], 1), scale_factor=2, mode="nearest")
    rgb = torch.einsum("ij,bjhw->bihw", _constant(_TO_RGB, images), torch.cat([y.unsqueeze(1), chroma], 1))
    return (rgb[..., :height, :width] / 255).clamp(0, 1)


def _quantised(plane: Tensor, step: Tensor, soft: bool) -> Tensor:
    """A plane (B, H, W) after quantisation of its 8 x 8 cosine transform by step (B, 1, 1, 8, 8)."""
    batch, height, width = plane.shape
    blocks = plane.reshape(batch, height // 8, 8, width // 8, 8).transpose(2, 3)
    basis = _cosines().to(plane)
    levels = basis @ blocks @ basis.T / step
    rounded = levels.round()
    if soft:
        rounded = rounded + (levels - rounded) ** 3
    return (basis.T @ (rounded * step) @ basis).transpose(2, 3).reshape(plane.shape)


@cache
def _cosines() -> Tensor:
    """The orthonormal DCT-II of 8 samples, (frequency, sample), float64."""
    n = torch.arange(8, dtype=torch.float64)
    basis = 0.5 * torch.cos((2 * n + 1) * n.unsqueeze(1) * math.pi / 16)
    basis[0] /= math.sqrt(2)
    return basis


def _constant(rows: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=like.dtype, device=like.device)
