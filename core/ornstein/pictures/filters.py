"""Filtering images with a kernel each, and the sharpening of Real-ESRGAN."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def reflect(images: Tensor, margin: int) -> Tensor:
    """Pad (B, C, H, W) by `margin` on all sides, mirrored at the outermost pixels; any size, also below the margin."""
    height, width = images.shape[-2:]
    if margin < min(height, width):
        return F.pad(images, (margin, margin, margin, margin), mode="reflect")
    rows, columns = (_mirrored(side, margin, images.device) for side in (height, width))
    return images[..., rows, :][..., columns]


def filter2d(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate images with kernels, mirrored at the border.

    Args:
        images: (B, C, H, W).
        kernels: (k, k) for all, or (B, k, k); k odd. On the CPU, margins of zeros cost nothing.
    """
    batch, channels, height, width = images.shape
    kernels = _trimmed(kernels)
    size = kernels.shape[-1]
    weight = kernels.to(images).expand(batch, size, size).repeat_interleave(channels, 0).unsqueeze(1)
    grouped = reflect(images, size // 2).reshape(1, batch * channels, height + size - 1, width + size - 1)
    return F.conv2d(grouped, weight, groups=batch * channels).reshape(images.shape)


def _trimmed(kernels: Tensor) -> Tensor:
    """Without the margin that is zero in every kernel, where looking at them makes no device wait."""
    if kernels.device.type != "cpu":
        return kernels
    half = kernels.shape[-1] // 2
    rows, columns = (kernels != 0).reshape(-1, *kernels.shape[-2:]).any(0).nonzero().unbind(1)
    reach = 0 if len(rows) == 0 else int(torch.maximum((rows - half).abs(), (columns - half).abs()).max())
    inside = slice(half - reach, half + reach + 1)
    return kernels[..., inside, inside]


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Blur (B, C, H, W) with a Gaussian of `sigma` pixels, cut at 3 sigma; nothing for sigma = 0."""
    if sigma <= 0:
        return images
    return _separable(images, _line(2 * math.ceil(3 * sigma) + 1, sigma))


def unsharp_mask(images: Tensor, weight: float = 0.5, radius: int = 51, threshold: float = 10.0) -> Tensor:
    """Sharpen (B, C, H, W) in [0, 1] where it differs from its blur by more than `threshold` levels of 255.

    The published USM of Real-ESRGAN: the Gaussian has `radius` pixels and the deviation that OpenCV gives to that size;
    the mask of what is sharpened is blurred by it too.
    """
    line = _line(radius, 0.3 * ((radius - 1) / 2 - 1) + 0.8)
    residual = images - _separable(images, line)
    mask = _separable((residual.abs() * 255 > threshold).to(images), line)
    return mask * (images + weight * residual).clamp(0, 1) + (1 - mask) * images


def _line(size: int, sigma: float) -> Tensor:
    line = (-0.5 * ((torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / sigma) ** 2).exp()
    return line / line.sum()


def _separable(images: Tensor, line: Tensor) -> Tensor:
    flat = reflect(images, len(line) // 2).flatten(0, 1).unsqueeze(1)
    line = line.to(images)
    return F.conv2d(F.conv2d(flat, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1)).reshape(images.shape)


def _mirrored(side: int, margin: int, device: torch.device) -> Tensor:
    period = max(1, 2 * (side - 1))
    position = torch.arange(-margin, side + margin, device=device) % period
    return torch.minimum(position, period - position)
