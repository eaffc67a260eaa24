"""Residual shifting on some of its levels, and where its schedule begins."""

import pytest
import torch

from ornstein.denoiser import Denoiser
from ornstein.parameterization import X0
from ornstein.process.residual_shift import JOURNAL4, First, ResidualShift
from ornstein.process.respaced_shift import RespacedShift
from ornstein.samplers.ancestral import Ancestral


class Told(torch.nn.Module):
    """A network that keeps the indices that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.indices: list[float] = []

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.indices.append(t[0].item())
        return 0.5 * torch.tanh(x + y) + 0.01 * t.reshape(-1, 1, 1, 1)


@pytest.mark.parametrize(
    ("kept", "indices", "from_the_end"),
    [
        (5, (0, 3, 6, 9, 12), (2, 5, 8, 11, 14)),
        (4, (0, 3, 7, 11), (3, 7, 11, 14)),
        (1, (0,), (14,)),
        (15, tuple(range(15)), tuple(range(15))),
    ],
)
def test_kept_levels(kept: int, indices: tuple[int, ...], from_the_end: tuple[int, ...]) -> None:
    whole = ResidualShift()
    for process, expected in (
        (RespacedShift(kept=kept), indices),
        (RespacedShift(kept=kept, end_aligned=True), from_the_end),
    ):
        nodes = torch.arange(1, kept + 1, dtype=torch.float64)
        own = torch.tensor(expected, dtype=torch.float64)
        assert process.indices == expected
        assert kept == process.T
        assert torch.equal(process.network_time(nodes), own)
        torch.testing.assert_close(process.coefficients(nodes).b, whole.coefficients(own + 1).b, rtol=1e-14, atol=0)


def test_only_the_published_spacing_starts_with_less_noise() -> None:
    z, y = torch.randn(1, 1, 4, 4).double(), torch.zeros(1, 1, 4, 4).double()
    whole = ResidualShift()
    torch.testing.assert_close(RespacedShift(end_aligned=True).start(z, y), whole.start(z, y))
    less = whole.coefficients(torch.tensor(13.0)).s
    torch.testing.assert_close(RespacedShift().start(z, y), less * z)
    assert less < whole.coefficients(torch.tensor(15.0)).s


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_aligned_with_the_end_it_samples_as_fewer_steps_do_on_all_levels(eta: float) -> None:
    z, y = torch.randn(1, 1, 4, 4).double(), torch.randn(1, 1, 4, 4).double()
    draws = torch.randn(5, 1, 1, 4, 4).double()
    results, told = [], []
    for process in (ResidualShift(), RespacedShift(end_aligned=True)):
        network, noises = Told(), iter(draws)
        sampler = Ancestral(5, eta=eta)
        denoiser = Denoiser(network, process, X0())
        results.append(sampler(denoiser, process.start(z, y), y, lambda like, noises=noises: next(noises)))
        told.append(network.indices)
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
    assert told == [[14, 11, 8, 5, 2]] * 2


@pytest.mark.parametrize(
    ("first", "root"),
    [("min_noise/kappa", 0.1), ("min_noise", 0.2), ("sqrt(0.001)", 0.001**0.5), ("smallest", 0.001**0.5)],
)
def test_first_level(first: First, root: float) -> None:
    process = ResidualShift(steps=4, min_noise=0.2, first=first)
    eta = process.coefficients(torch.tensor([1.0, 4.0]).double()).b
    torch.testing.assert_close(eta, torch.tensor([root**2, 0.99**2], dtype=torch.float64), rtol=1e-12, atol=0)
    assert (process == JOURNAL4) == (first == "smallest")
