"""What guidance at sampling compares a prediction with: never the clean picture, which is not known then.

A reference is called with the predicted pictures (B, C, H, W) and gives the pair that a term compares. One that is made
of something else than finite pictures (B, C, H, W), or called with predictions of another size, raises UserError.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

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

    def __post_init__(self) -> None:
        _check(self.measured)

    @cached_property
    def _enlarged(self) -> Tensor:
        return upscale(self.measured, self.scale)

    def __call__(self, prediction: Tensor) -> tuple[Tensor, Tensor]:
        return prediction, _fitting(self._enlarged, prediction)


@dataclass(frozen=True, eq=False)
class MeasuredReference:
    """g is the `measured` picture (B, C, h, w); the prediction is shrunk as Pillow's bicubic filter does."""

    measured: Tensor
    scale: int

    def __post_init__(self) -> None:
        _check(self.measured)

    def __call__(self, prediction: Tensor) -> tuple[Tensor, Tensor]:
        small = shrink(prediction, self.scale)
        return small, _fitting(self.measured, small)


@dataclass(frozen=True, eq=False)
class PictureReference:
    """g is a `picture` (B, C, H, W) of another modality that the user has, as large as the prediction: never the clean
    picture of an evaluation."""

    picture: Tensor

    def __post_init__(self) -> None:
        _check(self.picture)

    def __call__(self, prediction: Tensor) -> tuple[Tensor, Tensor]:
        return prediction, _fitting(self.picture, prediction)


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


def _check(picture: Tensor) -> None:
    """Once, when a reference is made: no step of a sampler waits for it."""
    if picture.ndim != 4:
        raise UserError(f"a picture that guides is (B, C, H, W), not {tuple(picture.shape)}")
    if not bool(picture.isfinite().all()):
        raise UserError("a picture that guides holds NaN or infinity; mend or mask it first")


def _fitting(g: Tensor, prediction: Tensor) -> Tensor:
    """`g` in the type and the channels of `prediction`; raises UserError where its size is another."""
    if g.shape[-2:] != prediction.shape[-2:] or g.shape[0] not in (1, prediction.shape[0]):
        raise UserError(
            f"the picture that guides is {tuple(g.shape)} and the prediction {tuple(prediction.shape)}; guidance "
            "compares pictures of one size, one for all samples or one a sample"
        )
    g = g.detach().to(prediction)
    if g.shape[1] != prediction.shape[1]:
        g = g.mean(1, keepdim=True)
    return g.expand_as(prediction)
