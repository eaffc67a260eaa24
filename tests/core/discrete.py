"""What the reference vectors of inference methods share: DDPM's discrete noise levels and the exact mixture on them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from reference_vectors import ReferenceFile
from torch import Tensor

from ornstein.analysis.mixture import GaussianMixture, MixtureDenoiser
from ornstein.process.affine import Coefficients, Process
from ornstein.samplers.time_grids import UserGrid


@dataclass(frozen=True)
class Nodes(Process):
    """VP at the nodes of a table: time 0 is clean, time i + 1 is index i of `cumulative` (N,)."""

    cumulative: tuple[float, ...]

    @property
    def T(self) -> float:  # type: ignore[override]
        return float(len(self.cumulative))

    def coefficients(self, t: Tensor) -> Coefficients:
        table = torch.tensor((1.0, *self.cumulative), dtype=torch.float64)[t.round().long()]
        return Coefficients(table.sqrt(), torch.zeros_like(table), (1 - table).sqrt(), table.sqrt())

    def derivatives(self, t: Tensor) -> Coefficients:
        raise AssertionError("no sampler of these tests needs derivatives")


def nodes(vectors: ReferenceFile) -> Nodes:
    return Nodes(tuple((1 - vectors.tensor("betas")).cumprod(0).tolist()))


def grid(indices: Tensor) -> UserGrid:
    """The times of indices in any order, descending, then clean."""
    return UserGrid((*(float(i) + 1 for i in sorted(indices.tolist(), reverse=True)), 0.0))


def mixture(vectors: ReferenceFile, component: int | None = None) -> GaussianMixture:
    w, mean, cov = (vectors.tensor(f"gmm_{name}") for name in ("w", "mean", "cov"))
    if component is not None:
        w, mean, cov = torch.ones(1, dtype=w.dtype), mean[component, None], cov[component, None]
    return GaussianMixture(w, mean, cov)


class OneComponent:
    """Unconditional: the mixture. Condition `component` (B,) >= 0: that component alone; -1 is none."""

    def __init__(self, whole: GaussianMixture, process: Process) -> None:
        self.process = process
        self.whole = MixtureDenoiser(whole, process)
        self.parts = [
            MixtureDenoiser(
                GaussianMixture(torch.ones(1, dtype=torch.float64), whole.means[k, None], whole.covariances[k, None]),
                process,
            )
            for k in range(len(whole.weights))
        ]

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor):
        from ornstein.estimate import Estimate

        every = [denoiser(x, t, y) for denoiser in [*self.parts, self.whole]]
        index = (condition["component"], torch.arange(len(x)))
        x0, noise = (torch.stack([getattr(e, name) for e in every])[index] for name in ("x0", "noise"))
        return Estimate(self.process, x, every[0].t, x0, noise, y)


def replay(draws: Tensor) -> Callable[[Tensor], Tensor]:
    """A noise source that gives the file's draws in order."""
    remaining = iter(draws)
    return lambda like: next(remaining).reshape(like.shape)
