import math

import pytest
import torch
from torch import Tensor

from ornstein.analysis.examples import MIXTURE, exact_between
from ornstein.analysis.mixture import MixtureDenoiser
from ornstein.errors import UserError
from ornstein.estimate import Estimate, estimate_from_noise
from ornstein.process.affine import Process
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.ddpm import DDPM
from ornstein.process.edm import EDM
from ornstein.process.ouve import OUVE
from ornstein.process.rddm import RDDM
from ornstein.process.resfusion import LinearPro, Resfusion
from ornstein.process.ve import VE
from ornstein.process.vp import VP
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.time_grids import (
    DiscreteGrid,
    KarrasGrid,
    LogSNRGrid,
    PowerGrid,
    QuadraticGrid,
    ShiftedGrid,
    TimeGrid,
    UniformGrid,
    UserGrid,
)
from ornstein.samplers.unipc import UniPC


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize(
    ("grid", "process"),
    [
        (UniformGrid(), OUVE()),
        (UniformGrid(end=0.03), OUVE()),
        (UniformGrid(end=0.03, to_zero=True), OUVE()),
        (PowerGrid(), SchroedingerBridge()),
        (KarrasGrid(), EDM()),
        (QuadraticGrid(), VP()),
        (ShiftedGrid(), VP()),
        (DiscreteGrid(train_steps=1000), VP()),
        (LogSNRGrid(), VP()),
        (LogSNRGrid(to_zero=True), VP()),
    ],
    ids=repr,
)
def test_a_grid_decreases_from_start_to_end(grid: TimeGrid, process: Process, steps: int) -> None:
    times = grid(process, steps)
    assert times.shape == (steps + 1,)
    assert times.dtype == torch.float64
    assert (times.diff() < 0).all()
    assert times[0] == pytest.approx(process.T, rel=1e-12)
    assert times[-1] >= 0


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 50])
@pytest.mark.parametrize(
    "grid",
    [
        UniformGrid(),
        UniformGrid(end=0.03, to_zero=True),
        QuadraticGrid(),
        QuadraticGrid(end=None),
        ShiftedGrid(),
        ShiftedGrid(0.2, end=None),
        DiscreteGrid(),
        KarrasGrid(),
        LogSNRGrid(),
        LogSNRGrid(to_zero=True),
    ],
    ids=repr,
)
def test_no_call_below_the_first_level_of_a_table(grid: TimeGrid, steps: int) -> None:
    for process in (DDPM(), RDDM(), Resfusion(LinearPro(273))):
        if isinstance(grid, (KarrasGrid, LogSNRGrid)) and not process.kappa(process.T) > 0:
            continue
        times = grid(process, steps)
        assert times.shape == (steps + 1,)
        assert (times.diff() < 0).all()
        assert times[0] == pytest.approx(process.T, rel=1e-12) or isinstance(grid, KarrasGrid)
        assert (times[:-1] >= 1 - 1e-12).all()
        assert times[-1] == 0 or times[-1] == pytest.approx(1, rel=1e-12) or steps == 1


def test_a_grid_of_karras_ends_where_the_process_does() -> None:
    """VE keeps sigma_min at t = 0: above the grid's, it is where the last step ends; below, the grid's is a node."""
    times = KarrasGrid()(VE(), 18)
    assert times.shape == (19,)
    assert (times.diff() < 0).all()
    assert times[-1] == 0
    inside = KarrasGrid(sigma_min=0.02)(VE(), 18)
    assert VE().kappa(inside[-2]) == pytest.approx(50)
    assert inside[-1] == 0


class TrainedOnLevels:
    """A noise network of 1000 indices: below the first it answers as there."""

    process = DDPM()

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        t = torch.as_tensor(t, dtype=torch.float64)
        noise = MixtureDenoiser(MIXTURE, self.process)(x, t.clamp(min=1.0)).noise
        return estimate_from_noise(self.process, x, t, noise)


