"""What guidance at sampling compares a prediction with: never the clean picture, which is not known then.

A reference is called with the predicted pictures (B, C, H, W) and gives the pair that a term compares.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.pictures.sizes import upscale

Reference = Callable[[Tensor], tuple[Tensor, Tensor]]
"""The predicted pictures as they are compared, and g."""


@dataclass(frozen=True, eq=False)
class EnlargedReference:
    """g is the bicubic enlargement of the `measured` picture (B, C, h, w), as large as the prediction.

    It knows no frequencies above `band_of_scale(scale)`: compare up to there only, by the cutoff of `SpectrumLoss` or
    `BandLimited`.
    """

    measured: Tensor
    scale: int

    def __call__(self, prediction: Tensor) -> tuple[Tensor, Tensor]:
        g = upscale(self.measured, self.scale)
        return prediction, _fitting(g, prediction, "the enlarged picture")


@dataclass(frozen=True, eq=False)
class MeasuredReference:
    """g is the `measured` picture (B, C, h, w); the prediction is shrunk as Pillow's bicubic filter does."""

    measured: Tensor
    scale: int

    def __call__(self, prediction: Tensor) -> tuple[Tensor, Tensor]:
        small = shrink(prediction, self.scale)
        return small, _fitting(self.measured, small, "the measured picture")


@dataclass(frozen=True, eq=False)
class PictureReference:
    """g is a `picture` (B, C, H, W) of another modality that the user has, as large as the prediction: never the clean
    picture of an evaluation."""

    picture: Tensor

    def __call__(self, prediction: Tensor) -> tuple[Tensor, Tensor]:
        return prediction, _fitting(self.picture, prediction, "the reference picture")


def shrink(picture: Tensor, scale: int) -> Tensor:
    """(B, C, H, W) to (B, C, H // scale, W // scale): the cubic a = -1/2 widened by the scale, as Pillow's, with a
    gradient.

    At the borders the weights that are left are made to sum to one. Pillow's own rounding of levels is left out.
    """
    if scale == 1:
        return picture
    rows, columns = (
        _cubic_weights(side, scale, picture.dtype).to(picture.device) for side in (picture.shape[-2], picture.shape[-1])
    )
    return torch.einsum("ih,...hw,jw->...ij", rows, picture, columns)


def _cubic_weights(side: int, scale: int, dtype: torch.dtype) -> Tensor:
    """(side // scale, side): the weights of every line of the result."""
    small = max(1, side // scale)
    stretch = side / small
    centre = (torch.arange(small, dtype=torch.float64) + 0.5) * stretch
    line = torch.arange(side, dtype=torch.float64) + 0.5
    u = ((line - centre[:, None]) / stretch).abs()
    near = (1.5 * u - 2.5) * u**2 + 1
    far = ((-0.5 * u + 2.5) * u - 4) * u + 2
    weights = torch.where(u < 1, near, torch.where(u < 2, far, torch.zeros_like(u)))
    return (weights / weights.sum(1, keepdim=True)).to(dtype)


def _fitting(g: Tensor, prediction: Tensor, what: str) -> Tensor:
    """`g` in the type and the channels of `prediction`; raises UserError where its size is another."""
    if g.ndim != 4 or g.shape[-2:] != prediction.shape[-2:] or g.shape[0] not in (1, prediction.shape[0]):
        raise UserError(
            f"{what} is {tuple(g.shape)} and the prediction {tuple(prediction.shape)}; guidance compares pictures of "
            "one size, one a sample"
        )
    if not bool(g.isfinite().all()):
        raise UserError(f"{what} that guides holds NaN or infinity; mend or mask it first")
    g = g.detach().to(prediction)
    if g.shape[1] != prediction.shape[1]:
        g = g.mean(1, keepdim=True)
    return g.expand_as(prediction)
