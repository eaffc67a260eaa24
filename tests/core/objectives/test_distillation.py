"""Distillation into one step: closed forms of each of its losses."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ornstein.checkpoint import save
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.latent import LatentDenoiser
from ornstein.networks.unet import UNet
from ornstein.networks.vq import VQAutoencoder
from ornstein.objectives.distillation import OneStepDistillation, Term
from ornstein.parameterization import X0
from ornstein.process.residual_shift import ResidualShift
from ornstein.samplers.ancestral import Ancestral

Y = torch.full((2, 1, 4, 4), 0.5, dtype=torch.float64)
CLEAN = torch.linspace(-1, 1, 32, dtype=torch.float64).reshape(2, 1, 4, 4)


class Affine(nn.Module):
    """p x + q at the last level, r x + u at the first, the same number in between."""

    def __init__(self, p: float = 0.0, q: float = 0.3, r: float = 0.0, u: float = 0.0) -> None:
        super().__init__()
        self.p, self.q, self.r, self.u = (nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (p, q, r, u))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if t[0] == 14:
            return self.p * x + self.q
        return self.r * x + self.u if t[0] == 0 else torch.full_like(x, 0.3)


class Constant(nn.Module):
    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return torch.full_like(x, 0.3)


def denoiser(network: nn.Module) -> Denoiser:
    return Denoiser(network, ResidualShift(), X0())


def losses(student: nn.Module, **options: object) -> dict[str, Tensor]:
    objective = OneStepDistillation(denoiser(Constant()), **options)
    return objective(denoiser(student), CLEAN, Y, generator=torch.Generator().manual_seed(0))


def start() -> Tensor:
    z = torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return ResidualShift().start(z, Y)


def test_each_loss_has_its_closed_form() -> None:
    """The teacher's x0 is 0.3 everywhere, so every deterministic trajectory of it ends there."""
    p, q, r, u = 0.2, 0.1, 0.7, -0.4
    found = losses(Affine(p, q, r, u))
    x = start()
    torch.testing.assert_close(found["student"], (p * x + q - 0.3).square().mean())
    torch.testing.assert_close(found["noise"], (r * 0.3 + u - x).square().mean())
    torch.testing.assert_close(found["clean"], (p * (r * CLEAN + u) + q - CLEAN).square().mean())
    torch.testing.assert_close(found["loss"], found["student"] + found["noise"] + found["clean"])
    assert found["loss"].requires_grad
    assert losses(Affine(p, q, r, u), use_clean=False).keys() == {"loss", "student", "noise"}
    assert losses(Affine(p, q, r, u), use_clean=False, learn_noise=False).keys() == {"loss", "student"}


def test_a_student_that_has_learned_has_no_loss() -> None:
    assert losses(Constant(), learn_noise=False, use_clean=False)["loss"] == 0


def test_the_aim_is_the_deterministic_sample_from_the_same_start() -> None:
    class Curved(nn.Module):
        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return 0.9 * torch.tanh(0.4 * x + 0.5 * y) + 0.01 * t.reshape(-1, 1, 1, 1)

    sampler = Ancestral(5, eta=0.0)
    objective = OneStepDistillation(denoiser(Curved()), sampler, learn_noise=False, use_clean=False)
    found = objective(denoiser(Affine(0.0, 0.3)), CLEAN, Y, generator=torch.Generator().manual_seed(0))
    aim = sampler(denoiser(Curved()), start(), Y)
    torch.testing.assert_close(found["loss"], (0.3 - aim).square().mean())
    assert aim.std() > 0.01


def test_the_predicted_start_of_the_clean_signal_is_detached() -> None:
    student = Affine(0.2, 0.1, 0.7, -0.4)
    p, r, u = (each.detach() for each in (student.p, student.r, student.u))
    losses(student)["loss"].backward()
    x = start()
    seen = r * CLEAN + u
    torch.testing.assert_close(student.r.grad, (2 * 0.3 * (r * 0.3 + u - x)).mean())
    expected = (2 * x * (p * x + 0.1 - 0.3)).mean() + (2 * seen * (p * seen + 0.1 - CLEAN)).mean()
    torch.testing.assert_close(student.p.grad, expected)


def test_further_terms_are_weighted() -> None:
    def absolute(found: Tensor, truth: Tensor) -> Tensor:
        return (found - truth).abs().flatten(1).mean(1)

    student = Affine(0.2, 0.1)
    plain = losses(student, use_clean=False, learn_noise=False)
    found = losses(student, use_clean=False, learn_noise=False, terms=[Term(absolute, 0.5)])
    expected = (0.2 * start() + 0.1 - 0.3).abs().mean()
    torch.testing.assert_close(found["term_0"], expected.detach())
    torch.testing.assert_close(found["loss"], plain["loss"] + 0.5 * expected)


def test_a_term_on_pictures_sees_decoded_latents() -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor, t: Tensor, measured: Tensor) -> Tensor:
            return x / 2

    seen: list[Tensor] = []

    def distance(found: Tensor, truth: Tensor) -> Tensor:
        seen.extend((found, truth))
        return (found - truth).abs().mean()

    autoencoder = VQAutoencoder(1, 32, (1, 1, 1), num_res_blocks=1, n_embed=8)
    student, teacher = (LatentDenoiser(Half(), ResidualShift(), autoencoder) for _ in range(2))
    objective = OneStepDistillation(teacher, Ancestral(2, eta=0.0), terms=[Term(distance, decoded=True)])
    x0, measured = student.latents(torch.zeros(1, 1, 16, 16)), torch.zeros(1, 1, 4, 4)
    found = objective(student, x0, measured, generator=torch.Generator().manual_seed(0))
    assert [each.shape for each in seen] == [(1, 1, 16, 16)] * 2
    torch.testing.assert_close(found["term_0"], (seen[0] - seen[1]).abs().mean())


def test_the_teacher_comes_from_a_file_and_stays_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = Denoiser(UNet(1, 8, 1), ResidualShift(), X0())
    save(tmp_path / "teacher.safetensors", teacher, app="core")
    objective = OneStepDistillation(tmp_path / "teacher.safetensors", Ancestral(2, eta=0.0))
    assert not any(weight.requires_grad for weight in objective._teacher.parameters())
    with pytest.raises(UserError, match="there is no checkpoint"):
        OneStepDistillation(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="learn_noise"):
        OneStepDistillation(teacher, learn_noise=False)
