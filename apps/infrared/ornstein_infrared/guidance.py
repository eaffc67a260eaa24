"""What `--guidance` means: terms of the spectrum and of features, compared with the measured frame alone.

A reference is always made of the input, so that no clean frame can guide: what it cannot know, above 1 / (2 scale)
cycles per pixel, is not compared.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ornstein.errors import UserError

if TYPE_CHECKING:
    from ornstein.features.base import FeatureExtractor
    from ornstein.guidance.guide import TileGuide

GuidanceName = Literal["off", "spectrum", "perceptual", "both"]

STRENGTH = 0.01
"""Root mean square of the change of an estimate in one call, for pictures in [-1, 1]."""

FEATURES = Path(__file__).parent / "weights" / "features.safetensors"
"""The shipped small encoder."""


def guide(
    name: GuidanceName, scale: int, strength: float | None = None, features: Path | str | None = None
) -> "TileGuide | None":
    """The guide called `name` for frames that are enlarged `scale` times; None for off.

    The gradient goes to the clean estimate of every call (`ShiftedEstimate`) and is normalised, so that one strength
    serves every frame.

    Args:
        name: off, spectrum, perceptual or both.
        scale: of the model.
        strength: of one call, see `STRENGTH`.
        features: weights of a small encoder, or "filters" for the fixed bank; default: the shipped encoder.

    Raises:
        UserError: no such guidance, a strength that is not positive, or no features.
    """
    if name == "off":
        if strength is not None or features is not None:
            raise UserError("there is no guidance to set; name one with --guidance spectrum, perceptual or both")
        return None
    if strength is not None and not 0 < strength < float("inf"):
        raise UserError(f"--guidance_scale {strength} must be a positive number; --guidance off does without")
    if name == "spectrum" and features is not None:
        raise UserError("guidance by the spectrum looks at no features; leave --features out")
    from ornstein.guidance.guide import Guide, TileGuide
    from ornstein.guidance.injection import Normalized, ShiftedEstimate
    from ornstein.guidance.perceptual import PerceptualTerm
    from ornstein.guidance.terms import GuidanceTerm, SpectrumTerm, SumOfTerms

    terms: list[GuidanceTerm] = []
    if name in ("spectrum", "both"):
        terms.append(SpectrumTerm())
    if name in ("perceptual", "both"):
        terms.append(PerceptualTerm(extractor(features)))
    if not terms:
        raise UserError(f"there is no guidance {name!r}; use off, spectrum, perceptual or both")
    term = terms[0] if len(terms) == 1 else SumOfTerms(terms)
    found = Guide(term, STRENGTH if strength is None else strength, ShiftedEstimate(), (Normalized(),))
    return TileGuide(found, scale)


def extractor(features: Path | str | None) -> "FeatureExtractor":
    """The features that are compared: a small encoder's, or those of fixed filters.

    Raises:
        UserError: no weights are named and none are shipped.
    """
    if features == "filters":
        from ornstein.features.fixed_bank import FixedBank

        return FixedBank()
    from ornstein.features.small_encoder import SmallEncoderFeatures

    path = FEATURES if features is None else Path(features)
    if features is None and not path.is_file():
        raise UserError(
            "this installation has no shipped features; name weights with --features FILE, or --features filters"
        )
    return SmallEncoderFeatures(path)
