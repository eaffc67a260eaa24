"""Solvers on a process with coefficients of its own for every value (Shortest Path Diffusion)."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from benchmarks.sampling_overhead import SAMPLERS
from torch import Tensor
from torchdiffeq import odeint

from ornstein.analysis.examples import MIXTURE
from ornstein.analysis.mixture import MixtureDenoiser
from ornstein.noise import SampleNoise
from ornstein.process.shortest_path import ShortestPath
from ornstein.samplers.dpm_multistep import DPMSolver
from ornstein.samplers.ode_solvers import Euler
from ornstein.samplers.time_grids import UserGrid

PROCESS = ShortestPath(height=1, width=2, scale=0.5, steps=200)
DENOISER = MixtureDenoiser(MIXTURE, PROCESS)
FIRST, LAST = 199.0, 40.0
FLOW = {
    name: sampler
    for name, sampler in {**SAMPLERS, "DPM-Solver-3": DPMSolver(order=3)}.items()
    if not any(part in name for part in ("ancestral", "SDE", "churn", "predictor"))
}
STOCHASTIC = {name: SAMPLERS[name] for name in SAMPLERS if name not in FLOW}


def grid(steps: int, last: float) -> UserGrid:
    """Equal steps in sqrt(t)."""
    return UserGrid(tuple((torch.linspace(FIRST**0.5, last**0.5, steps + 1, dtype=torch.float64) ** 2).tolist()))


@cache
def start() -> Tensor:
    x0 = MIXTURE.sample(8, torch.Generator().manual_seed(0)).reshape(8, 1, 1, 2)
    z = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return PROCESS.sample(x0, FIRST, z)


@cache
def exact_end() -> Tensor:
    """Where the probability flow takes the start, by an adaptive solver in time."""
    times = torch.tensor([FIRST, LAST], dtype=torch.float64)
    return odeint(lambda t, x: DENOISER(x, t).velocity, start(), times, rtol=1e-9, atol=1e-9, method="dopri8")[-1]


def test_the_two_values_have_coefficients_of_their_own() -> None:
    a, _, s, _ = PROCESS.coefficients(torch.tensor(100.0, dtype=torch.float64))
    assert a.shape == s.shape == (1, 1, 1, 2)
    assert abs(float((a / s).flatten().diff())) > 0.1


@pytest.mark.parametrize("name", FLOW)
def test_solvers_of_the_flow_converge(name: str) -> None:
    errors = []
    for steps in (15, 60):
        found = replace(FLOW[name], steps=steps, grid=grid(steps, LAST))(DENOISER, start())
        errors.append(float((found - exact_end()).square().mean().sqrt()))
    assert errors[1] < min(errors[0] / 2.5, 0.03), errors
    if name not in ("DDIM", "Euler", "EVODiff"):  # of first order
        plain = replace(Euler(), steps=60, grid=grid(60, LAST))(DENOISER, start())
        assert errors[1] < float((plain - exact_end()).square().mean().sqrt()) / 2


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_samplers_end_at_the_data(name: str) -> None:
    x = torch.randn(1500, 1, 1, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    end = grid(60, 1.0)
    found = replace(STOCHASTIC[name], steps=60, grid=end)(DENOISER, x, None, OneStream([3])).flatten(1)
    assert (found.mean(0) - MIXTURE.mean()).abs().max() < 0.1
    assert (found.T.cov() - MIXTURE.covariance()).abs().max() < 0.1


class OneStream(SampleNoise):
    """One stream for all rows, which are draws of one law."""

    def __call__(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generators[0], dtype=like.dtype)
