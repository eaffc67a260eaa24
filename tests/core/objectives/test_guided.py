"""Losses of guidance in training: closed forms, where they look, and the encoder that gives features."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ornstein.checkpoint import save
from ornstein.config import build, describe
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.features.fixed_bank import FixedBank
from ornstein.features.small_encoder import EncoderWithHeads, SmallEncoderFeatures
from ornstein.guidance.perceptual import PerceptualTerm
from ornstein.guidance.terms import SpectrumTerm
from ornstein.latent import LatentDenoiser
from ornstein.networks.unet import UNet
from ornstein.networks.vq import VQAutoencoder
from ornstein.objectives.denoising import DenoisingObjective
from ornstein.objectives.distillation import OneStepDistillation, Term
from ornstein.objectives.guided import GuidedObjective
from ornstein.objectives.noise_strength import NoiseAndStrength, blurred, encoder_denoiser
from ornstein.objectives.time_sampling import UniformLevels
from ornstein.parameterization import X0
from ornstein.process.residual_shift import ResidualShift
from ornstein.samplers.ancestral import Ancestral
from ornstein.uncertainty import UncertaintyGuided

Y = torch.full((2, 1, 8, 8), 0.5, dtype=torch.float64)
CLEAN = torch.linspace(-1, 1, 128, dtype=torch.float64).reshape(2, 1, 8, 8)


class Linear(nn.Module):
    """weight x, whatever the time."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.4, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.weight * x


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_terms_are_added_to_the_denoising_loss() -> None:
    denoiser = Denoiser(Linear(), ResidualShift(), X0())
    terms = [Term(SpectrumTerm(), 0.001), Term(PerceptualTerm(FixedBank(1).double()), 0.5)]
    found = GuidedObjective(terms)(denoiser, CLEAN, Y, generator=generator())
    plain = DenoisingObjective("x0", UniformLevels())
    estimate, truth = plain.corrupt_and_estimate(denoiser, CLEAN, Y, generator=generator())
    spectrum = SpectrumTerm()(estimate.x0, truth.x0).mean()
    features = PerceptualTerm(FixedBank(1).double())(estimate.x0, truth.x0).mean()
    torch.testing.assert_close(found["denoising"], plain.compare_with(estimate, truth).detach())
    torch.testing.assert_close([found["term_0"], found["term_1"]], [spectrum.detach(), features.detach()])
    torch.testing.assert_close(found["loss"], plain.compare_with(estimate, truth) + 0.001 * spectrum + 0.5 * features)
    found["loss"].backward()
    assert denoiser.network.weight.grad is not None

    without = GuidedObjective()(denoiser, CLEAN, Y, generator=generator())
    assert torch.equal(without["loss"], plain(denoiser, CLEAN, Y, generator=generator())["loss"])


def test_terms_see_latents_or_pictures() -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor, t: Tensor, measured: Tensor) -> Tensor:
            return x / 2

    seen: list[Tensor] = []

    def distance(found: Tensor, truth: Tensor) -> Tensor:
        seen.extend((found, truth))
        return (found - truth).square().mean()

    torch.manual_seed(0)
    latent = LatentDenoiser(Half(), ResidualShift(), VQAutoencoder(1, 32, (1, 1), 1, n_embed=8), scale=2)
    clean, measured = CLEAN.float(), Y[..., :4, :4].float()
    objective = GuidedObjective([Term(distance), Term(distance, decoded=True)])
    objective(latent, latent.latents(clean), measured, generator=generator())
    assert [each.shape for each in seen] == [(2, 3, 4, 4)] * 2 + [(2, 1, 8, 8)] * 2
    torch.testing.assert_close(seen[2], latent.pictures(seen[0]))

    class Shuffled(nn.Module):
        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return nn.functional.pixel_shuffle(x, 2)

    seen.clear()
    pixels = UncertaintyGuided(Shuffled(), ResidualShift(), X0(), scale=2, patch=2)
    objective(pixels, pixels.unshuffled(clean), measured, generator=generator())
    assert [each.shape for each in seen] == [(2, 4, 4, 4)] * 2 + [(2, 1, 8, 8)] * 2
    torch.testing.assert_close(seen[3], clean)


