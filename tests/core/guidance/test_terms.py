"""Terms and references of guidance: closed forms, Pillow's filter, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor

from ornstein.config import build, describe
from ornstein.errors import UserError
from ornstein.features.fixed_bank import FixedBank
from ornstein.guidance.guide import Guide
from ornstein.guidance.injection import ClippedNorm, Normalized, RaisedNoise
from ornstein.guidance.perceptual import PerceptualTerm
from ornstein.guidance.references import EnlargedReference, MeasuredReference, PictureReference, shrink
from ornstein.guidance.terms import (
    BandLimited,
    GuidanceTerm,
    SpectrumTerm,
    SumOfTerms,
    WeightedTerm,
    band_of_scale,
    low_passed,
    within_band,
)
from ornstein.pictures.sizes import upscale
from ornstein.spectrum import SpectrumLoss


def pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Squared:
    """Mean square error."""

    name = "squared"

    def __call__(self, prediction: Tensor, reference: Tensor) -> Tensor:
        return (prediction - reference).square().flatten(1).mean(1)


@reference_files(
    "infrared",
    "spectrum_*.npz",
    cases=lambda v: [c for c in v.prefixes("_loss") if c.endswith(("_full", "_band"))],
    needs=["x", "g", "band", "{case}_grad"],
)
def test_spectrum_term(vectors: ReferenceFile, case: str) -> None:
    comparison, _, band = case.rpartition("_")
    term = SpectrumTerm(SpectrumLoss(comparison, vectors.number("band") if band == "band" else None))  # type: ignore[arg-type]
    x = vectors.tensor("x").requires_grad_()
    loss = term(x, vectors.tensor("g"))
    torch.testing.assert_close(loss.mean(), vectors.tensor(f"{case}_loss").reshape(()), rtol=1e-10, atol=1e-12)
    (gradient,) = torch.autograd.grad(loss.mean(), x)
    torch.testing.assert_close(gradient, vectors.tensor(f"{case}_grad"), rtol=1e-10, atol=1e-12)


def test_terms_give_one_number_a_sample() -> None:
    x, g = pictures(3, 1, 8, 8), pictures(3, 1, 8, 8, seed=1)
    for term in (SpectrumTerm(), PerceptualTerm(FixedBank(2).double()), BandLimited(Squared(), 0.25)):
        whole = term(x, g)
        assert whole.shape == (3,)
        torch.testing.assert_close(whole[1:2], term(x[1:2], g[1:2]))
        assert torch.equal(term(x, x), torch.zeros(3, dtype=whole.dtype))
        assert bool((whole > 0).all())


def test_sums_are_weighted_and_named() -> None:
    x, g = pictures(2, 1, 8, 8), pictures(2, 1, 8, 8, seed=1)
    total = SumOfTerms([WeightedTerm(SpectrumTerm(), 0.25), Squared()])
    torch.testing.assert_close(total(x, g), 0.25 * SpectrumTerm()(x, g) + Squared()(x, g))
    assert total.name == "0.25 spectrum amp_l2 + squared"
    with pytest.raises(UserError, match="no terms"):
        SumOfTerms([])


def test_a_band_hides_what_is_above_it() -> None:
    """A wave of 3/8 cycles is seen by the whole term and not by that of a band up to 1/8; one of 1/8 by both."""
    line = torch.arange(16, dtype=torch.float64)
    for frequency, seen in ((3 / 8, False), (1 / 8, True)):
        x = (2 * torch.pi * frequency * line).cos().expand(1, 1, 16, 16)
        kept = low_passed(x, 1 / 8)
        torch.testing.assert_close(kept, x if seen else torch.zeros_like(x))
        term = within_band(SumOfTerms([Squared(), WeightedTerm(SpectrumTerm(), 2.0)]), 1 / 8)
        assert bool(term(x, torch.zeros_like(x)) > 0.1) == seen
    assert band_of_scale(4) == 1 / 8
    with pytest.raises(UserError, match=r"scale of 0\.5"):
        band_of_scale(0.5)
    with pytest.raises(UserError, match=r"cutoff of 0\.7"):
        BandLimited(Squared(), 0.7)


def test_within_band_keeps_a_narrower_band() -> None:
    narrow: GuidanceTerm = SpectrumTerm(SpectrumLoss(cutoff=0.05))
    assert within_band(narrow, 0.125) == narrow
    assert within_band(SpectrumTerm(), 0.125) == SpectrumTerm(SpectrumLoss(cutoff=0.125))
    assert within_band(Squared(), 0.125).name == "squared up to 0.125"


def test_the_perceptual_term_weights_its_layers() -> None:
    x, g = pictures(2, 1, 8, 8), pictures(2, 1, 8, 8, seed=1)
    bank = FixedBank(1).double()
    sobel, haar, gabor = ((f - h).square().flatten(1).mean(1) for f, h in zip(bank(x), bank(g), strict=True))
    torch.testing.assert_close(PerceptualTerm(bank)(x, g), sobel + haar + gabor)
    torch.testing.assert_close(PerceptualTerm(bank, [0.5, 0.0, 2.0])(x, g), 0.5 * sobel + 2 * gabor)
    for weights in ([1.0], [0.0, 0.0, 0.0]):
        with pytest.raises(UserError, match="gives 3 layers"):
            PerceptualTerm(bank, weights)(x, g)


def test_gradients_of_terms_are_derivatives() -> None:
    x, g = pictures(1, 1, 8, 8).requires_grad_(), pictures(1, 1, 8, 8, seed=1)
    assert torch.autograd.gradcheck(lambda p: PerceptualTerm(FixedBank(1).double())(p, g), x)
    small = pictures(1, 1, 2, 2, seed=2)
    assert torch.autograd.gradcheck(lambda p: Squared()(*MeasuredReference(small, 4)(p)), x)
    assert torch.autograd.gradcheck(lambda p: BandLimited(Squared(), 0.2)(p, g), x)


@pytest.mark.parametrize(("height", "width", "scale"), [(40, 24, 4), (33, 18, 2), (13, 31, 3), (6, 5, 4)])
def test_shrinking_is_pillows_bicubic(height: int, width: int, scale: int) -> None:
    values = pictures(height, width).numpy().astype(np.float32)
    wanted = Image.fromarray(values).resize((width // scale, height // scale), Image.Resampling.BICUBIC)
    found = shrink(torch.from_numpy(values).double()[None, None], scale)[0, 0]
    torch.testing.assert_close(found, torch.from_numpy(np.array(wanted)).double(), rtol=1e-5, atol=1e-5)


@reference_files("infrared", "degrade_*.npz", needs=["hr_f32", "lr_f32"])
def test_shrinking_counts(vectors: ReferenceFile) -> None:
    large, small = vectors.tensor("hr_f32", torch.float64), vectors.tensor("lr_f32", torch.float64)
    found = shrink(large[None, None], large.shape[0] // small.shape[0])[0, 0]
    torch.testing.assert_close(found, small, rtol=0, atol=1e-3)


def test_references_are_made_of_what_was_measured() -> None:
    measured, prediction = pictures(2, 1, 4, 5), pictures(2, 1, 16, 20, seed=1)
    same, g = EnlargedReference(measured, 4)(prediction)
    assert same is prediction
    torch.testing.assert_close(g, upscale(measured, 4))
    small, g = MeasuredReference(measured, 4)(prediction)
    assert torch.equal(g, measured)
    torch.testing.assert_close(small, shrink(prediction, 4))
    assert torch.equal(shrink(prediction, 1), prediction)
    constant = torch.full((1, 1, 16, 20), 0.3, dtype=torch.float64)
    torch.testing.assert_close(shrink(constant, 4), constant[..., :4, :5])


def test_a_reference_fits_the_prediction() -> None:
    prediction = pictures(2, 3, 8, 8).float()
    one = PictureReference(pictures(1, 1, 8, 8))
    _, g = one(prediction)
    assert (g.shape, g.dtype) == (prediction.shape, prediction.dtype)
    _, grey = PictureReference(prediction)(prediction[:, :1])
    torch.testing.assert_close(grey, prediction.mean(1, keepdim=True))
    for wrong in (pictures(2, 1, 8, 9), pictures(3, 1, 8, 8)):
        with pytest.raises(UserError, match="one size"):
            PictureReference(wrong)(prediction)
    with pytest.raises(UserError, match="one size"):
        EnlargedReference(pictures(2, 1, 4, 4), 4)(prediction)
    hole = torch.full((1, 1, 8, 8), torch.nan)
    for make in (lambda p: EnlargedReference(p, 4), lambda p: MeasuredReference(p, 4), PictureReference):
        with pytest.raises(UserError, match="NaN"):
            make(hole)
        with pytest.raises(UserError, match=r"\(B, C, H, W\)"):
            make(pictures(8, 8))


def test_guides_are_data() -> None:
    terms = [WeightedTerm(SpectrumTerm(SpectrumLoss("logamp_l2", 0.125)), 0.5), PerceptualTerm(FixedBank(2), [1.0] * 4)]
    guide = Guide(SumOfTerms(terms), 3.0, RaisedNoise(), (Normalized(), ClippedNorm(2.0)), (0.0, 0.5))
    again = build(describe(guide), Guide)
    assert again.described() == guide.described()
    assert describe(again) == describe(guide)
    assert guide.described() == {
        "term": "0.5 spectrum logamp_l2 up to 0.125 + perceptual sobel, haar of 2 scales, gabor of 4 orientations",
        "weights": ["none, the filters are fixed"],
        "strength": 3.0,
        "injection": "RaisedNoise",
        "treatments": ["Normalized()", "ClippedNorm(limit=2.0)"],
        "interval": [0.0, 0.5],
    }
    with pytest.raises(UserError, match="low <= high"):
        Guide(SpectrumTerm(), interval=(0.6, 0.5))
