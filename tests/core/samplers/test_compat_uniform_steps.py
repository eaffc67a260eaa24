"""The step rule of 2022 and 2023 against closed forms."""

import torch
from torch import Tensor

from ornstein.estimate import Estimate
from ornstein.noise import SampleNoise
from ornstein.parameterization import Score
from ornstein.process.affine import Process
from ornstein.process.ouve import OUVE
from ornstein.samplers.compat_uniform_steps import PublishedUniformSteps
from ornstein.samplers.predictor_corrector import AnnealedLangevin, PredictorCorrector
from ornstein.samplers.time_grids import UniformGrid


class LinearScore:
    """score = -gain (x - y)."""

    def __init__(self, process: Process, gain: float) -> None:
        self.process, self.gain = process, gain
        self.times: list[float] = []

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        assert y is not None
        self.times.append(float(t))
        return Score().estimate(self.process, -self.gain * (x - y), x, torch.as_tensor(t), y)


def grid(end: float) -> UniformGrid:
    return UniformGrid(end=end, to_zero=True)


def test_every_step_moves_by_one_nth() -> None:
    """x - y is multiplied by 1 + dt (theta - g(t)^2 gain) with dt = 1/N at t = linspace(1, t_eps, N)."""
    process, n, gain = OUVE(1.5, 0.05, 0.5), 7, 0.8
    x, y = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = LinearScore(process, gain)
    result = PublishedUniformSteps(n, grid(0.03), corrector=None)(model, x, y, torch.zeros_like)
    times = torch.linspace(1, 0.03, n, dtype=torch.float64)
    torch.testing.assert_close(torch.tensor(model.times, dtype=torch.float64), times)
    g2 = (0.05 * 10**times) ** 2 * 2 * torch.tensor(10.0, dtype=torch.float64).log()
    torch.testing.assert_close(result, y + (x - y) * (1 + (1.5 - g2 * gain) / n).prod())


def test_without_a_score_it_is_compound_interest() -> None:
    n, y = 30, torch.zeros(1, 2, dtype=torch.float64)
    x = torch.ones_like(y)
    sampler = PublishedUniformSteps(n, corrector=None, noise_scale=0.0)
    torch.testing.assert_close(sampler(LinearScore(OUVE(theta=2.0), 0.0), x, y), x * (1 + 2.0 / n) ** n)


def test_noise_has_the_same_step() -> None:
    """Without drift and score N - 1 draws of variance g^2/N are added, the last step draws none."""
    process, n = OUVE(theta=1e-12), 5
    x = torch.zeros(4000, 1, dtype=torch.float64)
    sampler = PublishedUniformSteps(n, grid(0.1), corrector=None)
    result = sampler(LinearScore(process, 0.0), x, x, SampleNoise(range(4000)))
    g2 = process.diffusion_squared(torch.linspace(1, 0.1, n, dtype=torch.float64)[:-1])
    assert abs(float(result.var() / (g2.sum() / n)) - 1) < 0.1


def test_it_is_today_s_sampler_where_the_times_are_a_step_apart() -> None:
    x, y = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    model = LinearScore(OUVE(), 0.5)
    old, new = PublishedUniformSteps(4, grid(0.25)), PredictorCorrector(4, grid(0.25))
    assert torch.equal(*(sampler(model, x, y, SampleNoise([1, 2, 3])) for sampler in (old, new)))
    assert old.evaluations(OUVE()) == 8
    far = PublishedUniformSteps(4, grid(0.03), AnnealedLangevin())
    assert not torch.allclose(far(model, x, y, SampleNoise([1, 2, 3])), new(model, x, y, SampleNoise([1, 2, 3])))
