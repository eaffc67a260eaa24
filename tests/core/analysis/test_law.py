import pytest
import torch

from ornstein.analysis.examples import MIXTURE
from ornstein.analysis.law import SlicedWasserstein
from ornstein.analysis.mixture import GaussianMixture


def test_exact_draws_come_near_as_they_grow_in_number() -> None:
    found = []
    for count in (500, 32_000):
        draws = MIXTURE.sample(count, torch.Generator().manual_seed(0))
        found.append(SlicedWasserstein(MIXTURE, count, 8)(draws))
    assert found[1] < 0.02
    assert found[1] < found[0] / 3


def test_shifted_and_scaled_gaussians() -> None:
    """In one dimension the distance of N(1, 4) to N(0, 1) is sqrt(1 + 1)."""
    one = torch.ones(1, dtype=torch.float64)
    normal = GaussianMixture(one, torch.zeros(1, 1, dtype=torch.float64), one[:, None, None])
    z = torch.special.ndtri((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)[:, None]
    distance = SlicedWasserstein(normal, 4000, 4)
    assert distance(z) == pytest.approx(0, abs=1e-9)
    assert distance(2 * z + 1) == pytest.approx(2**0.5, rel=2e-3)
