"""Schedules given by a table: exact nodes, a monotone interpolant, indices for networks, grids on nodes."""

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import PchipInterpolator

from ornstein.config import build, describe
from ornstein.denoiser import Denoiser
from ornstein.objectives.time_sampling import UniformLevels
from ornstein.parameterization import X0
from ornstein.process.affine import Process
from ornstein.process.betas import (
    BetaSchedule,
    CosineBetas,
    LinearBetas,
    ListedBetas,
    ScaledLinearBetas,
    ZeroTerminalSNR,
    log_cumulative_alpha,
)
from ornstein.process.ddpm import DDPM
from ornstein.process.rddm import RDDM, ConvertedIncrements, NormalIncrements, PowerIncrements
from ornstein.process.resfusion import CosinePro, LinearPro, Resfusion
from ornstein.process.residual_shift import ResidualShift
from ornstein.process.tabulated import MonotoneTable
from ornstein.process.upsr import UPSR
from ornstein.process.vp import VP
from ornstein.samplers.ode_solvers import Euler
from ornstein.samplers.time_grids import PowerGrid, UniformGrid

SCHEDULES: list[BetaSchedule] = [
    LinearBetas(),
    ScaledLinearBetas(steps=50),
    CosineBetas(),
    ListedBetas((0.1, 0.2, 0.9)),
    ZeroTerminalSNR(),
    LinearPro(12),
    CosinePro(50),
]
PROCESSES: list[Process] = [DDPM(), ResidualShift(), UPSR(), RDDM(), Resfusion(), Resfusion(LinearBetas())]


@pytest.mark.parametrize("values", [[0, 1.0], [0, 0.3, 1], [0, 0, 0.2, 0.25, 0.25, 0.9, 1.2], [0, 0.5, 0.6, 0.61, 2.0]])
def test_the_interpolant_is_that_of_scipy(values: list[float]) -> None:
    table = MonotoneTable(torch.tensor(values, dtype=torch.float64))
    t = torch.linspace(0, len(values) - 1, 101, dtype=torch.float64)
    reference = PchipInterpolator(np.arange(len(values)), values)
    np.testing.assert_allclose(table.rise(t).numpy(), reference(t), atol=1e-14)
    np.testing.assert_allclose(table.fall(t).numpy(), 1 - reference(t), atol=1e-14)
    np.testing.assert_allclose(table.rate(t).numpy(), reference.derivative()(t), atol=1e-13)
    assert (table.rise(t).diff() >= 0).all()


def test_the_interpolant_does_not_stand_still_at_its_ends() -> None:
    """Where PCHIP has slope 0, as after the short last step of Resfusion, it has the slope of that step."""
    table = MonotoneTable(torch.tensor([0, 0.1, 1.0, 1.1], dtype=torch.float64))
    assert table.rate(torch.tensor([0.0, 3.0]).double()).allclose(torch.tensor([0.1, 0.1]).double())
    assert (table.rise(torch.linspace(0, 3, 301).double()).diff() > 0).all()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_nodes_are_the_cumulative_alphas(schedule: BetaSchedule) -> None:
    betas = schedule()
    process, nodes = DDPM(schedule), torch.arange(len(betas) + 1, dtype=torch.float64)
    cumulative = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, 0)])
    at = process.coefficients(nodes)
    torch.testing.assert_close(at.a**2, cumulative, rtol=1e-12, atol=0)
    torch.testing.assert_close(at.s**2, 1 - cumulative, rtol=1e-12, atol=1e-15)
    assert (at.a[0], at.s[0]) == (1, 0)
    assert build(describe(process), Process) == process


def test_s_keeps_its_digits_near_the_clean_end() -> None:
    betas = (1e-14, 1e-3)
    s = DDPM(ListedBetas(betas)).coefficients(torch.ones((), dtype=torch.float64)).s
    assert abs(float(s) / math.sqrt(1e-14) - 1) < 1e-12


def test_zero_terminal_snr_ends_at_no_signal() -> None:
    """Lin et al. 2024: the first cumulative alpha stays, the last becomes 0."""
    plain, process = DDPM(ScaledLinearBetas()), DDPM(ZeroTerminalSNR())
    one = torch.ones((), dtype=torch.float64)
    torch.testing.assert_close(process.coefficients(one).a, plain.coefficients(one).a, rtol=1e-12, atol=0)
    end = process.coefficients(torch.tensor(1000.0, dtype=torch.float64))
    assert (process.T, float(end.a), float(end.s)) == (1000.0, 0.0, 1.0)


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_grids_in_time_visit_nodes_and_networks_hear_indices(process: Process) -> None:
    steps = min(4, int(process.T))
    for grid in (UniformGrid(), PowerGrid(power=1.3)):
        times = grid(process, steps)
        assert torch.equal(times, times.round())
        assert (times[0], times[-1]) == (process.T, 0)
    t = torch.tensor([0.4, 1.0, process.T], dtype=torch.float64)
    torch.testing.assert_close(process.network_time(t), torch.tensor([0.0, 0.0, process.T - 1]).double())


