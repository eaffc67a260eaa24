"""Gradient guidance as data: terms, where their gradient enters and how strongly, bound to a batch when it is
sampled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.guidance.classifier_free import GuidanceInterval
from ornstein.guidance.injection import Energy, GradientGuidance, Injection, ShiftedMean, Treatment
from ornstein.guidance.perceptual import PerceptualTerm
from ornstein.guidance.references import EnlargedReference, MeasuredReference, PictureReference, Reference
from ornstein.guidance.terms import BandLimited, GuidanceTerm, SumOfTerms, WeightedTerm, band_of_scale, within_band
from ornstein.latent import at_full_size
from ornstein.tiles import Place, crop


@dataclass(frozen=True)
class Guide:
    """What a run is guided by (DifIISR); for recipes, command lines and results.

    Raises:
        UserError: an interval that is empty.
    """

    term: GuidanceTerm
    strength: float = 1.0
    """lambda."""
    injection: Injection = ShiftedMean()
    treatments: Sequence[Treatment] = ()
    interval: tuple[float, float] | None = None
    """Times from and to which are guided, ends included, as shares of T (0 clean, 1 corrupted); None for all."""

    def __post_init__(self) -> None:
        if self.interval is not None and not 0 <= self.interval[0] <= self.interval[1] <= 1:
            raise UserError(f"guidance from {self.interval[0]} to {self.interval[1]} of T; give 0 <= low <= high <= 1")

    def on(
        self,
        denoiser: DenoiserLike,
        reference: Reference,
        times: Tensor | None = None,
        decode: Callable[[Tensor], Tensor] | None = None,
    ) -> DenoiserLike:
        """`denoiser` (that of a batch, as `prepare` gives it) guided towards `reference`.

        Args:
            denoiser: what is guided.
            reference: what its pictures are compared with: one of `ornstein.guidance.references`.
            times: of the sampler, `sampler.times(denoiser.process)`; None for all levels of a tabulated process.
            decode: x0 (B, *) to pictures (B, C, H, W), differentiable; None for what the denoiser
                itself has for it.
        """
        if self.strength == 0:
            return denoiser
        energy = picture_energy(self.term, reference, decode or (lambda x0: at_full_size(denoiser, x0)))
        guided = GradientGuidance(denoiser, energy, self.injection, self.strength, self.treatments, times)
        if self.interval is None:
            return guided
        low, high = (share * denoiser.process.T for share in self.interval)
        slack = 1e-9 * denoiser.process.T  # a share of T is rounded
        return GuidanceInterval(guided, denoiser, low - slack, high + slack)

    def described(self) -> dict[str, Any]:
        """Plain words for a results file: what is compared, where features have their weights from, where G enters and
        how strongly."""
        return {
            "term": self.term.name,
            "weights": _sources(self.term),
            "strength": self.strength,
            "injection": type(self.injection).__name__,
            "treatments": [repr(treatment) for treatment in self.treatments],
            "interval": None if self.interval is None else list(self.interval),
        }


def picture_energy(term: GuidanceTerm, reference: Reference, decode: Callable[[Tensor], Tensor]) -> Energy:
    """E(x0) = term(D(x0), g); D in float32 at least, outside of autocast: it is differentiated."""

    def energy(x0: Tensor) -> Tensor:
        with torch.autocast(x0.device.type, enabled=False):
            x0 = x0.float() if x0.dtype in (torch.float16, torch.bfloat16) else x0
            return term(*reference(decode(x0)))

    return energy


def _sources(term: GuidanceTerm) -> list[str]:
    """Where the feature extractors of a term have their weights from."""
    match term:
        case PerceptualTerm(extractor):
            return [extractor.weights_source]
        case WeightedTerm(inner) | BandLimited(inner):
            return _sources(inner)
        case SumOfTerms(terms):
            return [source for each in terms for source in _sources(each)]
        case _:
            return []


Against = Literal["enlarged", "measured"]


@dataclass(frozen=True, eq=False)
class TileGuide:
    """`guide` for the tiles of `ornstein.pictures.sampling.restore_picture`.

    g is made of the measured tiles, or is a picture that the user has; there is no place for the clean one.

    Raises:
        UserError: an unknown `against`.
    """

    guide: Guide
    scale: int
    against: Against = "measured"
    """`measured`: the measured picture itself, the prediction shrunk to it; `enlarged`: the term in the band that the
    measured picture knows, against its enlargement, whose spectrum is too weak in the upper part of that band."""
    other: Tensor | None = None
    """In place of both a picture of another modality (C, H, W) in [-1, 1], as large as the result."""

    def __post_init__(self) -> None:
        if self.against not in get_args(Against):
            raise UserError(f"guidance against {self.against!r}; choose one of {', '.join(get_args(Against))}")
        if self.other is not None and self.other.ndim != 3:
            raise UserError(f"a picture that guides is (C, H, W), not {tuple(self.other.shape)}")

    def __call__(
        self, denoiser: DenoiserLike, measured: Tensor, places: Sequence[Place], times: Tensor
    ) -> DenoiserLike:
        """`denoiser` of a batch of tiles, guided.

        Args:
            denoiser: that of the batch.
            measured: the tiles (B, C, h, w) in [-1, 1], padded.
            places: of the tiles in the measured picture.
            times: of the sampler.
        """
        guide = self.guide
        reference: Reference
        if self.other is not None:
            reference = PictureReference(self._tiles(measured, places))
        elif self.against == "enlarged":
            reference = EnlargedReference(measured, self.scale)
            guide = replace(guide, term=within_band(guide.term, band_of_scale(self.scale)))
        else:
            reference = MeasuredReference(measured, self.scale)
        return guide.on(denoiser, reference, times)

    def described(self) -> dict[str, Any]:
        """Plain words for a results file."""
        return self.guide.described() | {"against": self.against if self.other is None else "a picture of the user"}

    def _tiles(self, measured: Tensor, places: Sequence[Place]) -> Tensor:
        assert self.other is not None
        size = (measured.shape[-2] * self.scale, measured.shape[-1] * self.scale)
        found = [crop(self.other, (top * self.scale, left * self.scale), size) for top, left in places]
        for dim, side in zip((-2, -1), size, strict=True):  # as far as the tiles are padded
            found = [each.index_select(dim, torch.arange(side).clamp(max=each.shape[dim] - 1)) for each in found]
        return torch.stack(found).to(measured)


def ablation_guides(guide: Guide, spectrum: GuidanceTerm, perceptual: GuidanceTerm) -> dict[str, Guide | None]:
    """The variants of an ablation, `off`, `spectrum`, `perceptual` and `both`, otherwise as `guide`; None is off."""
    return {
        "off": None,
        "spectrum": replace(guide, term=spectrum),
        "perceptual": replace(guide, term=perceptual),
        "both": replace(guide, term=SumOfTerms([spectrum, perceptual])),
    }
