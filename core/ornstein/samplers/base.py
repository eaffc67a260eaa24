"""What every sampler shares: options, a grid, a loop that can be watched or driven step by step."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike, require_rows
from ornstein.errors import UserError
from ornstein.estimate import Estimate
from ornstein.noise import Noise
from ornstein.process.affine import Process
from ornstein.samplers.time_grids import TimeGrid, UniformGrid
from ornstein.sampling_run import sampling_run

DIVERGED = 1e6
"""A state this many times larger than its start has left the range of any signal."""


class SamplingError(UserError, ValueError):
    """A run that cannot give a sample: the settings do not fit the process, or the numbers went wrong on the way."""


@dataclass(frozen=True)
class Sampler(ABC):
    """Turns a start point x_T (B, *) into a sample by calling a denoiser on a time grid; holds options only, never
    state."""

    steps: int = 30
    """N, the number of steps."""
    grid: TimeGrid = UniformGrid()

    minimum_steps: ClassVar[int] = 1
    """Fewest steps the method is defined for."""

    @property
    def convergence_order(self) -> int | None:
        """Order in the steps of a whole run from a cold start: of its end against that of the flow, or, where it draws,
        against the path of the reverse equation that belongs to its noise. None: nothing is claimed."""
        return None

    @property
    def stochastic(self) -> bool:
        """Whether a run may draw noise, with these options on some process."""
        return False

    @property
    def differentiable(self) -> bool:
        """Whether autograd through a run gives the gradient of its end in the start, the observation and the
        noise."""
        return True

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
        with torch.no_grad(), sampling_run():
            watched = _Watched(denoiser, x, y, self.steps, condition)
            for done, state in enumerate(self.trajectory(watched, x, y, noise, **condition), start=1):
                watched.stepped(state)
                if on_step is not None:
                    on_step(done, self.steps)
            watched.finish()
        return state

    def pairs(self, process: Process) -> Iterator[tuple[Tensor, Tensor]]:
        """The steps (t, s), s < t, as host scalars; raises SamplingError if the grid does not fit the process."""
        return pairwise(self.times(process))

    def times(self, process: Process) -> Tensor:
        """The times of the grid, (steps + 1,); raises SamplingError if they do not fit the process or the solver."""
        if self.steps < self.minimum_steps:
            raise SamplingError(
                f"{type(self).__name__} needs at least {_counted(self.minimum_steps)}, got {self.steps}"
            )
        times = self.grid(process, self.steps)
        if not bool(times.isfinite().all() & (times.diff() < 0).all()):
            if process.first_level > 0 and self.steps > process.T:
                raise SamplingError(
                    f"{type(process).__name__} has {process.T:g} levels of noise here, but got {self.steps} steps; "
                    f"take fewer steps, at most {process.T:g}"
                )
            raise SamplingError(
                f"{self.grid} gives times that do not decrease on {type(process).__name__}: {_listed(times)}; "
                + (
                    f"it has {process.T:g} levels of noise: take fewer steps"
                    if process.first_level > 0
                    else "choose its ends inside the process or fewer steps"
                )
            )
        if not (times[-1] >= 0 and times[0] <= process.T * (1 + 1e-9)):
            raise SamplingError(
                f"{self.grid} gives times outside [0, {process.T:g}] on {type(process).__name__}: {_listed(times)}; "
                "choose its ends inside the process"
            )
        return times


class _Watched:
    """Looks at every estimate and every state of a run: at once on a CPU, after the run on a device, which would have
    to be waited for."""

    def __init__(
        self, denoiser: DenoiserLike, x: Tensor, y: Tensor | None, steps: int, condition: Mapping[str, Tensor]
    ) -> None:
        self.process = denoiser.process
        self._denoiser, self._steps, self._done = denoiser, steps, 0
        self._at_once = x.device.type == "cpu"
        self._seen: list[tuple[Tensor, str]] = []
        if x.numel() == 0:
            raise SamplingError(f"the start has shape {tuple(x.shape)}, which holds nothing; give at least one sample")
        require_fitting(self.process, x, y, condition)
        # in float32 at least: DIVERGED is infinite in half precision
        sizes = [
            each.abs().amax().to(torch.promote_types(each.real.dtype, torch.float32))
            for each in (x, y)
            if each is not None
        ]
        self._limit = DIVERGED * torch.stack([size.to(sizes[0]) for size in sizes]).amax().clamp(min=1.0)
        self._infinity = torch.full_like(self._limit, torch.inf)
        self._check(self._limit.isfinite(), "the start or the observation is not finite; check the input")

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        estimate = self._denoiser(x, t, y, **condition)
        self._check(
            estimate.x0.abs().amax() < self._infinity,
            f"the network gave NaN or infinity in step {self._done + 1} of {self._steps} (t = {float(t):.4g}); "
            "check its weights and its precision",
        )
        return estimate

    def stepped(self, state: Tensor) -> None:
        """Look at the state after a step."""
        self._done += 1
        self._check(
            state.abs().amax() <= self._limit,
            f"the sampler diverged in step {self._done} of {self._steps}; take more steps or a lower order",
        )

    def finish(self) -> None:
        """Look at what was not looked at during the run."""
        if self._seen and not all(good := torch.stack([flag for flag, _ in self._seen]).tolist()):
            raise SamplingError(self._seen[good.index(False)][1])

    def _check(self, good: Tensor, otherwise: str) -> None:
        if not self._at_once:
            self._seen.append((good, otherwise))
        elif not good:
            raise SamplingError(otherwise)


def require_fitting(process: Process, x: Tensor, y: Tensor | None, condition: Mapping[str, Tensor]) -> None:
    """Raise UserError if the observation `y` or a condition does not go with the batch `x` (B, *).

    An observation that the process runs towards has the shape of `x`, any other one B rows, a condition 1 or B.
    """
    if y is not None and y.shape != x.shape and (process.observed or y.shape[:1] != x.shape[:1]):
        wanted = "the same shape" if process.observed else "as many rows"
        raise SamplingError(
            f"the start has shape {tuple(x.shape)}, the observation {tuple(y.shape)}; give an observation of {wanted}"
        )
    require_rows(condition, len(x))


def _listed(times: Tensor) -> str:
    """The times, of many the first and the last."""
    shown = [f"{t:.4g}" for t in times.tolist()]
    return ", ".join(shown if len(shown) <= 12 else [*shown[:6], "...", *shown[-5:]])


def _counted(steps: int) -> str:
    return "one step" if steps == 1 else f"{steps} steps"


def require_finite_rates(process: Process, t: Tensor, diffusion: bool) -> None:
    """Raise SamplingError where the velocity (or g, if `diffusion`) is infinite, as at the end T of a bridge."""
    process = process.scalar()[0]

    def finite() -> bool:
        da, db, ds, _ = process.derivatives(t)
        rates = [da, db, ds, *([process.diffusion_squared(t)] if diffusion else [])]
        return all(bool(rate.isfinite().all()) for rate in rates) and bool(process.reference(t).s > 0)

    if not process.remember(("finite rates", diffusion, float(t)), finite):
        raise SamplingError(
            f"the rates of {process} are not finite at t = {float(t):g}; begin below T, "
            f"for example UniformGrid(start={0.98 * process.T:g}), or take a solver of dw/dkappa such as Euler"
        )


def require_finite_end(process: Process, t: Tensor, score: bool) -> None:
    """Raise SamplingError if the velocity (or, if `score`, the score) is infinite at the end `t` of a grid."""
    noisy = bool(process.reference(t).s > 0)
    if not bool(process.derivatives(t).s.isfinite().all()) or (score and not noisy):
        raise SamplingError(
            f"{type(process).__name__} has no finite {'velocity' if noisy or not score else 'score'} at the last time "
            f"{float(t):g} of the grid; end above, for example UniformGrid(end={process.first_level or 0.03:g})"
        )


def drawn(noise: Noise | None, like: Tensor) -> Tensor:
    """Unit noise like `like`; raises SamplingError if the caller gave no source, or one that gives another shape."""
    if noise is None:
        raise SamplingError("this sampler is stochastic; give it noise=SampleNoise(seeds)")
    z = noise(like)
    if z.shape != like.shape:
        raise SamplingError(f"the noise has shape {tuple(z.shape)}, the state {tuple(like.shape)}; give noise like it")
    return z


def require_sampler(
    method: str,
    sampler: Sampler,
    process: Process | None = None,
    *,
    deterministic: bool = False,
    differentiable: bool = False,
) -> None:
    """Raise UserError if `sampler` does not declare what `method` needs of it; with a `process` it has to call the
    network once a step there."""
    name = type(sampler).__name__
    if deterministic and sampler.stochastic:
        raise UserError(
            f"{method} needs a deterministic sampler, and {name} draws noise with these options; take one that draws "
            "none, such as Euler or Ancestral(eta=0)"
        )
    if differentiable and not sampler.differentiable:
        raise UserError(
            f"{method} needs a sampler that lets gradients through, which {name} does not; take another, such as Euler "
            "or Ancestral"
        )
    if process is not None and (calls := sampler.evaluations(process)) != sampler.steps:
        found = "chooses its calls by itself" if calls is None else f"makes {calls} in {_counted(sampler.steps)}"
        raise UserError(f"{method} needs a sampler of one call a step, and {name} {found}; take one such as Euler")
