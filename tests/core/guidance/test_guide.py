"""Guides bound to batches and to tiles of whole pictures."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from ornstein.denoiser import Denoiser, DenoiserLike
from ornstein.errors import UserError
from ornstein.features.fixed_bank import FixedBank
from ornstein.guidance.guide import Against, Guide, TileGuide, ablation_guides
from ornstein.guidance.injection import ClippedNorm, ShiftedEstimate
from ornstein.guidance.perceptual import PerceptualTerm
from ornstein.guidance.references import MeasuredReference, PictureReference, shrink
from ornstein.guidance.terms import SpectrumTerm, SumOfTerms
from ornstein.latent import LatentDenoiser
from ornstein.networks.vq import VQAutoencoder
from ornstein.pictures.sampling import Model, restore_picture
from ornstein.process.residual_shift import ResidualShift
from ornstein.samplers.ancestral import Ancestral
from ornstein.tiles import Place, Tiling
from ornstein.uncertainty import UncertaintyGuided
from ornstein.wrapped_parameterizations import ScaledInput
from ornstein_infrared.representation import ThermalSpace
from tests.core.samplers.test_shifting_trajectories import Analytic


class Squared:
    """Mean square error."""

    name = "squared"

    def __call__(self, prediction: Tensor, reference: Tensor) -> Tensor:
        return (prediction - reference).square().flatten(1).mean(1)


class Shown(nn.Module):
    """The clean picture is a little wrong."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return 0.6 * y + 0.1 * x.tanh()


def model(patch: int = 1) -> Model[ThermalSpace]:
    if patch == 1:
        network: nn.Module = Shown()
    else:

        class Shuffled(Shown):
            def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
                return nn.functional.pixel_shuffle(super().forward(x, t, y), patch)

        network = Shuffled()
    denoiser = UncertaintyGuided(network, ResidualShift(), ScaledInput(), scale=2, patch=patch)
    return Model(denoiser, Ancestral(5), ThermalSpace(scale=2, patch=patch, multiple=8))


def frame(height: int = 20, width: int = 30) -> Tensor:
    """(1, h, w) in [0, 1]."""
    rows, columns = torch.linspace(0, 6, height), torch.linspace(0, 9, width)
    return (0.5 + 0.25 * rows.sin()[:, None] + 0.2 * columns.cos())[None]


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("against", ["measured", "enlarged"])
def test_guided_tiles_agree_better_with_what_was_measured(against: Against, patch: int) -> None:
    small = frame()
    guide = TileGuide(Guide(Squared(), 700.0, ShiftedEstimate()), 2, against)
    found = [restore_picture(model(patch), small, seed=3, guidance=each) for each in (None, guide)]
    errors = [float((shrink(each[None], 2)[0] - small).square().mean()) for each in found]
    assert found[1].shape == (1, 40, 60)
    assert errors[1] < 0.9 * errors[0]
    nothing = TileGuide(Guide(Squared(), 0.0), 2, against)
    assert torch.equal(restore_picture(model(patch), small, seed=3, guidance=nothing), found[0])


def test_latents_are_guided_in_tiles() -> None:
    """The network sees the measured tile, and the energy the decoded one."""

    class FromLatents(nn.Module):
        def forward(self, x: Tensor, t: Tensor, measured: Tensor) -> Tensor:
            return x.tanh()

    torch.manual_seed(0)
    vq = VQAutoencoder(3, 32, (1, 1), num_res_blocks=1, n_embed=64)
    latent = LatentDenoiser(FromLatents(), ResidualShift(), vq, scale=2, quantize=False)
    space = ThermalSpace(scale=2, channels=3, factor=2, multiple=8)
    sampler, small = Ancestral(4), frame(16, 24)
    results = []
    for strength in (0.0, 3000.0):
        guide = TileGuide(Guide(Squared(), strength, ShiftedEstimate()), 2, "measured")
        whole = restore_picture(Model(latent, sampler, space), small, tiling=Tiling(16, 8), batch=2, guidance=guide)
        results.append(float((shrink(whole[None], 2)[0] - small).square().mean()))
    assert results[1] < 0.9 * results[0]


