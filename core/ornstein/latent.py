"""Super-resolution on the latents of an autoencoder (ResShift, SinSR, DifIISR)."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ornstein.denoiser import Denoiser, one_a_sample
from ornstein.errors import UserError
from ornstein.networks.vq import Attention, VQAutoencoder
from ornstein.parameterization import Parameterization
from ornstein.pictures.sizes import upscale
from ornstein.process.affine import Process
from ornstein.uncertainty import UncertaintyGuided
from ornstein.wrapped_parameterizations import ScaledInput


class LatentDenoiser(Denoiser):
    """Residual shifting on the latents of a frozen autoencoder (ResShift, Yue et al. 2023, arXiv 2307.12348).

    `prepare` turns the measured picture (B, C, h, w) in [-1, 1] into y, the latents (B, D, scale h/f, scale w/f) of its
    bicubic enlargement. The network is called as network(c_in x, t, measured): it sees the measured picture itself, the
    condition `measured`, in place of y. `latents` gives x0 of clean pictures, `pictures` the way back.

    Args:
        network: gives latents, as `SwinUNet`.
        process: runs on latents.
        autoencoder: frozen; it stays out of `networks`, and so in its own precision.
        parameterization: what the network sees of x and means; published: x/sqrt(1 + s^2), and x0.
        scale: how many times larger the clean picture is.
        quantize: whether latents become their nearest codes before they are decoded.

    Raises:
        ValueError: scale below 1.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        autoencoder: VQAutoencoder,
        parameterization: Parameterization = ScaledInput(),  # noqa: B008  # frozen
        scale: int = 4,
        quantize: bool = True,
    ) -> None:
        super().__init__(network, process, parameterization)
        if scale < 1:
            raise ValueError(f"scale is {scale}; it must be at least 1")
        self.autoencoder = autoencoder
        self.scale = scale
        self.quantize = quantize
        self._cached = False
        autoencoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "LatentDenoiser":
        """As for every module; the autoencoder stays in evaluation mode."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def observe(self, y: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The latents of the enlarged `y` (B, C, h, w), and `y` itself as the condition `measured`.

        Raises:
            UserError: the picture is missing, has other channels, or its enlargement does not fit the autoencoder.
        """
        if y is None or y.ndim != 4:
            raise UserError(f"{type(self).__name__} needs the measured picture (B, C, h, w); give y")
        if self._cached:
            return y, {}
        return self.latents(upscale(y, self.scale)), {"measured": y}

    def on_latents(self) -> "LatentDenoiser":
        """This denoiser for latents that were made before: `prepare` takes y as they are, and the calls need the
        condition `measured`."""
        denoiser = copy.copy(self)
        denoiser._cached = True
        return denoiser

    def latents(self, picture: Tensor) -> Tensor:
        """x0 (B, D, H/f, W/f) of `picture` (B, C, H, W) in [-1, 1], without a gradient.

        Raises:
            UserError: other channels, or sides that are no multiples of f.
        """
        try:
            with torch.no_grad():
                return self.autoencoder.encode(picture).to(picture.dtype)
        except ValueError as error:
            raise UserError(f"{error}; pad the picture, or take the autoencoder that fits it") from error

    def pictures(self, x: Tensor) -> Tensor:
        """The pictures (B, C, f h, f w) of latents `x` (B, D, h, w), not clamped; always in float32 under autocast."""
        with torch.autocast(x.device.type, enabled=False):
            return self.autoencoder.decode(x, self.quantize)

    def with_networks(self, change: Callable[[nn.Module], nn.Module]) -> "LatentDenoiser":
        denoiser = LatentDenoiser(
            change(self.network), self.process, self.autoencoder, self.parameterization, self.scale, self.quantize
        )
        denoiser._cached = self._cached
        return denoiser

    def with_half_attention(self) -> "LatentDenoiser":
        """This denoiser with a copy of the autoencoder that compares pixels in float16; the rest of it stays."""
        denoiser = self.with_networks(lambda network: network)
        denoiser.autoencoder = copy.deepcopy(self.autoencoder)
        for module in denoiser.autoencoder.modules():
            if isinstance(module, Attention):
                module.in_float16 = True
        return denoiser

    def output(self, x: Tensor, t: Tensor, y: Tensor | None = None, **condition: Tensor) -> Tensor:
        """The network's latents; `y` and the condition `measured` are what `prepare` gives."""
        if "measured" not in condition:
            raise ValueError("call this denoiser with what its `prepare` gives: y and measured")
        measured = condition.pop("measured")
        scaled, network_time, _ = self.parameterization.inputs(self.process, x, t, y)
        output: Tensor = self.network(scaled, one_a_sample(network_time, x), measured, **condition)
        return output.to(x.dtype)


def as_pictures(denoiser: object, x: Tensor) -> Tensor:
    """What the process of `denoiser` runs on, as pictures: latents decoded, everything else as it is."""
    return denoiser.pictures(x) if isinstance(denoiser, LatentDenoiser) else x


def at_full_size(denoiser: object, x: Tensor) -> Tensor:
    """The same, with unshuffled pixels (`UncertaintyGuided`) put back, too: what networks of pictures look at."""
    return denoiser.shuffled(x) if isinstance(denoiser, UncertaintyGuided) else as_pictures(denoiser, x)
