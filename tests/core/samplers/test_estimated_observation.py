"""Solvers where the denoiser estimates the observation too: the flow of a joint mixture of x0 and y, y unseen."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import pytest
import torch
from benchmarks.solver_table import SOLVERS
from torch import Tensor
from torchdiffeq import odeint

from ornstein.analysis.class_mixture import ClassMixture, ClassMixtureDenoiser
from ornstein.analysis.examples import MIXTURE, PROCESSES, Y
from ornstein.analysis.mixture import GaussianMixture
from ornstein.estimate import Estimate
from ornstein.guidance.classifier_free import ClassifierFreeGuidance
from ornstein.parameterization import TwoOutput
from ornstein.process.affine import Process, as_time
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler, SamplingError
from ornstein.samplers.churn import ChurnedHeun
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.flow_matching import VelocityFlow
from ornstein.samplers.ode_solvers import Euler, Heun
from ornstein.samplers.predictor_corrector import PredictorCorrector
from ornstein.samplers.time_grids import UniformGrid, UserGrid

WEIGHTS = torch.tensor([0.35, 0.65], dtype=torch.float64)
MEANS = torch.tensor([[-0.8, 0.9], [0.7, -0.2]], dtype=torch.float64)
COVARIANCES = torch.tensor([[[0.10, 0.04], [0.04, 0.5]], [[0.20, -0.08], [-0.08, 0.3]]], dtype=torch.float64)
"""Of (x0, y), one value each."""


@dataclass(frozen=True)
class Joint:
    """E[x0 | x], E[y | x] and E[z | x] of values x = a x0 + b y + s z, through the two outputs of RDDM."""

    process: Process

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        assert y is None
        a, b, s, _ = self.process.coefficients(as_time(t))
        row = torch.stack([a, b])
        shared = COVARIANCES @ row  # cov((x0, y), x) of each component
        variance = shared @ row + s**2
        off = x[..., None] - MEANS @ row
        log_likelihood = -(off**2) / variance / 2 - variance.log() / 2
        share = (WEIGHTS.log() + log_likelihood).softmax(-1)
        both = torch.einsum("...k,...ki->...i", share, MEANS + (off / variance)[..., None] * shared)
        noise = (share * off / variance).sum(-1) * s
        output = torch.cat([both[..., 1] - both[..., 0], noise], dim=1)
        return TwoOutput().estimate(self.process, output, x, as_time(t), y)


OBSERVED = ["OUVE", "OUVP", "BBED", "bridge", "ResShift", "RDDM", "Resfusion", "interpolant", "trig. interpolant"]
INSIDE = (0.85, 0.3)
"""Shares of T, where a > 0 and s > 0."""


def states(process: Process, t: Tensor, count: int = 12) -> Tensor:
    """Draws of x_t, (count, 1)."""
    generator = torch.Generator().manual_seed(0)
    both = GaussianMixture(WEIGHTS, MEANS, COVARIANCES).sample(count, generator)
    z = torch.randn(count, 1, generator=generator, dtype=torch.float64)
    return process.sample(both[:, :1], t, z, both[:, 1:])


def moments(process: Process, t: float) -> tuple[Tensor, Tensor]:
    """Mean and variance of x_t."""
    mixture = GaussianMixture(WEIGHTS, MEANS, COVARIANCES)
    a, b, s, _ = process.coefficients(as_time(t))
    row = torch.stack([a, b])
    return row @ mixture.mean(), row @ mixture.covariance() @ row + s**2


@lru_cache
def exact(name: str) -> tuple[Tensor, Tensor]:
    """States at the first time and where the velocity takes them at the last, by an adaptive solver."""
    process = PROCESSES[name]
    times = process.T * torch.tensor(INSIDE, dtype=torch.float64)
    x = states(process, times[0])
    denoiser = Joint(process)
    end = odeint(lambda t, x: denoiser(x, t).velocity, x, times, rtol=1e-10, atol=1e-10, method="dopri5")[-1]
    return x, end


def order(name: str, solver: Sampler, steps: tuple[int, int] = (40, 80)) -> float:
    process, (x, end) = PROCESSES[name], exact(name)
    errors = []
    for n in steps:
        times = torch.linspace(*INSIDE, n + 1, dtype=torch.float64) * process.T
        method = replace(solver, steps=n, grid=UserGrid(tuple(times.tolist())))
        errors.append(float((method(Joint(process), x) - end).square().mean().sqrt()))
    return math.log2(errors[0] / errors[1])


def test_the_joint_denoiser_is_exact() -> None:
    """x = a x0 + b y + s noise, and -noise/s is the gradient of the log density."""
    process = PROCESSES["OUVE"]
    x, t = states(process, torch.tensor(0.5)).requires_grad_(), torch.tensor(0.5, dtype=torch.float64)
    estimate = Joint(process)(x, t)
    a, b, s, _ = process.coefficients(t)
    torch.testing.assert_close(a * estimate.x0 + b * estimate.y + s * estimate.noise, x)
    row = torch.stack([a, b])
    marginal = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(WEIGHTS),
        torch.distributions.Normal(MEANS @ row, ((COVARIANCES @ row) @ row + s**2).sqrt()),
    )
    (score,) = torch.autograd.grad(marginal.log_prob(x).sum(), x)
    torch.testing.assert_close(estimate.score, score)


SECOND = [name for name, (_, own, _) in SOLVERS.items() if own >= 2]


@pytest.mark.parametrize("name", OBSERVED)
@pytest.mark.parametrize("solver", ["Euler (DDIM)", "Heun", "DPM-Solver++ 2M", "EVODiff"])
def test_order_on_every_process_with_an_observation(solver: str, name: str) -> None:
    method, expected, _ = SOLVERS[solver]
    assert order(name, method) == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize("solver", SECOND)
def test_second_order_of_every_solver_that_has_it(solver: str) -> None:
    assert order("trig. interpolant", SOLVERS[solver][0]) > 1.7


@pytest.mark.parametrize(
    "sampler",
    [
        Euler(),
        Heun(),
        DPMSolverPP(),
        VelocityFlow(method="heun"),
        Ancestral(),
        DPMSolverPP(eta=1.0),
        PredictorCorrector(),
    ],
    ids=repr,
)
def test_the_law_of_the_end(sampler: Sampler) -> None:
    """From draws of the interpolant's base, or of x_t close to it where rates have to be finite, to x near the data."""
    process, count = PROCESSES["interpolant"], 4000
    start = 0.99 if isinstance(sampler, (VelocityFlow, PredictorCorrector)) else process.T
    method = replace(sampler, steps=80, grid=UniformGrid(start=start, end=0.01))
    x = states(process, as_time(start), count)
    generator = torch.Generator().manual_seed(1)
    end = method(Joint(process), x, None, lambda like: torch.randn(like.shape, generator=generator).to(like))
    mean, variance = moments(process, 0.01)
    assert abs(float(end.mean() - mean)) < 0.05
    assert abs(float(end.var() - variance)) < 0.05


def test_churn_says_that_it_needs_the_observation() -> None:
    process = PROCESSES["interpolant"]
    with pytest.raises(SamplingError, match="give it the observation"):
        ChurnedHeun(4, UniformGrid(start=0.9, end=0.1))(
            Joint(process), torch.zeros(2, 1).double(), None, torch.ones_like
        )


def test_guidance_does_not_make_a_given_observation_an_estimated_one() -> None:
    """Else every solver would carry it along."""
    classes = ClassMixture(MIXTURE, torch.tensor([0, 1]))
    none = torch.tensor(-1)
    guided = ClassifierFreeGuidance(ClassMixtureDenoiser(classes, PROCESSES["OUVE"]), 2.0, {"label": none})
    x, y = torch.zeros(3, 2, dtype=torch.float64), Y.expand(3, 2)
    assert guided(x, 0.5, y, label=torch.zeros(3)).y is y
