"""Pictures in [0, 1] <-> the tensors in [-1, 1] that the restoration processes run on.

Legend: B batch, C channels (3), H and W sides of the clean picture, h and w of the measured one (H = scale h), p patch.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ornstein.pictures.sizes import Padding, pad_to_multiple, upscale

MaskInput = Literal["none", "one_hot", "image"]


@dataclass(frozen=True)
class PictureSpace:
    """RGB in [0, 1] to [-1, 1], small pictures enlarged, sides padded, and pixels unshuffled where p > 1.

    The clean signal x0 is (B, C p^2, H/p, W/p). The observation y has its shape, unless the denoiser enlarges and
    unshuffles by itself (`enlarge` false; UPSR, arXiv 2503.18512, section 3: y is the bicubic x4 enlargement).
    """

    scale: int = 1
    """How many times larger the clean picture is than the measured one."""
    patch: int = 1
    """p, the factor of `torch.nn.functional.pixel_unshuffle`; 4 in UPSR, 1 for none."""
    factor: int = field(default=1, kw_only=True)
    """f, how many times shorter the sides of latents are where the denoiser has an autoencoder (`LatentDenoiser`),
    which also encodes x0; 4 in ResShift."""
    multiple: int = 8
    """The sides of the measured picture are padded to a multiple of this, on the right and at the bottom."""
    padding: Padding = "reflect"
    """How they are padded; reflection falls back to replication where a side is too short for it."""
    enlarge: bool = True
    """Whether y is made here; false where the denoiser takes the measured picture."""
    mask: MaskInput = "none"
    """What the network is told of the degraded region: nothing; two channels, -1 and 1, of which the second marks mask
    values of 1 (Resfusion); or the grey mask in three channels in [0, 1] (RDDM)."""
    equalize: bool = False
    """Equalise the histogram of every channel of the measured picture first (RDDM in low light)."""

    def __post_init__(self) -> None:
        for name, choice, choices in (
            ("padding", self.padding, get_args(Padding)),
            ("mask", self.mask, get_args(MaskInput)),
        ):
            if choice not in choices:
                raise ValueError(f"{name} is {choice!r}; choose one of {', '.join(choices)}")
        if min(self.scale, self.patch, self.multiple, self.factor) < 1:
            raise ValueError(
                f"scale {self.scale}, patch {self.patch}, multiple {self.multiple} and factor {self.factor} must be at "
                "least 1"
            )
        if self.factor > 1 and (self.patch > 1 or self.enlarge):
            raise ValueError("latents are not unshuffled, and their denoiser enlarges; take patch 1 and enlarge false")
        if self.mask != "none" and (self.scale, self.patch) != (1, 1):
            raise ValueError("a mask is given pixel by pixel; it needs scale 1 and patch 1")
        if self.multiple * self.scale % self.shrink:
            raise ValueError(f"multiple {self.multiple} times scale {self.scale} must be a multiple of {self.shrink}")

    @property
    def shrink(self) -> int:
        """How many times shorter the sides of the state are than those of the clean picture."""
        return self.patch * self.factor

    def forward(self, clean: Tensor) -> Tensor:
        """x0 (B, C p^2, H/p, W/p) in [-1, 1] of `clean` (B, C, H, W) in [0, 1]; H and W are multiples of p."""
        return F.pixel_unshuffle(_signed(clean), self.patch)

    def inverse(self, x0: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """The picture (B, C, H, W) in [0, 1], clamped, of `x0`, cut to `size` (H, W)."""
        picture = F.pixel_shuffle(x0, self.patch)
        if size is not None:
            picture = picture[..., : size[0], : size[1]]
        return ((picture + 1) / 2).clamp(0, 1)

    def measured(self, picture: Tensor) -> Tensor:
        """The measured picture (..., C, h, w) in [0, 1] as `observation` takes it: equalised where the model wants it,
        which is a matter of whole pictures, not of their tiles."""
        return equalized(picture) if self.equalize else picture

    def observation(self, measured: Tensor) -> Tensor:
        """What the denoiser observes, in [-1, 1], of `measured` (B, C, h, w) in [0, 1], whose sides are padded already:
        y like x0, or the measured picture itself where the denoiser enlarges it."""
        y = _signed(measured)
        return F.pixel_unshuffle(upscale(y, self.scale), self.patch) if self.enlarge else y

    def condition(self, mask: Tensor | None) -> dict[str, Tensor]:
        """The condition of the denoiser's calls from `mask` (B, 1, h, w) in [0, 1].

        Raises:
            ValueError: the model needs a mask and there is none.
        """
        if self.mask == "none":
            return {}
        if mask is None:
            raise ValueError("this model needs a mask of the degraded region")
        if self.mask == "image":
            return {"mask": mask.expand(-1, 3, -1, -1)}
        marked = (mask >= 1).to(mask.dtype)
        return {"mask": 2 * torch.cat([1 - marked, marked], dim=1) - 1}

    def pad(self, picture: Tensor) -> Tensor:
        """`picture` (..., h, w) with both sides extended to a multiple of `multiple`."""
        return pad_to_multiple(picture, self.multiple, self.padding)


def _signed(picture: Tensor) -> Tensor:
    return 2 * picture - 1


def equalized(picture: Tensor) -> Tensor:
    """`picture` (..., C, h, w) in [0, 1], each channel with a flat histogram of its 256 levels, the darkest at 0."""
    levels = (picture * 255).round().long().clamp(0, 255).flatten(-2)
    counts = torch.zeros(*levels.shape[:-1], 256, dtype=torch.long, device=picture.device)
    counts.scatter_add_(-1, levels, torch.ones_like(levels))
    total = counts.cumsum(-1)
    first = total.gather(-1, levels.amin(-1, keepdim=True))
    rest = total[..., -1:] - first
    table = torch.where(rest > 0, (total - first) / rest.clamp(min=1), torch.linspace(0, 1, 256, device=total.device))
    return table.clamp(0, 1).gather(-1, levels).reshape(picture.shape).to(picture.dtype)
