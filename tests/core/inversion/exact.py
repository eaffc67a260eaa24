"""Exact models for the tests: mixtures on every process, and the discrete-time process of the reference vectors."""

from dataclasses import dataclass

import torch
from reference_vectors import ReferenceFile
from torch import Tensor

from ornstein.analysis.class_mixture import ClassMixture
from ornstein.analysis.mixture import GaussianMixture
from ornstein.process.affine import Process
from ornstein.process.edm import EDM
from ornstein.process.ve import VE
from ornstein.process.vp import VariancePreserving
from ornstein.samplers.time_grids import KarrasGrid, TimeGrid, UserGrid

CLASSES = ClassMixture(
    GaussianMixture(
        weights=torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64),
        means=torch.tensor([[-1.0, 0.5], [0.6, -0.4], [0.3, 1.1]], dtype=torch.float64),
        covariances=torch.tensor(
            [[[0.10, 0.03], [0.03, 0.08]], [[0.06, -0.02], [-0.02, 0.12]], [[0.05, 0.0], [0.0, 0.09]]],
            dtype=torch.float64,
        ),
    ),
    classes=torch.tensor([0, 1, 1]),
)


def evenly(process: Process, steps: int, start: float = 1.0) -> TimeGrid:
    """Equal steps from the time `start` T to 0, between the nodes of a table too; in rho on VE and EDM."""
    if isinstance(process, (VE, EDM)):
        return KarrasGrid(sigma_max=20.0 * start)
    return UserGrid(tuple(torch.linspace(start * process.T, 0.0, steps + 1, dtype=torch.float64).tolist()))


@dataclass(frozen=True)
class Discrete(VariancePreserving):
    """a^2 = cumulative product of 1 - beta at t = (i + 1)/N, nothing between the nodes."""

    log_a2: tuple[float, ...]

    def log_a(self, t: Tensor) -> Tensor:
        nodes = torch.tensor([0.0, *self.log_a2], dtype=torch.float64)
        return nodes[(t * len(self.log_a2)).round().long()] / 2

    def a_rate(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def __repr__(self) -> str:
        return "Discrete"


def discrete(vectors: ReferenceFile) -> Discrete:
    """The process of a file that carries `betas`."""
    return Discrete(tuple((1 - vectors.tensor("betas")).log().cumsum(0).tolist()))


def mixture(vectors: ReferenceFile) -> GaussianMixture:
    """The mixture of a file that carries `gmm_w`, `gmm_mean` and `gmm_cov`."""
    return GaussianMixture(*(vectors.tensor(f"gmm_{name}") for name in ("w", "mean", "cov")))


def random(*shape: int, seed: int = 0) -> Tensor:
    """Unit normal numbers, float64."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
