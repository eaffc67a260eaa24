"""Optimised noise scores higher, stays noise-like, and belongs to its sample alone."""

import pytest
import torch
from torch import Tensor

from ornstein.analysis.class_mixture import ClassMixtureDenoiser
from ornstein.analysis.examples import BRIDGES, PROCESSES
from ornstein.errors import UserError
from ornstein.estimate import Estimate
from ornstein.inversion.noise_optimization import NoiseOptimization, norm_penalty
from ornstein.noise import SampleNoise
from ornstein.process.affine import Process, as_time
from ornstein.process.edm import EDM
from ornstein.process.ouve import OUVE
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.ode_solvers import Euler
from ornstein.samplers.time_grids import KarrasGrid, TimeGrid, UniformGrid
from tests.core.inversion.exact import CLASSES, random

BRIDGE = PROCESSES["bridge"]


def towards_class_zero(x: Tensor) -> Tensor:
    return -(x - CLASSES.given(0).mean()).square().sum(1)


@pytest.mark.parametrize("name", PROCESSES)
def test_every_process_with_its_draws(name: str) -> None:
    """The sample of the optimised noise is the sampler's own; on a bridge, which starts at y, the draws alone move."""
    process = PROCESSES[name]
    denoiser, y, start = ClassMixtureDenoiser(CLASSES, process), random(4, 2, seed=3), random(4, 2)
    method = NoiseOptimization(Ancestral(4), iterations=8, learning_rate=0.1)
    found = method(denoiser, towards_class_zero, start, y, SampleNoise(range(4)))
    assert found.scores.shape == (9, 4)
    assert (found.scores.max(0).values > found.scores[0]).any()
    assert float(found.scores.max(0).values.mean()) > float(found.scores[0].mean())
    draws = iter(found.draws)
    again = method.sampler(denoiser, process.start(found.start, y), y, lambda like: next(draws))
    torch.testing.assert_close(again, found.sample)
    torch.testing.assert_close(towards_class_zero(found.sample), found.scores.max(0).values)
    assert torch.equal(found.start, start) == (name in BRIDGES)


@pytest.mark.parametrize(
    ("process", "grid"),
    [(EDM(), KarrasGrid(sigma_max=20.0)), (OUVE(), UniformGrid(start=0.5)), (BRIDGE, UniformGrid(start=0.6))],
)
def test_sampling_begins_at_the_first_time_of_the_grid(process: Process, grid: TimeGrid) -> None:
    """The first call sees b y + s z of that time, not of T; a bridge that begins below T starts with noise."""
    exact, states = ClassMixtureDenoiser(CLASSES, process), []

    class Seen:
        process = exact.process

        def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
            states.append((x.detach(), as_time(t)))
            return exact(x, t, y, **condition)

    start, y = random(4, 2), random(4, 2, seed=3)
    found = NoiseOptimization(Euler(3, grid), iterations=2)(Seen(), towards_class_zero, start, y)
    x, t = states[0]
    assert float(t) == float(grid(process, 3)[0]) < process.T
    torch.testing.assert_close(x, process.sample(torch.zeros_like(x), t, start, y))
    assert not torch.equal(found.start, start)


def test_samples_do_not_depend_on_their_batch() -> None:
    denoiser, start = ClassMixtureDenoiser(CLASSES, PROCESSES["VP"]), random(3, 2)
    method = NoiseOptimization(DPMSolverPP(4, UniformGrid(end=0.05)), iterations=4)
    together = method(denoiser, towards_class_zero, start, label=torch.tensor([0, 1, 1]))
    alone = method(denoiser, towards_class_zero, start[1:2], label=torch.tensor([1]))
    torch.testing.assert_close(alone.start, together.start[1:2], rtol=1e-10, atol=1e-10)


def test_the_prior_keeps_the_norm() -> None:
    """An objective that pays for large samples: without the prior the noise grows, with it it stays on the shell."""
    denoiser, start = ClassMixtureDenoiser(CLASSES, PROCESSES["VP"]), random(4, 2, seed=5)

    def size(x: Tensor) -> Tensor:
        return 5 * x.square().sum(1)

    norms = [
        float(NoiseOptimization(Ancestral(4, eta=0.0), 30, 0.1, prior)(denoiser, size, start).start.norm(dim=1).mean())
        for prior in (0.0, 50.0)
    ]
    assert norms[0] > 2 * norms[1]


def test_norm_penalty_is_the_log_density_of_the_norm() -> None:
    z = random(5, 3, 4)
    chi = torch.distributions.Chi2(torch.tensor(12.0, dtype=torch.float64))
    square = z.square().sum((1, 2))
    log_density = chi.log_prob(square) + (2 * square.sqrt()).log()  # of the norm itself
    differences = norm_penalty([z]) + log_density
    torch.testing.assert_close(differences, differences[:1].expand(5))
    least = norm_penalty([torch.full((1, 12), (11 / 12) ** 0.5, dtype=torch.float64)])
    torch.testing.assert_close(least, torch.zeros_like(least))
    complex_noise = torch.complex(z, random(5, 3, 4, seed=1)) / 2**0.5
    both = torch.cat([z, random(5, 3, 4, seed=1)], 1)
    torch.testing.assert_close(norm_penalty([complex_noise]), norm_penalty([both]))


@pytest.mark.parametrize(
    ("name", "sampler", "objective", "message"),
    [
        ("bridge", Ancestral(3, eta=0.0), towards_class_zero, "starts without noise"),
        ("VP", Ancestral(3), towards_class_zero, "is stochastic"),
        ("VP", Ancestral(3, eta=0.0), lambda x: x, "one number a sample"),
        ("VP", Ancestral(3, eta=0.0), lambda x: x.sum(1) / 0, "not finite"),
        ("VP", Ancestral(3, eta=0.0), lambda x: torch.zeros(len(x)), "does not depend on the sample"),
        ("VP", Ancestral(3, eta=0.0), lambda x: x.detach().sum(1), "does not depend on the sample"),
        ("VP", Ancestral(3, eta=0.0), lambda x: torch.zeros(len(x)).requires_grad_(), "does not depend on the sample"),
    ],
)
def test_bad_requests(name: str, sampler: Sampler, objective: object, message: str) -> None:
    denoiser, y = ClassMixtureDenoiser(CLASSES, PROCESSES[name]), random(2, 2)
    with pytest.raises(UserError, match=message):
        NoiseOptimization(sampler, 2)(denoiser, objective, random(2, 2), y)  # type: ignore[arg-type]


def test_options_are_checked() -> None:
    with pytest.raises(UserError, match="iterations >= 1"):
        NoiseOptimization(iterations=0)
