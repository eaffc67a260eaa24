"""What must hold of every process."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expi
from torch import Tensor

from ornstein.analysis.examples import MIXTURE
from ornstein.analysis.mixture import MixtureDenoiser, exact_flow
from ornstein.config import build, describe
from ornstein.process.affine import REMEMBERED, Process, as_time, combine, expand
from ornstein.process.bbed import BBED
from ornstein.process.betas import CosineBetas, LinearBetas, ListedBetas, ZeroTerminalSNR
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.ddpm import DDPM
from ornstein.process.edm import EDM
from ornstein.process.interpolant import (
    BrownianGamma,
    EncodingDecodingPath,
    QuadraticGamma,
    SigmoidGamma,
    SineSquaredGamma,
    StochasticInterpolant,
    TrigonometricPath,
    ZeroGamma,
)
from ornstein.process.ouve import OUVE
from ornstein.process.ouvp import OUVP
from ornstein.process.rddm import RDDM, NormalIncrements, PowerIncrements
from ornstein.process.rectified_flow import RectifiedFlow
from ornstein.process.resfusion import CosinePro, LinearPro, Resfusion
from ornstein.process.residual_path import ResidualFirst
from ornstein.process.residual_shift import ResidualShift
from ornstein.process.respaced_shift import RespacedShift
from ornstein.process.sub_vp import SubVP
from ornstein.process.tabulated import TabulatedProcess
from ornstein.process.trigonometric import Trigonometric
from ornstein.process.upsr import UPSR
from ornstein.process.ve import VE
from ornstein.process.vp import VP, CosineVP

PROCESSES: list[Process] = [
    VP(),
    CosineVP(),
    VE(),
    EDM(),
    RectifiedFlow(),
    OUVE(),
    OUVE(theta=2.0, sigma_min=0.1, sigma_max=1.0),
    SchroedingerBridge(),
    SchroedingerBridge(k=10.0, c=0.01, eps=1e-8),
    OUVP(),
    OUVP(beta_min=0.1, beta_max=4.0, stiffness=1.5),
    BBED(),
    BBED(k=10.0, theta=0.08),
    SubVP(),
    Trigonometric(),
    DDPM(),
    DDPM(CosineBetas(steps=50)),
    DDPM(ZeroTerminalSNR()),
    ResidualShift(),
    ResidualShift(steps=4, min_noise=0.2, sqrt_eta_end=1.0),
    RespacedShift(),
    UPSR(),
    RDDM(),
    RDDM(50, residual=NormalIncrements(), noise=PowerIncrements(0.3), sum_scale=0.01),
    ResidualFirst(RDDM(50)),
    Resfusion(),
    Resfusion(LinearPro(273)),
    Resfusion(CosinePro(50)),
    Resfusion(LinearBetas(steps=100, first=1e-3, last=0.08)),
    StochasticInterpolant(memory=1.0),
    StochasticInterpolant(TrigonometricPath(), QuadraticGamma()),
    StochasticInterpolant(TrigonometricPath(), BrownianGamma(0.5), memory=1.5),
    StochasticInterpolant(gamma=SigmoidGamma(), memory=3.0),
    StochasticInterpolant(gamma=SineSquaredGamma()),
]
UNORDERED = PROCESSES[-2:]
"""Interpolants whose a vanishes at T more slowly than gamma, so that kappa rises again."""
every_process = pytest.mark.parametrize("process", PROCESSES, ids=repr)
INSIDE = torch.linspace(0.04, 0.96, 9, dtype=torch.float64) + 3e-4  # away from nodes, where the second derivative jumps
Y = torch.tensor([[0.8, -1.2]], dtype=torch.float64)
WEIGHTS = torch.tensor([[0.4, 1.3]], dtype=torch.float64)
WEIGHTED = UPSR().weighted(WEIGHTS)
ordered_process = pytest.mark.parametrize(
    "process", [p for p in [*PROCESSES, WEIGHTED] if p not in UNORDERED], ids=repr
)
WITH_MAP = [*PROCESSES, WEIGHTED]
every_process_and_a_map = pytest.mark.parametrize("process", WITH_MAP, ids=[*map(repr, PROCESSES), "UPSR weighted"])


@every_process
def test_described_and_built_again(process: Process) -> None:
    assert build(describe(process), Process) == process


@every_process
def test_derivatives_are_those_of_the_coefficients(process: Process) -> None:
    t, h = INSIDE * process.T, 1e-6 * process.T
    later, earlier = process.coefficients(t + h), process.coefficients(t - h)
    for name, derivative in process.derivatives(t)._asdict().items():
        difference = (getattr(later, name) - getattr(earlier, name)) / (2 * h)
        torch.testing.assert_close(derivative, difference, rtol=1e-7, atol=1e-8, msg=lambda m, n=name: f"{n}': {m}")


@every_process
def test_g_is_real_and_the_drift_of_the_mean_is_right(process: Process) -> None:
    """E[x_t] = a x0 + b y must solve dm/dt = drift(m)."""
    t = INSIDE * process.T
    assert (process.diffusion_squared(t) >= 0).all()
    x0, y = torch.randn(2, len(t), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    da, db, _, _ = process.derivatives(t)
    expected = combine(x0, (da, x0), (db, process.require(y)))
    torch.testing.assert_close(process.drift(process.mean(x0, t, y), t, x0, y), expected, rtol=1e-9, atol=1e-9)


@ordered_process
def test_time_at_kappa_inverts_kappa(process: Process) -> None:
    t = INSIDE * process.T
    torch.testing.assert_close(process.time_at_kappa(process.kappa(t)), t, rtol=1e-12, atol=0)


@ordered_process
def test_time_at_lambda_inverts_lambda(process: Process) -> None:
    t = torch.cat([torch.tensor([1e-9, 1e-4]).double(), INSIDE]) * process.T
    t = t[process.kappa(t) > 0]
    values = process.lambda_at(t)
    torch.testing.assert_close(values, process.kappa(t).log(), rtol=1e-12, atol=1e-12)
    again = process.lambda_at(process.time_at_lambda(values))
    torch.testing.assert_close(again, values, rtol=1e-9, atol=1e-9)  # VE and EDM: kappa hardly moves near 0


def test_lambda_where_there_is_none() -> None:
    assert RectifiedFlow().lambda_at(torch.tensor([0.0, 1.0]).double()).tolist() == [torch.inf, -torch.inf]
    assert Resfusion(LinearBetas(100, 1e-3, 0.08)).lambda_at(100.0).isnan()


@ordered_process
def test_kappa_decreases(process: Process) -> None:
    assert (process.kappa(INSIDE * process.T).diff() < 0).all()


@pytest.mark.parametrize("process", UNORDERED, ids=repr)
def test_a_kappa_that_rises_again_is_no_clock(process: Process) -> None:
    assert (process.kappa(INSIDE).diff() > 0).any()
    with pytest.raises(ValueError, match="take a grid in time"):
        process.time_at_kappa(1.0)


@every_process
@given(times=st.lists(st.floats(0.02, 0.98), min_size=2, max_size=2, unique=True), eta=st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_a_step_keeps_the_marginal(process: Process, times: list[float], eta: float) -> None:
    """Given x0 and y, the step from q(x_t) must give q(x_s): its mean, and its variance for every eta."""
    s, t = (torch.tensor(v * process.T, dtype=torch.float64) for v in sorted(times))
    w = process.step_weights(t, s, eta)
    at, earlier = process.coefficients(t), process.coefficients(s)
    torch.testing.assert_close(w.x * at.a + w.x0, earlier.a, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(w.x * at.b + w.y, earlier.b, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close((w.x * at.s) ** 2 + w.noise**2, earlier.s**2, rtol=1e-9, atol=1e-12)


@every_process_and_a_map
@pytest.mark.parametrize(("early", "late"), [(0.3, 0.7), (0.1, 0.9), (0.45, 0.5)])
def test_the_ancestral_step_is_gaussian_conditioning(process: Process, early: float, late: float) -> None:
    """x_s and x_t given x0 and y are jointly Gaussian with covariance (phi_t/phi_s) s_s^2: condition on x_t."""
    generator = torch.Generator().manual_seed(0)
    x0, y, x = torch.randn(3, 4, 2, dtype=torch.float64, generator=generator)
    s, t = as_time(early * process.T), as_time(late * process.T)
    at, before = process.coefficients(t), process.coefficients(s)
    covariance = at.phi / before.phi * before.s**2
    gain = covariance / at.s**2
    mean = process.mean(x0, s, y) + expand(gain, x) * (x - process.mean(x0, t, y))
    variance = before.s**2 - gain * covariance
    step = process.step(x, t, s, x0, y, None, eta=1.0)
    torch.testing.assert_close(step, mean, rtol=1e-12, atol=1e-12 * float(before.s.max().clamp(min=1)))
    spread = process.step_weights(t, s).noise ** 2
    torch.testing.assert_close(spread, variance, rtol=1e-12, atol=1e-12 * float(before.s.max().clamp(min=1)) ** 2)


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_the_memory_is_that_of_the_forward_equation(process: Process) -> None:
    """d Cov(x_s, x_t)/dt = (phi'/phi) Cov and d Var/dt = 2 (phi'/phi) Var + g^2, what dx = drift dt + g dw says."""
    t, h = INSIDE * process.T, 1e-6 * process.T
    at, rate = process.coefficients(t), process.derivatives(t)
    slope = (process.coefficients(t + h).s ** 2 - process.coefficients(t - h).s ** 2) / (2 * h)
    expected = 2 * rate.phi / at.phi * at.s**2 + process.diffusion_squared(t)
    torch.testing.assert_close(expected, slope, rtol=1e-6, atol=1e-7)


def log_density(process: Process, x: Tensor, t: Tensor) -> Tensor:
    """log p(x_t | y) of MIXTURE, x (B, 2)."""
    a, b, s, _ = process.coefficients(t)
    shifted = combine(x, (torch.ones(()), x), (-b, process.require(Y)))
    noise = torch.diag_embed((s**2 * torch.ones_like(Y))[0])
    a = a.reshape(())
    covariances, centred = a**2 * MIXTURE.covariances + noise, shifted[:, None] - a * MIXTURE.means
    distance = torch.einsum("bki,kij,bkj->bk", centred, covariances.inverse(), centred)
    return (MIXTURE.weights.log() - (distance + covariances.logdet()) / 2).logsumexp(1) - math.log(2 * math.pi)


@every_process_and_a_map
@pytest.mark.parametrize("where", [0.35, 0.8])
def test_score_and_velocity_are_those_of_the_marginal(process: Process, where: float) -> None:
    """score = grad log p, and the continuity equation d log p/dt + div v + v . score = 0, by finite differences."""
    generator = torch.Generator().manual_seed(0)
    x0, z = MIXTURE.sample(5, generator), torch.randn(5, 2, dtype=torch.float64, generator=generator)
    t = as_time((where + 3e-4) * process.T)
    x, denoiser = process.sample(x0, t, z, Y), MixtureDenoiser(MIXTURE, process)
    estimate = denoiser(x, t, Y)
    scale = float(process.coefficients(t).s.max())
    h, moves = 1e-5 * scale, torch.eye(2, dtype=torch.float64)
    score, divergence = [], torch.zeros(5, dtype=torch.float64)
    for i, move in enumerate(moves):
        up, down = x + h * move, x - h * move
        score.append((log_density(process, up, t) - log_density(process, down, t)) / (2 * h))
        divergence += (denoiser(up, t, Y).velocity - denoiser(down, t, Y).velocity)[:, i] / (2 * h)
    torch.testing.assert_close(estimate.score * scale, torch.stack(score, 1) * scale, rtol=1e-6, atol=1e-6)
    dt = 1e-5 * process.T
    change = (log_density(process, x, t + dt) - log_density(process, x, t - dt)) / (2 * dt)
    moved = (estimate.velocity * estimate.score).sum(1)
    torch.testing.assert_close(change * process.T, -(divergence + moved) * process.T, rtol=1e-5, atol=1e-5)


@every_process_and_a_map
def test_the_flow_in_time_is_the_flow_in_kappa(process: Process) -> None:
    """dx/dt = velocity and dw/dkappa = x0, equation (2), carry a state to the same place."""
    from torchdiffeq import odeint

    t, s = (as_time((v + 3e-4) * process.T) for v in (0.75, 0.3))
    late, early = process.coefficients(t), process.coefficients(s)
    generator = torch.Generator().manual_seed(0)
    x0, z = MIXTURE.sample(4, generator), torch.randn(4, 2, dtype=torch.float64, generator=generator)
    x, denoiser = process.sample(x0, t, z, Y), MixtureDenoiser(MIXTURE, process)
    times, options = torch.stack([t, s]), {}
    if isinstance(process, TabulatedProcess) and process.levels <= 100:  # a step may not span a kink of the velocity
        options = {"jump_t": torch.arange(float(s.ceil()), float(t), dtype=torch.float64).flip(0)}
    in_time = odeint(
        lambda u, x: denoiser(x, u, Y).velocity, x, times, rtol=1e-8, atol=1e-9, method="dopri5", options=options
    )[-1]
    weights = getattr(process, "weights", None)
    w = combine(x, (1 / late.s, x), (-late.b / late.s, process.require(Y)))
    ends = [float(k) for k in process.kappa(times)]
    w = exact_flow(MIXTURE, w, *ends, tolerance=1e-9, weights=weights)
    in_kappa = combine(x, (early.s, w), (early.b, process.require(Y)))
    torch.testing.assert_close(in_time, in_kappa, rtol=1e-6, atol=1e-6)


@every_process
def test_the_ancestral_step_is_the_posterior_of_the_forward_equation(process: Process) -> None:
    """Bayes: p(x_s | x_t, x0, y) from p(x_s | x0, y) and p(x_t | x_s, x0, y), whose gain is phi_t/phi_s."""
    s, t = (torch.tensor(v * process.T, dtype=torch.float64) for v in (0.3, 0.7))
    early, late = process.coefficients(s), process.coefficients(t)
    gain = late.phi / early.phi
    added = late.s**2 - gain**2 * early.s**2
    variance = 1 / (1 / early.s**2 + gain**2 / added)
    w = process.step_weights(t, s)
    torch.testing.assert_close(w.noise**2, variance, rtol=1e-9, atol=0)
    torch.testing.assert_close(w.x, variance * gain / added, rtol=1e-9, atol=0)


@every_process
def test_forward_samples_have_the_stated_moments(process: Process) -> None:
    generator = torch.Generator().manual_seed(1)
    x0, y = torch.full((200_000, 1), 0.7, dtype=torch.float64), torch.full((200_000, 1), -0.4, dtype=torch.float64)
    t = torch.tensor(0.6 * process.T, dtype=torch.float64)
    x = process.sample(x0, t, torch.randn(x0.shape, generator=generator, dtype=torch.float64), y)
    a, b, s, _ = process.coefficients(t)
    assert abs(x.mean() - (a * 0.7 - b * 0.4)) < 5 * s / 200_000**0.5
    assert abs(x.std() / s - 1) < 0.01


def test_the_ends() -> None:
    zero = torch.zeros((), dtype=torch.float64)
    for process in PROCESSES:
        a, b, _, _ = process.coefficients(zero)
        assert abs(a - 1) < 1e-7
        assert abs(b) < 1e-7
    exact: dict[Process, tuple[float, ...]] = {
        SchroedingerBridge(): (0, 1, 0),
        CosineVP(): (0, 0, 1),
        Trigonometric(): (0, 0, 1),
        RDDM(): (0, 1, 1),
        Resfusion(): (0, 0.5, 0.75**0.5),
        StochasticInterpolant(): (0, 1, 0),
        StochasticInterpolant(TrigonometricPath(), QuadraticGamma()): (0, 1, 0),
        StochasticInterpolant(EncodingDecodingPath(), SineSquaredGamma()): (0, 1, 0),
        StochasticInterpolant(gamma=SigmoidGamma(), memory=3.0): (0, 1, 0),
        StochasticInterpolant(gamma=ZeroGamma()): (0, 1, 0),
    }
    for process, ends in exact.items():
        assert process.coefficients(torch.tensor(process.T).double())[:3] == ends, process
        a, b, s, _ = process.coefficients(zero)
        assert (a, b) == (1, 0) or isinstance(process, CosineVP)
        assert s == 0, process
    assert DDPM(ZeroTerminalSNR()).coefficients(torch.tensor(1000.0).double()).a == 0
    assert Resfusion(LinearBetas(100, 1e-3, 0.08)).coefficients(torch.tensor(100.0).double()).a < -0.7


def test_starts() -> None:
    z, y = torch.randn(2, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(SchroedingerBridge().start(z, y), y)
    torch.testing.assert_close(OUVE().start(z, y), y + OUVE().coefficients(torch.ones((), dtype=torch.float64)).s * z)
    torch.testing.assert_close(EDM().start(z), 80 * z)
    for process in (OUVP(), BBED(), ResidualShift(), RDDM()):
        s = process.coefficients(torch.tensor(process.T, dtype=torch.float64)).s
        torch.testing.assert_close(process.start(z, y), y + s * z)
    upsr = UPSR().weighted(torch.full((1, 3), 0.4))
    torch.testing.assert_close(upsr.start(z, y), y + 0.4 * 2.5 * 0.99 * z)
    end = Resfusion(LinearPro(273))
    c = end.coefficients(torch.tensor(end.T).double())
    torch.testing.assert_close(end.start(z, y), c.phi * y + c.s * z)  # as published: y in the place of x0
    torch.testing.assert_close(c.phi, c.a + c.b)


@pytest.mark.parametrize(("k", "theta"), [(2.6, 0.52), (10.0, 0.08)])
def test_variance_of_bbed_is_the_published_one(k: float, theta: float) -> None:
    """Lay et al. 2023, with the exponential integral of SciPy."""
    t = np.array([0.03, 0.2, 0.5, 0.9, 0.999])
    h = np.log(k)
    rise = k ** (2 * t) - 1 + t + 2 * k**2 * h * (1 - t) * (expi(2 * (t - 1) * h) - expi(-2 * h))
    ours = BBED(k, theta).coefficients(torch.from_numpy(t)).s ** 2
    np.testing.assert_allclose(ours.numpy(), (1 - t) * theta * rise, rtol=1e-11)


def test_times_per_sample_agree_with_a_shared_time() -> None:
    x0, z, y = torch.randn(3, 2, 1, 4, 5)
    for process in PROCESSES:
        t = 0.4 * process.T
        shared = process.sample(x0, t, z, y)
        assert shared.dtype == torch.float32
        torch.testing.assert_close(process.sample(x0, torch.tensor([t, t], dtype=torch.float64), z, y), shared)


def test_a_missing_observation_is_named() -> None:
    with pytest.raises(ValueError, match="OUVE needs the observation y"):
        OUVE().sample(torch.zeros(1, 2), 0.5, torch.zeros(1, 2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: SchroedingerBridge(k=1.0),
        lambda: SchroedingerBridge(c=-1.0),
        lambda: OUVE(sigma_min=0.5, sigma_max=0.05),
        lambda: OUVE(theta=0.0),
        lambda: VE(sigma_min=0.0),
        lambda: EDM(sigma_max=0.0),
        lambda: VP(beta_min=2.0, beta_max=1.0),
        lambda: OUVP(beta_min=0.0),
        lambda: OUVP(stiffness=0.0),
        lambda: BBED(k=1.0),
        lambda: BBED(theta=0.0),
        lambda: LinearBetas(first=0.0),
        lambda: CosineBetas(cap=1.5),
        lambda: ListedBetas((0.1, 1.0, 0.2)),
        lambda: ResidualShift(sqrt_eta_end=1.1),
        lambda: ResidualShift(steps=0),
        lambda: ResidualShift(first="largest"),  # type: ignore[arg-type]
        lambda: RespacedShift(kept=16),
        lambda: UPSR(floor=0.0),
        lambda: UPSR().weighted(torch.zeros(1, 2)),
        lambda: RDDM(sum_scale=0.0),
        lambda: PowerIncrements(-1.0),
        lambda: LinearPro(1),
        lambda: StochasticInterpolant(TrigonometricPath(), SineSquaredGamma()),
        lambda: StochasticInterpolant(gamma=SineSquaredGamma(), memory=1.0),
        lambda: BrownianGamma(0.0),
        lambda: SigmoidGamma(-1.0),
    ],
)
def test_parameters_outside_their_range_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="need"):
        make()


def test_the_clean_end_of_cosine_vp_has_a_positive_zero_and_kappa_of_plus_infinity() -> None:
    process, zero = CosineVP(), torch.zeros((), dtype=torch.float64)
    assert not process.coefficients(zero).s.signbit()
    assert process.kappa(zero) == torch.inf


@every_process
def test_what_is_remembered_is_what_was_computed(process: Process) -> None:
    for fraction in (0.3, 0.3, 0.8):  # the second is remembered
        t = torch.tensor(fraction * process.T, dtype=torch.float64)
        assert process.coefficients_at(t) == tuple(c.item() for c in process.coefficients(t))
        assert process.derivatives_at(t) == tuple(c.item() for c in process.derivatives(t))


def test_a_process_with_a_map_is_the_scalar_one_with_the_map_on_its_noise() -> None:
    plain, t = UPSR(), torch.tensor(3.0, dtype=torch.float64)
    plain.coefficients_at(t)  # remembered before the map comes
    weighted, (scalar, noise_map) = plain.weighted(WEIGHTS), plain.weighted(WEIGHTS).scalar()
    assert scalar is plain
    assert noise_map is not None
    torch.testing.assert_close(weighted.coefficients_at(t).s, weighted.coefficients(t).s, rtol=0, atol=0)
    torch.testing.assert_close(noise_map * plain.coefficients(t).s, weighted.coefficients(t).s, rtol=0, atol=0)
    again, other = weighted.weighted(2 * WEIGHTS).scalar()
    assert again is plain
    assert other is not None
    torch.testing.assert_close(other, 2 * WEIGHTS, rtol=0, atol=0)


def test_a_process_forgets_in_time() -> None:
    process = VP()
    for i in range(REMEMBERED + 10):
        process.remember(i, lambda: 1.0)
    assert len(process._remembered) <= REMEMBERED  # type: ignore[attr-defined]
