"""Terms that gradient guidance lowers, and that training adds: how far a prediction is from a reference."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.spectrum import SpectrumLoss, band


class GuidanceTerm(ABC):
    """A loss of each sample, (B,), of two batches of pictures (B, C, H, W) in [-1, 1] (or of latents)."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What results say was compared."""

    @abstractmethod
    def __call__(self, prediction: Tensor, reference: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class SpectrumTerm(GuidanceTerm):
    """The distance of two spectra: the visual term of DifIISR (arXiv 2503.01187), whose formula has not been seen.

    What it is here, and its band, is `ornstein.spectrum.SpectrumLoss`.
    """

    loss: SpectrumLoss = SpectrumLoss()

    @property
    def name(self) -> str:
        cutoff = self.loss.cutoff
        return f"spectrum {self.loss.comparison}" + ("" if cutoff is None else f" up to {cutoff:g}")

    def __call__(self, prediction: Tensor, reference: Tensor) -> Tensor:
        return self.loss.per_sample(prediction, reference)


@dataclass(frozen=True)
class BandLimited(GuidanceTerm):
    """`term` of both pictures without their frequencies above `cutoff`, for terms that know no band of their own.

    Raises:
        UserError: no such cutoff.
    """

    term: GuidanceTerm
    cutoff: float
    """f_c in cycles per pixel, 0 to 1/2; both |f_x| and |f_y| stay up to it."""

    def __post_init__(self) -> None:
        if not 0 <= self.cutoff <= 0.5:
            raise UserError(f"a cutoff of {self.cutoff} cycles per pixel; give one between 0 and 0.5")

    @property
    def name(self) -> str:
        return f"{self.term.name} up to {self.cutoff:g}"

    def __call__(self, prediction: Tensor, reference: Tensor) -> Tensor:
        return self.term(low_passed(prediction, self.cutoff), low_passed(reference, self.cutoff))


@dataclass(frozen=True)
class WeightedTerm(GuidanceTerm):
    """weight * term."""

    term: GuidanceTerm
    weight: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.weight:g} {self.term.name}"

    def __call__(self, prediction: Tensor, reference: Tensor) -> Tensor:
        return self.weight * self.term(prediction, reference)


@dataclass(frozen=True)
class SumOfTerms(GuidanceTerm):
    """The sum of `terms`, each with its weight if it is a `WeightedTerm`.

    Raises:
        UserError: there is no term.
    """

    terms: Sequence[GuidanceTerm]

    def __post_init__(self) -> None:
        if not self.terms:
            raise UserError("a sum of no terms guides nothing; name at least one, or leave the guidance out")

    @property
    def name(self) -> str:
        return " + ".join(term.name for term in self.terms)

    def __call__(self, prediction: Tensor, reference: Tensor) -> Tensor:
        return torch.stack([term(prediction, reference) for term in self.terms]).sum(0)


def low_passed(picture: Tensor, cutoff: float) -> Tensor:
    """`picture` (..., H, W) without its frequencies above `cutoff` cycles per pixel, in float32 at least."""
    if picture.dtype in (torch.float16, torch.bfloat16):
        picture = picture.float()
    kept = band(picture.shape[-2], picture.shape[-1], cutoff).to(picture.device)
    return torch.fft.ifft2(torch.fft.fft2(picture) * kept).real


def band_of_scale(scale: float) -> float:
    """f_c = 1/(2 scale): the frequencies that a picture `scale` times smaller can know."""
    if not scale >= 1:
        raise UserError(f"a scale of {scale:g}; the measured picture must be the smaller one, 1 at least")
    return 1 / (2 * scale)


def within_band(term: GuidanceTerm, cutoff: float) -> GuidanceTerm:
    """`term` up to the frequency `cutoff` only: spectra by their own band, everything else by `BandLimited`."""
    match term:
        case SpectrumTerm(loss):
            kept = cutoff if loss.cutoff is None else min(cutoff, loss.cutoff)
            return SpectrumTerm(replace(loss, cutoff=kept))
        case WeightedTerm(inner, weight):
            return WeightedTerm(within_band(inner, cutoff), weight)
        case SumOfTerms(terms):
            return SumOfTerms([within_band(each, cutoff) for each in terms])
        case _:
            return BandLimited(term, cutoff)
