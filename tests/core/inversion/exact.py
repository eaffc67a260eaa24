"""Exact models for the tests: mixtures on every process, and the discrete-time process of the reference vectors."""

from dataclasses import dataclass

import torch
from reference_vectors import ReferenceFile
from torch import Tensor

from ornstein.analysis.class_mixture import ClassMixture
from ornstein.analysis.mixture import GaussianMixture
from ornstein.process.affine import Process
from ornstein.process.bbed import BBED
from ornstein.process.bridge import SchroedingerBridge
from ornstein.process.edm import EDM
from ornstein.process.ouve import OUVE
from ornstein.process.ouvp import OUVP
from ornstein.process.rectified_flow import RectifiedFlow
from ornstein.process.ve import VE
from ornstein.process.vp import VP, CosineVP, VariancePreserving

PROCESSES: dict[str, Process] = {
    "vp": VP(),
    "cosine": CosineVP(),
    "ve": VE(sigma_min=1e-3, sigma_max=20.0),
    "edm": EDM(sigma_max=20.0),
    "rf": RectifiedFlow(),
    "ouve": OUVE(),
    "bridge": SchroedingerBridge(),
    "ouvp": OUVP(beta_min=0.1, beta_max=4.0),
    "bbed": BBED(),
}
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
