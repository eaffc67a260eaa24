"""Noise of a batch: levels and grey or colour for each image on its own."""

import torch
from torch import Tensor


def add_gaussian_noise(images: Tensor, sigma: Tensor, grey: Tensor, generator: torch.Generator) -> Tensor:
    """Add white Gaussian noise and clamp to [0, 1].

    Args:
        images: (B, 3, H, W).
        sigma: (B,), standard deviation in levels of 255.
        grey: (B,) bool, the same noise in all channels.
        generator: on the device of the images.
    """
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    noise = torch.where(_column(grey), noise[:, :1], noise)
    return (images + noise * _column(sigma).to(images) / 255).clamp(0, 1)


def add_poisson_noise(images: Tensor, scale: Tensor, grey: Tensor, generator: torch.Generator) -> Tensor:
    """Add scaled shot noise and clamp to [0, 1].

    The image is rounded to 8 bits; white counts as 2^ceil(log2 n) events, n the number of levels that occur in the
    image, as Real-ESRGAN has it.

    Args:
        images: (B, 3, H, W).
        scale: (B,), factor of the noise.
        grey: (B,) bool, the noise of the luma in all channels.
        generator: on the device of the images.
    """
    luma = (images * images.new_tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    noise = torch.where(_column(grey), _shot(luma, generator), _shot(images, generator))
    return (images + noise * _column(scale).to(images)).clamp(0, 1)


def _shot(images: Tensor, generator: torch.Generator) -> Tensor:
    rounded = (images * 255).round().clamp(0, 255) / 255
    levels = (rounded.flatten(1) * 255).round().long()
    occurs = torch.zeros(len(images), 256, device=images.device).scatter_(1, levels, 1.0)
    events = _column(torch.exp2(torch.ceil(torch.log2(occurs.sum(1)))))
    return torch.poisson(rounded * events, generator=generator) / events - rounded


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
