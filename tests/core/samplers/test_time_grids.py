import pytest
import torch

from ornstein.errors import UserError
from ornstein.process.affine import Process
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.edm import EDM
from ornstein.process.ouve import OUVE
from ornstein.process.vp import VP
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