def test_tiles_are_guided_by_their_own_piece() -> None:
    """Batches do not matter, and a picture of another modality is cut like the measured one."""
    small = frame(24, 40)
    other = 2 * torch.nn.functional.interpolate(small[None], scale_factor=2.0)[0] - 1
    tiling = Tiling(16, 8)
    seen: list[tuple[Tensor, Tensor]] = []

    class Watched:
        def __call__(
            self, denoiser: DenoiserLike, measured: Tensor, places: Sequence[Place], times: Tensor
        ) -> DenoiserLike:
            guide = TileGuide(Guide(Squared(), 400.0, ShiftedEstimate()), 2, other=other)
            seen.append((measured, guide._tiles(measured, places)))
            return guide(denoiser, measured, places, times)

    results = [restore_picture(model(), small, seed=1, tiling=tiling, batch=n, guidance=Watched()) for n in (1, 3)]
    torch.testing.assert_close(results[0], results[1])
    plain = restore_picture(model(), small, seed=1, tiling=tiling)
    goal = (other + 1) / 2
    assert float((results[0] - goal).square().mean()) < 0.9 * float((plain - goal).square().mean())
    for measured, tiles in seen:
        torch.testing.assert_close(tiles[..., ::2, ::2], measured)
    padded = TileGuide(Guide(Squared()), 2, other=other)._tiles(torch.zeros(1, 1, 24, 48), [(0, 0)])
    assert padded.shape == (1, 1, 48, 96)
    assert torch.equal(padded[..., 80:], padded[..., 79:80].expand(-1, -1, -1, 16))


def test_an_interval_leaves_the_other_times_alone() -> None:
    denoiser = Denoiser(Analytic(), ResidualShift(), ScaledInput())
    x, y = torch.randn(2, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    guide = Guide(SpectrumTerm(), 2.0, ShiftedEstimate(), [ClippedNorm(3.0)], (0.2, 0.6))
    guided = guide.on(denoiser, PictureReference(torch.zeros(1, 1, 8, 8)))
    for t in range(1, 16):
        same = torch.equal(guided(x, float(t), y).x0, denoiser(x, float(t), y).x0)
        assert same == (not 3 <= t <= 9)
    assert Guide(SpectrumTerm(), 0.0).on(denoiser, PictureReference(x)) is denoiser


def test_a_decoder_of_ones_own() -> None:
    denoiser = Denoiser(Analytic(), ResidualShift(), ScaledInput())
    x, y = torch.randn(2, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    enlarged = nn.Upsample(scale_factor=2)
    guided = Guide(Squared(), 1.0, ShiftedEstimate()).on(denoiser, MeasuredReference(y, 2), decode=enlarged)
    plain = denoiser(x, 5.0, y).x0
    state = plain.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Squared()(shrink(enlarged(state), 2), y).sum(), state)
    torch.testing.assert_close(guided(x, 5.0, y).x0, plain - gradient)


def test_variants_of_an_ablation() -> None:
    spectrum, perceptual = SpectrumTerm(), PerceptualTerm(FixedBank())
    guides = ablation_guides(Guide(spectrum, 7.0), spectrum, perceptual)
    assert list(guides) == ["off", "spectrum", "perceptual", "both"]
    assert guides["off"] is None
    assert guides["both"] == Guide(SumOfTerms([spectrum, perceptual]), 7.0)
    assert guides["perceptual"] is not None
    assert guides["perceptual"].term is perceptual


def test_what_cannot_guide_tiles_is_refused() -> None:
    guide = Guide(Squared())
    with pytest.raises(UserError, match="'clean'"):
        TileGuide(guide, 2, "clean")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"\(C, H, W\)"):
        TileGuide(guide, 2, other=torch.zeros(4, 4))
    with pytest.raises(UserError, match="blending to outputs"):
        restore_picture(model(), frame(), tiling=Tiling(16, 8, blending="steps"), guidance=TileGuide(guide, 2))
    assert TileGuide(guide, 2).described()["against"] == "measured"
