"""The denoising objective: its minimum is the exact denoiser, its parts do what they say."""

from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from torch import Tensor

from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser
from ornstein.denoiser import DenoiserLike
from ornstein.estimate import Estimate, estimate_from_x0
from ornstein.objectives.denoising import DenoisingObjective, squared_magnitude
from ornstein.objectives.time_sampling import LogNormalTimes, UniformTimes
from ornstein.objectives.weighting import EDMWeighting, NoiseVariance
from ornstein.process.affine import Process
from ornstein.process.edm import EDM
from ornstein.process.ouve import OUVE

MIXTURE = GaussianMixture(
    torch.tensor([0.5, 0.5], dtype=torch.float64),
    torch.tensor([[-1.0], [1.0]], dtype=torch.float64),
    torch.full((2, 1, 1), 0.1, dtype=torch.float64),
)


@dataclass(frozen=True)
class Biased:
    """The exact denoiser with its x0 scaled."""

    exact: MixtureDenoiser
    gain: float

    @property
    def process(self) -> Process:
        return self.exact.process

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        found = self.exact(x, t, y)
        return estimate_from_x0(self.process, x, found.t, self.gain * found.x0, y)


def loss(objective: DenoisingObjective, denoiser: DenoiserLike) -> float:
    generator = torch.Generator().manual_seed(0)
    x0 = MIXTURE.sample(20_000, generator)
    return float(objective(denoiser, x0, torch.full_like(x0, 0.3), generator=generator)["loss"])


@pytest.mark.parametrize("compare", ["x0", "noise", "mean", "velocity"])
def test_the_exact_denoiser_is_the_minimum(compare: Literal["x0", "noise", "mean", "velocity"]) -> None:
    objective = DenoisingObjective(compare=compare, time_sampling=UniformTimes(t_min=0.1))
    exact = MixtureDenoiser(MIXTURE, OUVE())
    least = loss(objective, exact)
    assert least < min(loss(objective, Biased(exact, 0.9)), loss(objective, Biased(exact, 1.1)))


@pytest.mark.parametrize(("reduction", "expected"), [("mean", 3.0), ("half_mean", 1.5), ("half_sum", 3.0)])
def test_absolute_error(reduction: Literal["mean", "half_mean", "half_sum"], expected: float) -> None:
    """|3 + 4i| = 5 and |1| = 1: the `mae` of the 2022 models drops the square."""
    x = torch.zeros(1, 2, dtype=torch.complex128)
    wrong = torch.tensor([[3 + 4j, 1]], dtype=torch.complex128)
    t = torch.tensor([0.5], dtype=torch.float64)
    estimate, truth = Estimate(OUVE(), x, t, x, wrong, x), Estimate(OUVE(), x, t, x, 0 * wrong, x)
    objective = DenoisingObjective(compare="noise", reduction=reduction, error="absolute")
    assert float(objective.compare_with(estimate, truth)) == pytest.approx(expected)


def test_draws_depend_on_the_generator_only() -> None:
    objective, exact = DenoisingObjective(), MixtureDenoiser(MIXTURE, OUVE())
    torch.manual_seed(1)
    first = loss(objective, exact)
    torch.manual_seed(2)
    assert loss(objective, exact) == first


def test_time_sampling() -> None:
    generator = torch.Generator().manual_seed(0)
    t = UniformTimes(0.03)(OUVE(), 10_000, generator)
    assert t.min() >= 0.03
    assert t.max() <= 1
    assert abs(t.mean() - 0.515) < 0.01
    sigma = LogNormalTimes(-1.2, 1.2)(EDM(), 10_000, generator)
    assert abs(sigma.log().mean() + 1.2) < 0.05
    assert abs(sigma.log().std() - 1.2) < 0.05


def test_weights() -> None:
    t = torch.tensor([0.2, 0.5], dtype=torch.float64)
    torch.testing.assert_close(NoiseVariance()(EDM(), t), t**2)
    torch.testing.assert_close(EDMWeighting(0.5)(EDM(), t), (t**2 + 0.25) / (t * 0.5) ** 2)


def test_squared_magnitude_is_real() -> None:
    z = torch.tensor([3 + 4j])
    torch.testing.assert_close(squared_magnitude(z), torch.tensor([25.0]))
    torch.testing.assert_close(squared_magnitude(torch.tensor([-2.0])), torch.tensor([4.0]))
