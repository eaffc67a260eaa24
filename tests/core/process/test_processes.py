"""What must hold of every process."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expi

from ornstein.process.affine import Process, combine
from ornstein.process.bbed import BBED
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.edm import EDM
from ornstein.process.ouve import OUVE
from ornstein.process.ouvp import OUVP
from ornstein.process.rectified_flow import RectifiedFlow
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
]
every_process = pytest.mark.parametrize("process", PROCESSES, ids=repr)
INSIDE = torch.linspace(0.04, 0.96, 9, dtype=torch.float64)


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


@every_process
def test_time_at_kappa_inverts_kappa(process: Process) -> None:
    t = INSIDE * process.T
    torch.testing.assert_close(process.time_at_kappa(process.kappa(t)), t, rtol=1e-12, atol=0)


@every_process
def test_kappa_decreases(process: Process) -> None:
    assert (process.kappa(INSIDE * process.T).diff() < 0).all()


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
    bridge = SchroedingerBridge().coefficients(torch.ones((), dtype=torch.float64))
    assert (bridge.a, bridge.b, bridge.s) == (0, 1, 0)
    assert CosineVP().coefficients(torch.ones((), dtype=torch.float64)).a == 0


def test_starts() -> None:
    z, y = torch.randn(2, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(SchroedingerBridge().start(z, y), y)
    torch.testing.assert_close(OUVE().start(z, y), y + OUVE().coefficients(torch.ones((), dtype=torch.float64)).s * z)
    torch.testing.assert_close(EDM().start(z), 80 * z)
    for process in (OUVP(), BBED()):
        s = process.coefficients(torch.tensor(process.T, dtype=torch.float64)).s
        torch.testing.assert_close(process.start(z, y), y + s * z)


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
    ],
)
def test_parameters_outside_their_range_are_refused(make: Callable[[], Process]) -> None:
    with pytest.raises(ValueError, match="needs"):
        make()
