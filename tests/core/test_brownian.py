"""Brownian paths: their law, refinement, and the strong order of stochastic samplers on them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ornstein.analysis.examples import MIXTURE, PROCESSES, Y
from ornstein.analysis.mixture import MixtureDenoiser
from ornstein.analysis.solvers import measured_order
from ornstein.brownian import BrownianPath, memory_clock
from ornstein.errors import UserError
from ornstein.noise import SampleNoise
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.predictor_corrector import PredictorCorrector
from ornstein.samplers.time_grids import UniformGrid, UserGrid

F64 = torch.float64


def test_increments_add_up_when_the_grid_is_refined() -> None:
    path, like = BrownianPath([0, 1, 2]), torch.empty(3, 5, dtype=F64)
    coarse = path.noise([0.5, 2.0, 3.0])
    over = [coarse(like) * 1.5**0.5, coarse(like)]
    fine = path.noise([0.5, 1.0, 1.75, 2.0, 2.25, 3.0])
    parts = [fine(like) * length**0.5 for length in (0.5, 0.75, 0.25, 0.25, 0.75)]
    torch.testing.assert_close(parts[0] + parts[1] + parts[2], over[0])
    torch.testing.assert_close(parts[3] + parts[4], over[1])


@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_the_covariance_of_a_path_is_the_smaller_clock(dtype: torch.dtype) -> None:
    """Whatever the order of the questions."""
    path, like = BrownianPath([7]), torch.empty(1, 40_000, dtype=dtype)
    clocks = [3.0, 1.0, 0.25, 2.0, 4.0, 0.5]
    values = torch.stack([path.at(clock, like)[0] for clock in clocks])
    found = (values @ values.mH).real / values.shape[1]
    expected = torch.minimum(torch.tensor(clocks)[:, None], torch.tensor(clocks)).to(F64)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.08)


def test_a_sample_has_its_own_path() -> None:
    like = torch.empty(3, 2, dtype=torch.float32)
    together = BrownianPath([4, 5, 6]).noise([0.0, 1.0])(like)
    assert together.dtype == torch.float32
    assert torch.equal(BrownianPath([5]).noise([0.0, 1.0])(like[:1]), together[1:2])


def test_bad_clocks_are_refused() -> None:
    like = torch.empty(1, 2)
    for clock in (-1.0, float("inf"), float("nan")):
        with pytest.raises(UserError, match="clocks from 0 on"):
            BrownianPath([0]).at(clock, like)
    noise = BrownianPath([0]).noise([0.0, 1.0])
    noise(like)
    with pytest.raises(UserError, match="more draws than the 1 steps"):
        noise(like)


@pytest.mark.parametrize("name", ["VP", "OUVE", "RDDM", "bridge"])
def test_the_clock_of_the_memory_makes_two_steps_one(name: str) -> None:
    """With x0 known, two posterior steps on a path are one step over both."""
    process = PROCESSES[name]
    times = torch.tensor([0.9, 0.5, 0.2], dtype=F64) * process.T
    clocks, y = memory_clock(process, times), Y.expand(64, 2)
    x0, z = (SampleNoise(range(i, 64 + i))(y) for i in (0, 64))
    x, path = process.sample(x0, times[0], z, y), BrownianPath(range(64))
    first, both = path.noise(clocks), path.noise(clocks[::2])
    middle = process.step(x, times[0], times[1], x0, y, first(x), eta=1.0)
    twice = process.step(middle, times[1], times[2], x0, y, first(x), eta=1.0)
    torch.testing.assert_close(twice, process.step(x, times[0], times[2], x0, y, both(x), eta=1.0))


SAMPLERS: list[tuple[str, Sampler]] = [
    ("VP", Ancestral()),
    ("OUVE", Ancestral()),
    ("VP", DPMSolverPP(order=1, eta=1.0)),
    ("VP", DPMSolverPP(eta=1.0)),
    ("VP", PredictorCorrector(corrector=None)),
    ("OUVE", PredictorCorrector(corrector=None)),
]


def strong_errors(name: str, sampler: Sampler, steps: tuple[int, ...], one_path: bool) -> list[float]:
    """Median distance to the run with eight times the steps of the last, on one path or on fresh ones."""
    process = PROCESSES[name]
    denoiser = MixtureDenoiser(MIXTURE, process)
    start, end = 0.8, 0.2
    y = Y.expand(192, 2)
    x0, z = (SampleNoise(range(i, 192 + i))(y) for i in (0, 192))
    x, path = process.sample(x0, start, z, y), BrownianPath(range(1000, 1192))

    def run(n: int) -> Tensor:
        method = replace(sampler, steps=n, grid=UniformGrid(start, end))
        last = isinstance(method, PredictorCorrector)
        if last:  # its last step has no noise, so it is taken from the state before
            times = method.times(process)
            method = replace(method, steps=n + 1, grid=UserGrid((*times.tolist(), end / 2)))
        times = method.times(process)
        clocks = (process.T - times).tolist() if last else memory_clock(process, times)
        used = path if one_path else BrownianPath(range(n * 1000, n * 1000 + 192))
        states = list(method.trajectory(denoiser, x, y, used.noise(clocks)))
        return states[n - 1]

    exact = run(8 * steps[-1])
    return [float((run(n) - exact).norm(dim=1).median()) for n in steps]


@pytest.mark.parametrize(("name", "sampler"), SAMPLERS, ids=repr)
def test_strong_order(name: str, sampler: Sampler) -> None:
    """Of order 1, as Euler-Maruyama with additive noise; fresh noise has none."""
    steps = (16, 64)
    errors = strong_errors(name, sampler, steps, one_path=True)
    assert measured_order(errors, steps) == pytest.approx(1.0, abs=0.2), errors
    fresh = strong_errors(name, sampler, steps, one_path=False)
    assert abs(measured_order(fresh, steps)) < 0.2
    assert fresh[-1] > 5 * errors[-1]
