"""Edit-friendly inversion: exact on every process, and equal to the published program."""

import re

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor

from ornstein.analysis.class_mixture import ClassMixtureDenoiser
from ornstein.analysis.examples import PROCESSES
from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser
from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.estimate import Estimate, estimate_from_noise
from ornstein.inversion.edit_friendly import EditFriendlyInversion, PublishedEditFriendlyInversion
from ornstein.noise import SampleNoise
from ornstein.process.affine import Process
from ornstein.process.prediction import Prediction
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.time_grids import UniformGrid, UserGrid
from tests.core.inversion.exact import CLASSES, discrete, evenly, mixture, random

Y = torch.tensor([0.8, -1.2], dtype=torch.float64)


class Prompted:
    """Noise u + guidance (c - u) of a whole mixture (u) and of one of its components (c)."""

    def __init__(self, mixture: GaussianMixture, process: Process, component: int, guidance: float) -> None:
        alone = GaussianMixture(
            torch.ones(1, dtype=torch.float64), mixture.means[[component]], mixture.covariances[[component]]
        )
        self.process, self.guidance = process, guidance
        self.parts: list[DenoiserLike] = [MixtureDenoiser(mixture, process), MixtureDenoiser(alone, process)]

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        u, c = (part(x, t).noise for part in self.parts)
        return estimate_from_noise(self.process, x, torch.as_tensor(t), u + self.guidance * (c - u))