def test_uniform_grid_on_a_table_is_trailing_spacing() -> None:
    """diffusers `trailing`: indices round(N - k N/n) - 1, then the clean end."""
    times = UniformGrid()(DDPM(), 7)
    expected = np.round(np.arange(1000, 0, -1000 / 7))
    assert times.tolist() == [*expected.tolist(), 0.0]


def test_more_steps_than_levels_are_named() -> None:
    y = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="fewer steps"):
        Euler(steps=6)(Denoiser(torch.nn.Identity(), UPSR(), X0()), y, y)


def test_training_draws_every_level_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    t = UniformLevels()(UPSR(), 5000, generator)
    assert t.dtype == torch.float64
    values, counts = t.unique(return_counts=True)
    assert values.tolist() == [1, 2, 3, 4, 5]
    assert (counts - 1000).abs().max() < 150
    with pytest.raises(ValueError, match="no table of levels"):
        UniformLevels()(VP(), 3, generator)


def test_resfusion_begins_where_the_clean_signal_drops_out() -> None:
    """Examples of section A.7, and few steps, where the published search fails."""
    lengths = {12: 5, 13: 5, 20: 8, 25: 10, 50: 19, 100: 37, 273: 100, 1000: 368}
    assert {steps: len(LinearPro(steps)()) for steps in lengths} == lengths
    assert (len(CosinePro(25)()), len(CosinePro(50)())) == (17, 34)
    signs = set()
    for steps in (*range(2, 40), 273, 500):
        betas = LinearPro(steps)()
        assert ((betas > 0) & (betas < 1)).all()
        process = Resfusion(LinearPro(steps))
        a = process.coefficients(torch.tensor(process.T, dtype=torch.float64)).a
        assert abs(a) < 0.021
        signs.add(float(a.sign()))
    assert signs == {-1.0, 0.0, 1.0}
    with pytest.raises(ValueError, match="2 steps or more"):
        LinearPro(1)


def test_resnoise_weight_is_the_published_one() -> None:
    process = Resfusion(LinearPro(273))
    betas = process.schedule()
    t = torch.arange(1, len(betas) + 1, dtype=torch.float64)
    s = (-torch.expm1(log_cumulative_alpha(betas)[1:])).sqrt()
    torch.testing.assert_close(process.resnoise_weight(t), (1 - (1 - betas).sqrt()) * s / betas, rtol=1e-9, atol=0)


def test_increments_sum_to_one() -> None:
    for increments in (PowerIncrements(0.3), PowerIncrements(0.0), PowerIncrements(2.0, True), NormalIncrements()):
        torch.testing.assert_close(increments(100).sum(), torch.ones((), dtype=torch.float64))
        end = RDDM(100, residual=increments, noise=increments, sum_scale=0.01).coefficients(
            torch.tensor(100.0).double()
        )
        torch.testing.assert_close(torch.stack(end[:3]), torch.tensor([0.0, 1.0, 0.1], dtype=torch.float64))


def test_converted_rddm_is_ddpm_where_y_is_zero() -> None:
    """Same marginals, and the same deterministic step (section 4.3 of RDDM)."""
    converted = RDDM(1000, ConvertedIncrements("residual"), ConvertedIncrements("noise"))
    nodes = torch.arange(1001, dtype=torch.float64)
    ours, ddpm = converted.coefficients(nodes), DDPM().coefficients(nodes)
    torch.testing.assert_close(ours.a, ddpm.a, rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(ours.s, ddpm.s, rtol=1e-12, atol=0)
    for name in ("x", "x0"):
        one = getattr(converted.step_weights(700.0, 300.0, 0.0), name)
        torch.testing.assert_close(one, getattr(DDPM().step_weights(700.0, 300.0, 0.0), name), rtol=1e-10, atol=0)
    with pytest.raises(ValueError, match="cannot be converted to 10 steps"):
        RDDM(10, ConvertedIncrements()).coefficients(nodes)


@pytest.mark.parametrize("name", ["residual", "noise"])
def test_increments_are_components(name: str) -> None:
    process = RDDM(steps=20, **{name: PowerIncrements(0.3, True)})  # type: ignore[arg-type]  # one of the two
    assert build(describe(process), Process) == process