def test_what_the_first_level_gains() -> None:
    """DPM-Solver++ 2M on a noise network of 1000 indices: against the same grid down to t = 0.001."""
    process = DDPM()
    kappa = float(process.kappa(process.T))
    w, exact = exact_between(kappa, 100.0)
    x = process.coefficients(torch.tensor(process.T, dtype=torch.float64)).s * w

    def error(steps: int, grid: TimeGrid) -> float:
        return float((DPMSolverPP(steps, grid)(TrainedOnLevels(), x) - exact / 100).square().mean().sqrt())

    for steps in (10, 20):
        lam = torch.linspace(math.log(kappa), float(process.lambda_at(1e-3)), steps, dtype=torch.float64)
        below = process.time_at_lambda(lam).clamp(max=process.T)
        assert int((below < 1).sum()) >= 2
        gained = error(steps, LogSNRGrid(to_zero=True))
        assert gained < 0.6 * error(steps, UserGrid((*below.tolist(), 0.0)))


def test_the_published_grid_of_sgmse() -> None:
    torch.testing.assert_close(
        UniformGrid(end=0.03, to_zero=True)(OUVE(), 4),
        torch.tensor([1, 1 - 0.97 / 3, 1 - 2 * 0.97 / 3, 0.03, 0]).double(),
    )


def test_karras_nodes() -> None:
    """Equation 5 of Karras et al. 2022 at its middle node: ((80^(1/7) + .002^(1/7))/2)^7."""
    sigma = KarrasGrid()(EDM(), 3)
    middle = ((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7
    torch.testing.assert_close(sigma, torch.tensor([80, middle, 0.002, 0], dtype=torch.float64))


def test_log_snr_nodes_are_equally_spaced() -> None:
    times = LogSNRGrid()(VP(), 10)
    gaps = VP().kappa(times).log().diff()
    torch.testing.assert_close(gaps, gaps[:1].expand(10), rtol=1e-8, atol=0)


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        UniformGrid()(OUVE(), 0)
    with pytest.raises(ValueError, match="not finite"):
        LogSNRGrid()(SchroedingerBridge(), 5)
    with pytest.raises(ValueError, match="4 steps need 5 decreasing times"):
        UserGrid((1.0, 0.5))(OUVE(), 4)


def test_shifted_and_quadratic_nodes() -> None:
    """k t/(1 + (k - 1) t) with k = 3 at t = 1/2 is 3/4; the square root of a quadratic grid is equally spaced."""
    assert ShiftedGrid(shift=3.0)(VP(), 2)[1] == pytest.approx(0.75)
    torch.testing.assert_close(QuadraticGrid()(VP(), 4), torch.tensor([16, 9, 4, 1, 0]).double() / 16)


def test_discrete_spacings() -> None:
    """Indices of ten: time (i + 1)/10, then 0 or the time of index 0."""
    leading = DiscreteGrid("leading", train_steps=10)(VP(), 5)
    torch.testing.assert_close(leading, torch.tensor([9, 7, 5, 3, 1, 0]).double() / 10)
    offset = DiscreteGrid("leading", offset=1, to_zero=False, train_steps=10)(VP(), 5)
    torch.testing.assert_close(offset, torch.tensor([10, 8, 6, 4, 2, 1]).double() / 10)
    trailing = DiscreteGrid("trailing", train_steps=10)(VP(), 5)
    torch.testing.assert_close(trailing, torch.tensor([10, 8, 6, 4, 2, 0]).double() / 10)
    with pytest.raises(ValueError, match="take at most 10"):
        DiscreteGrid(train_steps=10)(VP(), 11)


def test_given_times_that_do_not_decrease_are_named_as_such() -> None:
    with pytest.raises(ValueError, match="do not decrease"):
        UserGrid((1.0, 0.5, 0.5))(VP(), 2)


def test_an_unknown_variant_of_unipc_is_refused() -> None:
    with pytest.raises(UserError, match="bh3"):
        UniPC(variant="bh3")  # type: ignore[arg-type]
