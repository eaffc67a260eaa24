"""Predictive models: a process without noise, one call."""

import torch
from torch import Tensor, nn

from ornstein.config import build, describe
from ornstein.denoiser import Denoiser
from ornstein.objectives.denoising import DenoisingObjective
from ornstein.objectives.time_sampling import UniformTimes
from ornstein.parameterization import OneShot
from ornstein.process.prediction import Prediction
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.ode_solvers import Euler, Heun
from ornstein.samplers.time_grids import UniformGrid, UserGrid


class Half(nn.Module):
    """Half of what it is given; it takes no observation."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.t = t
        return x / 2


def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, y = torch.randn(2, 3, 1, 4, 5, dtype=torch.complex128, generator=generator)
    return x0, y


def test_the_state_runs_straight_from_x0_to_y_without_noise() -> None:
    (x0, y), process = pair(), Prediction()
    torch.testing.assert_close(process.sample(x0, 0.25, torch.ones_like(y), y), 0.75 * x0 + 0.25 * y)
    torch.testing.assert_close(process.start(torch.ones_like(y), y), y)
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    assert (process.diffusion_squared(t) == 0).all()
    torch.testing.assert_close(process.derivatives(t).a, process.coefficients(t).a.diff()[:1].expand(5) / 0.25)


def test_one_step_of_any_sampler_is_the_estimate_of_the_network() -> None:
    (_, y), denoiser = pair(), Denoiser(Half(), Prediction(), OneShot())
    for sampler in (Ancestral(1, eta=0.0), Ancestral(1), Euler(1), Heun(1), DPMSolverPP(1)):
        assert torch.equal(sampler(denoiser, y, y), y / 2)
    assert torch.equal(Ancestral(1, UserGrid((1.0, 0.0)))(denoiser, y, y), y / 2)
    assert torch.equal(Ancestral(1, UniformGrid())(denoiser, y, y), y / 2)


def test_training_is_regression_on_y() -> None:
    (x0, y), denoiser = pair(), Denoiser(Half(), Prediction(), OneShot())
    objective = DenoisingObjective("x0", UniformTimes(1.0, 1.0), reduction="half_sum")
    loss = objective(denoiser, x0, y, generator=torch.Generator())["loss"]
    torch.testing.assert_close(loss, (y / 2 - x0).abs().square().sum() / 2 / len(x0))
    truth = denoiser(y, 1.0, y)
    assert torch.equal(OneShot().target(truth), y / 2)


def test_described_and_built_again() -> None:
    assert build(describe(Prediction()), Prediction) == Prediction()
    assert build(describe(OneShot()), OneShot) == OneShot()