@pytest.mark.parametrize("clean", [False, True])
def test_distillation_compares_with_the_teacher_or_the_clean_signal(clean: bool) -> None:
    teacher = Denoiser(Linear(), ResidualShift(), X0())
    student = Denoiser(Linear(), ResidualShift(), X0())
    term = Term(SpectrumTerm(), 0.1, clean=clean)
    objective = OneStepDistillation(teacher, Ancestral(3, eta=0.0), False, False, [term])
    found = objective(student, CLEAN, Y, generator=generator())
    z = torch.randn(CLEAN.shape, generator=generator(), dtype=torch.float64)
    start = student.process.start(z, Y)
    aim = Ancestral(3, eta=0.0)(teacher, start, Y)
    made = (0.4 * start).detach()
    wanted = SpectrumTerm()(made, CLEAN if clean else aim).mean()
    torch.testing.assert_close(found["term_0"], wanted)
    torch.testing.assert_close(found["loss"].detach(), (made - aim).square().mean() + 0.1 * wanted)


def test_objectives_with_terms_are_data() -> None:
    terms = [Term(SpectrumTerm(), 0.001), Term(PerceptualTerm(FixedBank(2)), 0.001, decoded=True)]
    for objective in (GuidedObjective(terms),):
        assert describe(build(describe(objective), GuidedObjective)) == describe(objective)


def test_blurring() -> None:
    """The variance of a blurred point is that of its Gaussian; no blur changes nothing; sums stay."""
    point = torch.zeros(3, 2, 21, 21, dtype=torch.float64)
    point[:, :, 10, 10] = 1
    deviation = torch.tensor([0.0, 1.0, 1.5], dtype=torch.float64)
    found = blurred(point, deviation)
    torch.testing.assert_close(found[0], point[0])
    torch.testing.assert_close(found.sum((2, 3)), torch.ones(3, 2, dtype=torch.float64))
    place = torch.arange(-10, 11, dtype=torch.float64)
    variance = (found * place[:, None] ** 2).sum((2, 3))
    torch.testing.assert_close(variance, (deviation**2)[:, None].expand(3, 2), rtol=1e-2, atol=1e-12)


def test_the_encoder_learns_to_clean_and_to_tell_the_strength() -> None:
    torch.manual_seed(0)
    denoiser = encoder_denoiser(EncoderWithHeads(1))
    draw = generator()
    base = torch.linspace(0, 9, 16)
    pictures = torch.stack([(base * f).sin()[:, None] * (base * g).cos() for f, g in ((1, 1), (2, 0.5), (0.5, 2))])[
        :, None
    ]
    objective = NoiseAndStrength()
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=3e-3)
    history = []
    for _ in range(50):
        losses = objective(denoiser, pictures.repeat(3, 1, 1, 1), generator=draw)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        history.append([float(losses[name].detach()) for name in ("picture", "strength")])
    before, after = torch.tensor(history[:5]).mean(0), torch.tensor(history[-5:]).mean(0)
    assert float(after[0]) < 0.5 * float(before[0])
    assert float(after[1]) < 1 / 12  # a guess of the mean has the variance of a uniform draw


def test_features_come_from_the_file_of_a_trained_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = EncoderWithHeads(1)
    path = tmp_path / "features.safetensors"
    save(path, encoder_denoiser(network), app="infrared")
    extractor = SmallEncoderFeatures(path)
    x = CLEAN.float().repeat(1, 1, 4, 4)
    found = extractor(x)
    assert [f.shape[1:] for f in found] == [(32, 16, 16), (64, 8, 8), (128, 4, 4), (128, 2, 2)]
    torch.testing.assert_close(found, network.encoder(x))
    assert not any(weight.requires_grad for weight in extractor.parameters())
    assert build(describe(extractor), SmallEncoderFeatures).weights_source == str(path)
    clean, strength = network.both(x[..., :30, :23])
    assert (clean.shape, strength.shape) == ((2, 1, 30, 23), (2,))

    save(tmp_path / "other.safetensors", Denoiser(UNet(1, 8, 1), ResidualShift(), X0()), app="core")
    for wrong, message in (
        (None, "needs weights"),
        (tmp_path / "none.safetensors", "no checkpoint"),
        (tmp_path / "other.safetensors", "holds a UNet"),
    ):
        with pytest.raises(UserError, match=message):
            SmallEncoderFeatures(wrong)


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(UserError, match="trains an EncoderWithHeads"):
        NoiseAndStrength()(Denoiser(Linear(), ResidualShift(), X0()), CLEAN, Y, generator=generator())
    with pytest.raises(UserError, match="largest above 0"):
        NoiseAndStrength(largest=0.0)