@reference_files("inference", "edit_friendly*.npz", cases=lambda v: v.prefixes("__x0"), needs=["gmm_w", "{case}__zs"])
def test_published_program(vectors: ReferenceFile, case: str) -> None:
    found = re.fullmatch(r"one(\d)_n(\d+)_eta([\d.]+)_cfg([\d.]+)", case)
    assert found is not None
    eta, guidance = float(found[3]), float(found[4])
    process, data = discrete(vectors), mixture(vectors)
    indices = vectors.tensor(f"{case}__t")
    final = 0.0 if vectors.number(f"{case}__final_abar") == 1 else 1.0
    times = torch.cat([indices.double() + 1, torch.tensor([final], dtype=torch.float64)]) / len(vectors["betas"])
    inversion = PublishedEditFriendlyInversion(len(indices), UserGrid(tuple(times.tolist())), eta)
    draws = iter(vectors.tensor(f"{case}__draws"))
    x0 = vectors.tensor(f"{case}__x0")
    source = Prompted(data, process, 1, guidance)
    code = inversion(source, x0, lambda like: next(draws))
    published = inversion.without_last(code)
    torch.testing.assert_close(published.states.flip(0)[:, 0], vectors.tensor(f"{case}__xts"), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(published.corrections.flip(0)[:, 0], vectors.tensor(f"{case}__zs"), rtol=1e-9, atol=1e-9)
    recon = inversion.decode(source, published)
    torch.testing.assert_close(recon, vectors.tensor(f"{case}__recon"), rtol=1e-9, atol=1e-9)
    edited = inversion.decode(Prompted(data, process, 0, 1.5 * guidance), published, skip=3)
    torch.testing.assert_close(edited, vectors.tensor(f"{case}__edit_skip3_to0"), rtol=1e-9, atol=1e-9)
    assert (recon - x0).abs().max() > 1e-3  # what the zeroed noise costs the published program
    torch.testing.assert_close(inversion.decode(source, code), x0, rtol=0, atol=1e-10)


@pytest.mark.parametrize("eta", [1.0, 0.4])
@pytest.mark.parametrize("name", PROCESSES)
def test_exact_on_every_process(name: str, eta: float) -> None:
    """Reconstruction from the noise itself, at T where the process has one, and from the middle."""
    process, label = PROCESSES[name], torch.tensor([0, 1, 1, -1])
    denoiser = ClassMixtureDenoiser(CLASSES, process)
    x0, y = CLASSES.mixture.sample(4, torch.Generator().manual_seed(1)), Y.expand(4, 2)
    inversion = EditFriendlyInversion(20, evenly(process, 20), eta=eta)
    code = inversion(denoiser, x0, SampleNoise(range(4)), y, label=label)
    for skip in (0, 7, 19):
        recon = inversion.decode(denoiser, code, y, skip, label=label)
        torch.testing.assert_close(recon, x0, rtol=0, atol=1e-8)
    edited = inversion.decode(denoiser, code, y, label=torch.tensor([1, 0, 0, 0]))
    assert (edited - x0).abs().amax(1).min() > 1e-3


def test_float32_is_exact_to_its_digits() -> None:
    denoiser, x0 = ClassMixtureDenoiser(CLASSES, PROCESSES["VP"]), random(4, 2).float()
    inversion = EditFriendlyInversion(50)
    code = inversion(denoiser, x0, SampleNoise(range(4)))
    torch.testing.assert_close(inversion.decode(denoiser, code), x0, rtol=0, atol=1e-4)


def test_decoding_is_the_ancestral_sampler_with_the_noise_of_the_code() -> None:
    denoiser, x0 = ClassMixtureDenoiser(CLASSES, PROCESSES["OUVE"]), random(4, 2)
    inversion = EditFriendlyInversion(12, UniformGrid(end=0.05))
    code = inversion(denoiser, x0, SampleNoise(range(4)), Y.expand(4, 2))
    draws = iter(code.corrections)
    sampled = Ancestral(12, inversion.grid)(denoiser, code.states[0], Y.expand(4, 2), lambda like: next(draws))
    torch.testing.assert_close(sampled, x0, rtol=0, atol=1e-10)


def test_draws_of_a_sample_do_not_depend_on_its_batch() -> None:
    denoiser, x0, inversion = ClassMixtureDenoiser(CLASSES, PROCESSES["VP"]), random(3, 2), EditFriendlyInversion(6)
    together = inversion(denoiser, x0, SampleNoise([4, 5, 6])).corrections
    alone = inversion(denoiser, x0[1:2], SampleNoise([5])).corrections
    torch.testing.assert_close(together[:, 1:2], alone, rtol=1e-12, atol=1e-12)


def test_edits_move_towards_the_new_class() -> None:
    process = PROCESSES["VP"]
    denoiser, inversion = ClassMixtureDenoiser(CLASSES, process), EditFriendlyInversion(20)
    x0 = CLASSES.given(0).sample(32, torch.Generator().manual_seed(2))
    code = inversion(denoiser, x0, SampleNoise(range(32)), label=torch.zeros(32))
    shares = []
    for skip in (17, 10, 0):
        edited = inversion.decode(denoiser, code, skip=skip, label=torch.ones(32))
        shares.append(float(CLASSES.log_class_posterior(edited, process, 0.0).exp()[:, 1].mean()))
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.95


def test_bad_requests() -> None:
    denoiser, inversion = ClassMixtureDenoiser(CLASSES, PROCESSES["VP"]), EditFriendlyInversion(4)
    code = inversion(denoiser, random(2, 2), SampleNoise([1, 2]))
    for eta in (0.0, 1.5):
        with pytest.raises(UserError, match="0 < eta <= 1"):
            EditFriendlyInversion(eta=eta)
    with pytest.raises(UserError, match="skip must be"):
        inversion.decode(denoiser, code, skip=4)
    with pytest.raises(UserError, match="has 4 steps, the inversion 5"):
        EditFriendlyInversion(5).decode(denoiser, code)
    predictive = ClassMixtureDenoiser(CLASSES, Prediction())
    with pytest.raises(UserError, match="adds noise"):
        inversion(predictive, random(2, 2), SampleNoise([1, 2]), random(2, 2))
    with pytest.raises(UserError, match="not finite"):
        inversion(denoiser, random(2, 2) * torch.inf, SampleNoise([1, 2]))
