"""A conditional mixture on a continuous process."""

import torch
from torch import Tensor

from ornstein.analysis.mixture import GaussianMixture
from ornstein.process.vp import VP
from ornstein.samplers.time_grids import LogSNRGrid, TimeGrid
from tests.core.discrete import OneComponent

F64 = torch.float64


def conditional_mixture() -> tuple[OneComponent, TimeGrid]:
    """Three well separated components in two dimensions, weights 0.88, 0.09 and 0.03."""
    weights = torch.tensor([0.88, 0.09, 0.03], dtype=F64)
    means = torch.tensor([[-1.5, -1.0], [1.0, -1.5], [1.2, 1.6]], dtype=F64)
    covariances = torch.stack([0.15 * torch.eye(2, dtype=F64)] * 3)
    return OneComponent(GaussianMixture(weights, means, covariances), VP()), LogSNRGrid(end=1e-3, to_zero=True)


def start(count: int) -> Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(3), dtype=F64)
