"""Guidance by the gradient of an energy: reference trajectories, Bayes' rule on Gaussians, and what must not change."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor, nn

from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.estimate import Estimate, estimate_from_x0
from ornstein.guidance.guide import picture_energy
from ornstein.guidance.injection import (
    ClippedNorm,
    GradientGuidance,
    Injection,
    Normalized,
    RaisedNoise,
    ShiftedEstimate,
    ShiftedMean,
)
from ornstein.guidance.references import PictureReference
from ornstein.guidance.terms import SpectrumTerm
from ornstein.latent import LatentDenoiser
from ornstein.networks.vq import VQAutoencoder
from ornstein.noise import SampleNoise
from ornstein.process.affine import Process, as_time
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.ouve import OUVE
from ornstein.process.residual_shift import ResidualShift
from ornstein.process.vp import VP
from ornstein.samplers.adams import AdamsBashforth
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.dpm_singlestep import DPMSolverPP2S
from ornstein.samplers.ode_solvers import Heun
from ornstein.samplers.unipc import UniPC
from ornstein.wrapped_parameterizations import ScaledInput
from tests.core.samplers.test_shifting_trajectories import Analytic, replay

F64 = torch.float64
INJECTIONS: dict[str, Injection] = {"mean": ShiftedMean(), "noise": RaisedNoise(), "x0": ShiftedEstimate()}


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@reference_files(
    "infrared",
    "trajectory_*.npz",
    cases=lambda v: [case for case in v.prefixes("_loss") if case.removeprefix("guided_") in INJECTIONS],
    needs=["y", "noise", "g", "lam", "{case}_samples", "{case}_grads"],
)
def test_guided_trajectories(vectors: ReferenceFile, case: str) -> None:
    y, noise, g = (vectors.tensor(name, F64) for name in ("y", "noise", "g"))
    process = ResidualShift()
    energy = picture_energy(SpectrumTerm(), PictureReference(g), lambda x0: x0)
    injection = INJECTIONS[case.removeprefix("guided_")]
    guided = GradientGuidance(Denoiser(Analytic(), process, ScaledInput()), energy, injection, vectors.number("lam"))
    start, steps = process.start(noise[0], y), process.levels
    close = {"rtol": 1e-8, "atol": 1e-10}

    states = torch.stack(list(Ancestral(steps).trajectory(guided, start, y, replay(noise[1:]))))
    torch.testing.assert_close(states, vectors.tensor(f"{case}_samples"), **close)
    pulls = [guided.pull(x, float(steps - i), y) for i, x in enumerate([start, *states[:-1]])]
    torch.testing.assert_close(torch.stack([pull.gradient for pull in pulls]), vectors.tensor(f"{case}_grads"), **close)
    torch.testing.assert_close(torch.cat([pull.energy for pull in pulls]), vectors.tensor(f"{case}_loss"), **close)


@dataclass
class Gaussian:
    """The exact denoiser of data N(mean, deviation^2 I)."""

    process: Process
    mean: float = 0.4
    deviation: float = 0.7

    def variance(self, t: float) -> Tensor:
        """Of x0 given x_t."""
        a, _, s, _ = self.process.coefficients(as_time(t))
        return s**2 * self.deviation**2 / (a**2 * self.deviation**2 + s**2)

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        t = as_time(t)
        a, b, s, _ = self.process.coefficients(t)
        gain = a * self.deviation**2 / (a**2 * self.deviation**2 + s**2)
        observed = 0 if y is None else b * y
        x0 = self.mean + gain * (x - observed - a * self.mean)
        return estimate_from_x0(self.process, x, t, x0, y)


PROCESSES = {"VP": (VP(), 0.5), "ResidualShift": (ResidualShift(), 7.0), "OUVE": (OUVE(), 0.6)}


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("injection", ["noise", "x0"])
def test_a_measurement_gives_the_posterior_mean(name: str, injection: str) -> None:
    """r = x0 + sigma n: the exact likelihood of r given x_t turns E[x0 | x_t] into E[x0 | x_t, r]."""
    process, t = PROCESSES[name]
    denoiser, sigma = Gaussian(process), 0.3
    x, y, r = draws(3, 5), draws(3, 5, seed=1), draws(3, 5, seed=2)
    y = y if process.observed else None
    v, before = denoiser.variance(t), denoiser(x, t, y).x0
    wanted = (before / v + r / sigma**2) / (1 / v + 1 / sigma**2)

    def energy(x0: Tensor) -> Tensor:
        return (r - x0).square().sum(1) / (2 * (v + sigma**2))

    strength = 1.0 if injection == "noise" else float(v)
    found = GradientGuidance(denoiser, energy, INJECTIONS[injection], strength)(x, t, y)
    torch.testing.assert_close(found.x0, wanted)
    torch.testing.assert_close(process.sample(found.x0, t, found.noise, y), x)


@pytest.mark.parametrize(
    ("process", "t", "s"),
    [(VP(), 0.6, 0.4), (ResidualShift(), 9.0, 8.0), (ResidualShift(), 9.0, 4.0), (OUVE(), 0.7, 0.3),
     (SchroedingerBridge(), 0.8, 0.5)],
)  # fmt: skip
def test_the_ancestral_mean_moves_by_its_variance_times_the_gradient(process: Process, t: float, s: float) -> None:
    denoiser = Gaussian(process)
    x, y, r = draws(2, 4), draws(2, 4, seed=1), draws(2, 4, seed=2)

    def energy(x0: Tensor) -> Tensor:
        return (x0 - r).abs().pow(3).sum(1)

    times = torch.tensor([process.T, t, s, 0.0] if t < process.T else [t, s, 0.0], dtype=F64)
    guided = GradientGuidance(denoiser, energy, ShiftedMean(), 1.7, times=times)
    moved = process.step(x, t, s, guided(x, t, y).x0, y, eta=1.0)
    mean = process.step(x, t, s, denoiser(x, t, y).x0, y, eta=1.0)
    variance = process.step_weights(t, s).noise ** 2
    state = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(denoiser(state, t, y).x0).sum(), state)
    torch.testing.assert_close(moved, mean - 1.7 * variance * gradient)


def test_on_residual_shifting_the_factors_are_those_of_the_paper_page() -> None:
    """s^2 at the end of the step for the mean; kappa^2 eta/(1 - eta) for the noise: 197 down to 0.0016."""
    process = ResidualShift()
    t = torch.arange(1, 16, dtype=F64)
    torch.testing.assert_close(ShiftedMean().factor(process, t, t - 1), process.coefficients(t - 1).s ** 2)
    raised = RaisedNoise().factor(process, t, t)
    assert raised[-1].item() == pytest.approx(197, abs=0.1)
    assert raised[0].item() == pytest.approx(0.0016, abs=1e-4)
    assert torch.equal(ShiftedMean().factor(process, as_time(1), as_time(0)), as_time(0))


def test_without_an_observation_the_mean_is_guided_like_the_noise_at_the_end_of_the_step() -> None:
    process, t, s = VP(), as_time(0.7), as_time(0.4)
    torch.testing.assert_close(ShiftedMean().factor(process, t, s), RaisedNoise().factor(process, s, s))
    shift, late, early = ResidualShift(), as_time(9), as_time(8)
    a = shift.coefficients(early).a
    torch.testing.assert_close(ShiftedMean().factor(shift, late, early), a * RaisedNoise().factor(shift, early, early))


SAMPLERS: list[Sampler] = [
    Ancestral(6),
    Ancestral(6, eta=0.0),
    Heun(5),
    DPMSolverPP(6),
    DPMSolverPP2S(6),
    UniPC(6),
    AdamsBashforth(6),
]


def shifting() -> tuple[Denoiser, Tensor, Tensor]:
    """A denoiser of float32, its observation and its start."""
    denoiser = Denoiser(Analytic(), ResidualShift(), ScaledInput())
    y = draws(2, 1, 8, 8, seed=3).float()
    return denoiser, y, denoiser.process.start(draws(2, 1, 8, 8).float(), y)


def to_zero(x0: Tensor) -> Tensor:
    return x0.square().flatten(1).sum(1)


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{type(s).__name__}-{getattr(s, 'eta', '')}")
def test_strength_0_changes_no_bit_and_others_draw_the_same_noise(sampler: Sampler, injection: str) -> None:
    denoiser, y, start = shifting()
    times = sampler.times(denoiser.process)
    results, drawn = [], []
    for strength in (None, 0.0, 0.01):
        noise, seen = SampleNoise([1, 2]), []

        def draw(like: Tensor, noise: SampleNoise = noise, seen: list[Tensor] = seen) -> Tensor:
            seen.append(noise(like))
            return seen[-1]

        guided = denoiser if strength is None else GradientGuidance(
            denoiser, to_zero, INJECTIONS[injection], strength, [ClippedNorm(1.0)], times
        )  # fmt: skip
        results.append(sampler(guided, start, y, draw))
        drawn.append(torch.stack(seen) if seen else torch.zeros(0))
    plain, zero, some = results
    assert torch.equal(plain, zero)
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(plain, some)


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{type(s).__name__}-{getattr(s, 'eta', '')}")
def test_the_energy_of_samples_falls_with_every_sampler(sampler: Sampler, injection: str) -> None:
    denoiser, (_, y, start) = Gaussian(ResidualShift()), shifting()
    times = sampler.times(denoiser.process)
    guided = GradientGuidance(denoiser, to_zero, INJECTIONS[injection], 0.01, [ClippedNorm(1.0)], times)
    found = [to_zero(sampler(each, start, y, SampleNoise([1, 2]))) for each in (denoiser, guided)]
    assert bool((found[1] < found[0]).all())


def test_a_step_without_effect_asks_for_no_gradient() -> None:
    denoiser, y, start = shifting()

    def never(x0: Tensor) -> Tensor:
        raise AssertionError("the energy was asked")

    guided = GradientGuidance(denoiser, never, ShiftedMean(), 5.0)
    assert torch.equal(guided(start, 1.0, y).x0, denoiser(start, 1.0, y).x0)
    with pytest.raises(AssertionError, match="asked"):
        guided(start, 2.0, y)


def test_the_gradient_is_the_derivative_of_the_energy_of_the_estimate() -> None:
    denoiser = Denoiser(Analytic(), ResidualShift(), ScaledInput())
    x, y, g = draws(1, 1, 4, 4), draws(1, 1, 4, 4, seed=1), draws(1, 1, 4, 4, seed=2)
    energy = picture_energy(SpectrumTerm(), PictureReference(g), torch.tanh)

    def of_state(state: Tensor) -> Tensor:
        return energy(denoiser(state, 6.0, y).x0)

    assert torch.autograd.gradcheck(of_state, x.clone().requires_grad_())
    state = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(of_state(state).sum(), state)
    pull = GradientGuidance(denoiser, energy).pull(x, 6.0, y)
    torch.testing.assert_close(pull.gradient, wanted)
    assert not any(each.requires_grad for each in (pull.gradient, pull.energy, pull.estimate.x0))
    direct = GradientGuidance(denoiser, energy, ShiftedEstimate()).pull(x, 6.0, y)
    state = pull.estimate.x0.clone().requires_grad_()
    torch.testing.assert_close(direct.gradient, torch.autograd.grad(energy(state).sum(), state)[0])


def test_samples_of_a_batch_and_times_of_their_own_do_not_mix() -> None:
    denoiser = Denoiser(Analytic(), ResidualShift(), ScaledInput())
    x, y = draws(3, 1, 4, 4), draws(3, 1, 4, 4, seed=1)
    t = torch.tensor([15.0, 4.0, 1.0], dtype=F64)
    for injection in INJECTIONS.values():
        guided = GradientGuidance(denoiser, to_zero, injection, 0.3, [Normalized()])
        whole = guided(x, t, y)
        for i in range(3):
            alone = guided(x[i : i + 1], float(t[i]), y[i : i + 1])
            torch.testing.assert_close(whole.x0[i : i + 1], alone.x0)
            torch.testing.assert_close(whole.noise[i : i + 1], alone.noise)


def test_latents_are_guided_through_decoder_and_codes() -> None:
    """Straight through: the gradient at the code is that of the latent, and goes on through the network."""

    class Half(nn.Module):
        def forward(self, x: Tensor, t: Tensor, measured: Tensor) -> Tensor:
            return x.tanh()

    torch.manual_seed(0)
    vq = VQAutoencoder(1, 32, (1, 1), num_res_blocks=1, n_embed=16)
    denoiser = LatentDenoiser(Half(), ResidualShift(), vq, scale=2)
    measured = draws(2, 1, 8, 8).float()
    ready, y, condition = denoiser.prepare(measured)
    g, x = draws(2, 1, 16, 16, seed=4).float(), draws(2, 3, 8, 8, seed=5).float()
    energy = picture_energy(SpectrumTerm(), PictureReference(g), denoiser.pictures)
    found = GradientGuidance(ready, energy).pull(x, 6.0, y, **condition)

    state = x.clone().requires_grad_()
    x0 = ready(state, 6.0, y, **condition).x0
    codes = vq.quantize(x0).codes.detach().requires_grad_()
    (at_codes,) = torch.autograd.grad(SpectrumTerm()(vq.decode(codes, quantize=False), g).sum(), codes)
    (wanted,) = torch.autograd.grad(x0, state, at_codes)
    torch.testing.assert_close(found.gradient, wanted)
    assert wanted.abs().max() > 0
    assert all(weight.grad is None for weight in denoiser.parameters())


def test_the_decoder_sees_float32() -> None:
    seen: list[torch.dtype] = []

    def decode(x0: Tensor) -> Tensor:
        seen.append(x0.dtype)
        assert not torch.is_autocast_enabled("cpu")
        return x0

    energy = picture_energy(SpectrumTerm(), PictureReference(torch.zeros(1, 1, 4, 4)), decode)
    with torch.autocast("cpu", torch.bfloat16):
        energy(torch.ones(1, 1, 4, 4, dtype=torch.bfloat16))
    assert seen == [torch.float32]


def test_treatments_of_the_gradient() -> None:
    gradient = torch.stack([draws(2, 3, 3), 100 * draws(2, 3, 3), torch.zeros(2, 3, 3, dtype=F64)])
    normal = Normalized()(gradient)
    torch.testing.assert_close(normal[:2].square().mean((1, 2, 3)), torch.ones(2, dtype=F64))
    assert torch.equal(normal[2], gradient[2])
    norms = gradient.flatten(1).norm(dim=1)
    clipped = ClippedNorm(10.0)(gradient)
    assert torch.equal(clipped[0], gradient[0])
    torch.testing.assert_close(clipped.flatten(1).norm(dim=1), norms.clamp(max=10))
    torch.testing.assert_close(clipped[1] * norms[1] / 10, gradient[1])


def test_what_cannot_guide_is_refused() -> None:
    denoiser, _, _ = shifting()
    refused: list[tuple[str, Callable[[], object]]] = [
        ("strength", lambda: GradientGuidance(denoiser, to_zero, strength=-1.0)),
        ("strength", lambda: GradientGuidance(denoiser, to_zero, strength=float("nan"))),
        ("limit", lambda: ClippedNorm(0.0)),
        (r"give times=sampler.times", lambda: GradientGuidance(Gaussian(VP()), to_zero)),
    ]
    x = draws(1, 1, 4, 4)
    detached = GradientGuidance(Gaussian(ResidualShift()), lambda x0: to_zero(x0.detach()))
    refused.append(("has no gradient", lambda: detached(x, 8.0, x)))
    for message, make in refused:
        with pytest.raises(UserError, match=message):
            make()
