"""Normalised frames <-> the pictures that autoencoders and processes work on.

Frames are float, 0 and 1 the ends of their range, as `ornstein_infrared.datasets` gives them; a little of what lies
beyond is kept. Pictures are in [-1, 1], likewise.

Legend: B batch, C channels of the picture (1, or 3 equal ones), H and W sides of the clean frame, h and w of the
measured one (H = scale h), p patch, f factor.
"""

from dataclasses import dataclass, field
from typing import get_args

import torch.nn.functional as F
from torch import Tensor

from ornstein.pictures.sizes import Padding, pad_to_multiple


@dataclass(frozen=True)
class ThermalSpace:
    """Frames (B, 1, H, W) as a model takes them.

    Three kinds of models share it; each makes y by itself from what `observation` gives.

        latents of vq-f4        `LatentDenoiser`, channels 3, factor 4: grey is repeated, and the mean of the decoded
                                channels is taken (the published code writes three different ones)
        latents of a small VQ   `LatentDenoiser`, channels and factor of the autoencoder
        no autoencoder          `UncertaintyGuided` without a predictor, factor 1: y is the bicubic enlargement
    """

    scale: int = 4
    """How many times larger the clean frame is than the measured one."""
    channels: int = 1
    """C: 3 for vq-f4, else 1."""
    factor: int = field(default=1, kw_only=True)
    """f, how many times shorter the sides of the autoencoder's latents are; 1 without one."""
    patch: int = field(default=1, kw_only=True)
    """p, the factor of `torch.nn.functional.pixel_unshuffle`; without an autoencoder only."""
    multiple: int = 64
    """The sides of the measured frame are padded to a multiple of this, on the right and at the bottom."""
    padding: Padding = "reflect"
    """How they are padded; reflection falls back to replication where a side is too short for it."""
    bound: float = 1.5
    """Values of pictures beyond +-bound are cut off on the way in and out; published: 1."""

    def __post_init__(self) -> None:
        if self.padding not in get_args(Padding):
            raise ValueError(f"padding is {self.padding!r}; choose one of {', '.join(get_args(Padding))}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels is {self.channels}; a grey frame is given as 1 channel or as 3 equal ones")
        if min(self.scale, self.factor, self.patch, self.multiple) < 1 or self.bound < 1:
            raise ValueError(
                f"scale {self.scale}, factor {self.factor}, patch {self.patch}, multiple {self.multiple} and bound "
                f"{self.bound:g} must be at least 1"
            )
        if self.factor > 1 and self.patch > 1:
            raise ValueError("latents are not unshuffled; take patch 1 or factor 1")
        if self.multiple * self.scale % self.shrink:
            raise ValueError(f"multiple {self.multiple} times scale {self.scale} must be a multiple of {self.shrink}")

    @property
    def shrink(self) -> int:
        """How many times shorter the sides of the state are than those of the clean frame."""
        return self.factor * self.patch

    def forward(self, clean: Tensor) -> Tensor:
        """`clean` (B, 1, H, W) as pictures (B, C p^2, H/p, W/p): x0, or what the autoencoder encodes."""
        return F.pixel_unshuffle(self.observation(clean), self.patch)

    def inverse(self, pictures: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Frames (B, 1, H, W), cut to `size` (H, W), of x0 without an autoencoder or of decoded pictures."""
        grey = F.pixel_shuffle(pictures, self.patch).mean(1, keepdim=True)
        if size is not None:
            grey = grey[..., : size[0], : size[1]]
        return (grey.clamp(-self.bound, self.bound) + 1) / 2

    def observation(self, measured: Tensor) -> Tensor:
        """What `prepare` of the denoiser takes, (B, C, h, w), of `measured` (B, 1, h, w), whose sides are padded.

        Raises:
            ValueError: not one channel.
        """
        if measured.ndim != 4 or measured.shape[1] != 1:
            raise ValueError(f"a batch of frames is (B, 1, h, w), not {tuple(measured.shape)}")
        return (2 * measured - 1).clamp(-self.bound, self.bound).expand(-1, self.channels, -1, -1)

    def measured(self, picture: Tensor) -> Tensor:
        """The measured frame as `observation` takes its tiles: as it is."""
        return picture

    def condition(self, mask: Tensor | None) -> dict[str, Tensor]:
        """The condition of the denoiser's calls: none.

        Raises:
            ValueError: there is a mask; dead pixels are filled before.
        """
        if mask is not None:
            raise ValueError("no model of infrared frames takes a mask")
        return {}

    def pad(self, measured: Tensor) -> Tensor:
        """`measured` (..., h, w) with both sides extended to a multiple of `multiple`."""
        return pad_to_multiple(measured, self.multiple, self.padding)
