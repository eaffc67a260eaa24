"""The published samplers of RDDM, which step with the residual and the noise of the network, each clipped or not."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.noise import Noise
from ornstein.process.affine import Process, combine
from ornstein.samplers.ancestral import require_share
from ornstein.samplers.base import Sampler, SamplingError, drawn
from ornstein.samplers.time_grids import TimeGrid, TruncatedGrid


@dataclass(frozen=True)
class PublishedResidual(Sampler):
    """x_s = x_t - (b_t - b_s) R - (s_t - sqrt(s_s^2 - sigma^2)) noise + sigma z, and x0 itself in the last step (RDDM,
    Liu et al. 2024, arXiv 2308.13712, equation 13, as in its code), with R = y - x0 of the Estimate.

    sigma^2 = eta s_s^2 (1 - s_s^2/s_t^2); published: 0 wherever there is an observation. Where x = a x0 + b y + s noise
    holds, this is `Ancestral` with the square root of this eta; after clipping (`ResidualOutputs`) it is not.
    """

    steps: int = 5
    grid: TimeGrid = TruncatedGrid()
    eta: float = 0.0

    def __post_init__(self) -> None:
        require_share(self.eta)

    @property
    def convergence_order(self) -> int | None:
        return 1 if self.eta == 0 else None

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def trajectory(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        **condition: Tensor,
    ) -> Iterator[Tensor]:
        process = denoiser.process
        for t, s in self.pairs(process):
            estimate = denoiser(x, t, y, **condition)
            if s == 0:
                yield estimate.x0
                continue
            shift, std_t, std_s = _amounts(process, t, s)
            sigma = (self.eta * std_s**2 * (1 - std_s**2 / std_t**2)).clamp(min=0).sqrt()
            z = drawn(noise, x) if self.eta > 0 else None
            kept = (std_s**2 - sigma**2).sqrt()
            residual = _observation(estimate.y) - estimate.x0
            x = combine(x, (torch.ones_like(shift), x), (-shift, residual), (kept - std_t, estimate.noise), (sigma, z))
            yield x


@dataclass(frozen=True)
class PublishedResidualFirst(Sampler):
    """The split sampler of the published code: a run that removes the residual, then another over the same times that
    removes the noise, half of the `steps` each; the last step of either gives x0.

    Its network is told at every step that residual and noise are at the same time, though in the first run all of the
    noise is there still, and in the second none of the residual; the x0 with which the first run ends is taken at the
    first time of the grid. `ResidualFirst` is the path that the paper describes.
    """

    steps: int = 20
    grid: TimeGrid = TruncatedGrid()

    def trajectory(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        **condition: Tensor,
    ) -> Iterator[Tensor]:
        process = denoiser.process
        if self.steps < 2 or self.steps % 2:
            raise SamplingError(f"two runs need an even number of steps, at least 2, not {self.steps}")
        pairs = list(PublishedResidual(self.steps // 2, self.grid).pairs(process))
        for part in ("residual", "noise"):
            for t, s in pairs:
                estimate = denoiser(x, t, y, **condition)
                shift, std_t, std_s = _amounts(process, t, s)
                if s == 0:
                    x = estimate.x0
                elif part == "residual":
                    residual = _observation(estimate.y) - estimate.x0
                    x = combine(x, (torch.ones_like(shift), x), (-shift, residual))
                else:
                    x = combine(x, (torch.ones_like(shift), x), (std_s - std_t, estimate.noise))
                yield x


def _amounts(process: Process, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """b_t - b_s, s_t and s_s; raises SamplingError where a + b is not 1, which the published steps take for granted."""
    a_t, b_t, std_t, _ = process.coefficients(t)
    a_s, b_s, std_s, _ = process.coefficients(s)
    if not torch.allclose(a_t + b_t, a_s + b_s):
        raise SamplingError(f"the published samplers of RDDM need a + b = 1, not {process}; use Ancestral")
    return b_t - b_s, std_t, std_s


def _observation(y: Tensor | None) -> Tensor:
    if y is None:
        raise SamplingError("the published samplers of RDDM need a residual; take ResidualOutputs or TwoOutput")
    return y
