"""The samples that residual shifting gives with the published samplers and a network of one formula."""

from collections.abc import Callable

import torch
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor, nn

from ornstein.denoiser import Denoiser
from ornstein.process.residual_shift import ResidualShift
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.time_grids import UserGrid
from ornstein.wrapped_parameterizations import ScaledInput


class Analytic(nn.Module):
    """The network of the reference vectors."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return 0.9 * torch.tanh(0.8 * x + 0.5 * y) + 0.01 * t.reshape(-1, 1, 1, 1)


def replay(draws: Tensor) -> Callable[[Tensor], Tensor]:
    remaining = iter(draws)
    return lambda like: next(remaining)


@reference_files(
    "infrared",
    "trajectory_*.npz",
    needs=["y", "noise", "ancestral_samples", "ancestral_x0", "ddim_samples", "one_step"],
)
def test_published_trajectories(vectors: ReferenceFile) -> None:
    y, noise = vectors.tensor("y"), vectors.tensor("noise")
    process = ResidualShift()
    denoiser = Denoiser(Analytic(), process, ScaledInput())
    start = process.start(noise[0], y)
    steps = process.levels
    close = {"rtol": 1e-4, "atol": 1e-4}

    states = torch.stack(list(Ancestral(steps).trajectory(denoiser, start, y, replay(noise[1:]))))
    torch.testing.assert_close(states, vectors.tensor("ancestral_samples"), **close)
    before = [start, *states[:-1]]
    estimates = [denoiser(x, float(steps - i), y).x0 for i, x in enumerate(before)]
    torch.testing.assert_close(torch.stack(estimates), vectors.tensor("ancestral_x0"), **close)

    states = torch.stack(list(Ancestral(steps, eta=0.0).trajectory(denoiser, start, y)))
    torch.testing.assert_close(states, vectors.tensor("ddim_samples"), **close)

    one = Ancestral(1, UserGrid((15.0, 0.0)), eta=0.0)(denoiser, start, y)
    torch.testing.assert_close(one, vectors.tensor("one_step"), **close)
