"""What every sampler shares: options, a grid, a loop that can be watched or driven step by step."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.noise import Noise
from ornstein.process.affine import Process
from ornstein.samplers.time_grids import TimeGrid, UniformGrid


@dataclass(frozen=True)
class Sampler(ABC):
    """Turns a start point x_T (B, *) into a sample by calling a denoiser on a time grid; holds options only, never
    state."""

    steps: int = 30
    """N, the number of steps."""
    grid: TimeGrid = UniformGrid()

    @abstractmethod
    def trajectory(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        **condition: Tensor,
    ) -> Iterator[Tensor]:
        """Yield the state after every step; the last one is the sample."""

    def evaluations(self, process: Process) -> int | None:
        """Network calls of one run, or None where the step size adapts."""
        return self.steps

    def __call__(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        on_step: Callable[[int, int], None] | None = None,
        **condition: Tensor,
    ) -> Tensor:
        """The sample that starts at `x`; `on_step(done, steps)` is called after every step."""
        state = x
        with torch.no_grad():
            states = self.trajectory(denoiser, x, y, noise, **condition)
            for done, state in enumerate(states, start=1):  # noqa: B007  # the last one is the result
                if on_step is not None:
                    on_step(done, self.steps)
        return state

    def pairs(self, process: Process) -> Iterator[tuple[Tensor, Tensor]]:
        """The steps (t, s), s < t, as host scalars; raises ValueError if the grid does not fit the process."""
        times = self.grid(process, self.steps)
        if not bool(times.isfinite().all() & (times.diff() < 0).all()):
            raise ValueError(
                f"{self.grid} gives times that do not decrease on {process}: {[f'{t:.4g}' for t in times.tolist()]}; "
                "choose its ends inside the process or fewer steps"
            )
        return pairwise(times)


def require_finite_rates(process: Process, t: Tensor, diffusion: bool) -> None:
    """Raise ValueError where the velocity (or g, if `diffusion`) is infinite: at the end T of a bridge, for example."""
    da, db, ds, _ = process.derivatives(t)
    rates = [da, db, ds, *([process.diffusion_squared(t)] if diffusion else [])]
    if not (all(bool(rate.isfinite().all()) for rate in rates) and bool(process.reference(t).s > 0)):
        raise ValueError(
            f"the rates of {process} are not finite at t = {float(t):g}; begin below T, "
            f"for example UniformGrid(start={0.98 * process.T:g}), or take a solver of dw/dkappa such as Euler"
        )


def drawn(noise: Noise | None, like: Tensor) -> Tensor:
    """Unit noise like `like`; raises ValueError if the caller gave no source."""
    if noise is None:
        raise ValueError("this sampler is stochastic; give it noise=SampleNoise(seeds)")
    return noise(like)
