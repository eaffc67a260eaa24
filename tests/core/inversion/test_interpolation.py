"""Interpolation: the published mixture, invariants of the weights, and every process."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_vectors import ReferenceFile, reference_files

from ornstein.analysis.class_mixture import ClassMixtureDenoiser
from ornstein.analysis.examples import PROCESSES
from ornstein.errors import UserError
from ornstein.inversion.ddim import DDIMInversion
from ornstein.inversion.interpolation import Interpolation, Inverted, Lerp, NoiseDiffusion, Slerp, lerp, slerp
from ornstein.noise import SampleNoise
from tests.core.inversion.exact import CLASSES, evenly, random


@reference_files("inference", "noisediffusion*.npz", cases=lambda v: [n for n in v.names if n.startswith("nd_f")])
def test_published_mixture(vectors: ReferenceFile, case: str) -> None:
    found = re.fullmatch(r"nd_f([\d.]+)_clip([\d.]+)_gamma([\d.]+)_s([\d.]+)", case)
    assert found is not None
    fraction, clip, gamma, strength = (float(number) for number in found.groups())
    abar = vectors.tensor("abar_t")
    ends = Inverted(
        (vectors.tensor("l1"), vectors.tensor("l2")),
        (vectors.tensor("img1"), vectors.tensor("img2")),
        abar.sqrt(),
        (1 - abar).sqrt(),
    )
    mixed = NoiseDiffusion(clip, gamma, strength)(ends, fraction, lambda like: vectors.tensor("noise"))
    torch.testing.assert_close(mixed, vectors.tensor(case), rtol=1e-9, atol=1e-9)


@reference_files("inference", "noisediffusion*.npz", cases=lambda v: [n for n in v.names if n.startswith("slerp_f")])
def test_published_slerp(vectors: ReferenceFile, case: str) -> None:
    found = slerp(vectors.tensor("l1"), vectors.tensor("l2"), float(case.removeprefix("slerp_f")))
    torch.testing.assert_close(found, vectors.tensor(case), rtol=1e-9, atol=1e-9)


@given(st.floats(0, 1), st.floats(0, 0.99), st.floats(0.5, 2))
def test_weights_keep_the_variance_and_are_symmetric(fraction: float, gamma: float, strength: float) -> None:
    mixing = NoiseDiffusion(gamma=gamma, strength=strength)
    alpha, beta, mu, nu = mixing.weights(fraction)
    assert math.isclose(alpha**2 + beta**2 + gamma**2, 1, abs_tol=1e-12)
    assert math.isclose(mu + nu, strength, abs_tol=1e-12)
    beta_back, alpha_back, nu_back, mu_back = mixing.weights(1 - fraction)
    assert (alpha, beta, mu, nu) == pytest.approx((alpha_back, beta_back, mu_back, nu_back), abs=1e-12)


@given(st.floats(0, 1), st.integers(0, 5))
def test_slerp_stays_on_the_sphere_and_is_symmetric(fraction: float, seed: int) -> None:
    one, two = (x / x.norm(dim=1, keepdim=True) for x in (random(3, 8, seed=seed), random(3, 8, seed=seed + 9)))
    mixed = slerp(one, two, fraction)
    torch.testing.assert_close(mixed.norm(dim=1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(mixed, slerp(two, one, 1 - fraction))


def test_slerp_of_parallel_opposite_and_empty_directions() -> None:
    x = random(1, 8)
    torch.testing.assert_close(slerp(x, 2 * x, 0.25), 1.25 * x)
    torch.testing.assert_close(slerp(x, -x, 0.25), 0.5 * x)
    torch.testing.assert_close(slerp(x, 0 * x, 0.25), lerp(x, 0 * x, 0.25))


def test_the_ends_are_the_first_and_the_second_latent() -> None:
    """cot(0) is where the published form divides by zero."""
    one, two, signal = random(1, 8), random(1, 8, seed=1), torch.zeros(1, 8, dtype=torch.float64)
    a, s = torch.tensor(0.3), torch.tensor(0.95)
    for fraction, expected in ((0.0, one), (1.0, two)):
        mixed = NoiseDiffusion(clip=9.0)(Inverted((one, two), (signal, signal), a, s), fraction)
        torch.testing.assert_close(mixed, expected)


def test_complex_latents_are_clipped_in_modulus() -> None:
    x = torch.tensor([[3 + 4j, 0.3 + 0.4j]])
    zero = torch.zeros(1, 2, dtype=torch.complex64)
    mixed = NoiseDiffusion(clip=1.0)(Inverted((x, x), (zero, zero), torch.tensor(0.0), torch.tensor(1.0)), 0.0)
    torch.testing.assert_close(mixed, torch.tensor([[0.6 + 0.8j, 0.3 + 0.4j]]))


@pytest.mark.parametrize("mixing", [NoiseDiffusion(gamma=0.3), NoiseDiffusion(clip=5.0, strength=1.0), Slerp(), Lerp()])
@pytest.mark.parametrize("name", PROCESSES)
def test_every_process(name: str, mixing: NoiseDiffusion | Slerp | Lerp) -> None:
    """Between two signals of a class lies one of high density; observations are interpolated with the signals."""
    process = PROCESSES[name]
    denoiser = ClassMixtureDenoiser(CLASSES, process)
    x0 = CLASSES.given(0).sample(4, torch.Generator().manual_seed(0))
    y = (random(2, 2, seed=2), random(2, 2, seed=3))
    method = Interpolation(DDIMInversion(12, evenly(process, 12, 0.7)), mixing)
    found = [method(denoiser, x0[:2], x0[2:], 0.4, y, SampleNoise([1, 2]), label=torch.zeros(2)) for _ in range(2)]
    assert torch.equal(*found)
    assert (found[0] - CLASSES.given(0).mean()).abs().max() < 2


def test_lerp_loses_variance_and_slerp_does_not() -> None:
    one, two = random(1, 10_000), random(1, 10_000, seed=1)
    assert float(lerp(one, two, 0.5).var()) == pytest.approx(0.5, abs=0.03)
    assert float(slerp(one, two, 0.5).var()) == pytest.approx(1, abs=0.03)


def test_bad_requests() -> None:
    denoiser, method = ClassMixtureDenoiser(CLASSES, PROCESSES["VP"]), Interpolation(DDIMInversion(4))
    with pytest.raises(UserError, match="from 0 to 1"):
        method(denoiser, random(1, 2), random(1, 2), 1.5)
    with pytest.raises(UserError, match="equal shapes"):
        method(denoiser, random(1, 2), random(2, 2), 0.5)
    with pytest.raises(UserError, match="gamma < 1"):
        NoiseDiffusion(gamma=1.0)
    with pytest.raises(ValueError, match="noise=SampleNoise"):
        Interpolation(DDIMInversion(4), NoiseDiffusion(gamma=0.2))(denoiser, random(1, 2), random(1, 2), 0.5)
