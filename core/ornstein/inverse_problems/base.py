"""What samplers of a posterior p(x0 | r), r = H x0 + sigma n, share."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.inverse_problems.operators import LinearOperator
from ornstein.noise import Noise
from ornstein.process.affine import Process
from ornstein.samplers.ancestral import require_share
from ornstein.samplers.base import Sampler, SamplingError, drawn


def require_positive(divisor: Tensor, name: str, method: str, process: Process, t: Tensor) -> None:
    """Raise SamplingError where the coefficient `name`, by which `method` divides at `t`, is not positive."""
    if not bool((divisor > 0).all()):
        raise SamplingError(
            f"{method} needs {name} > 0, which {type(process).__name__} has not at t = {float(t):g}; "
            f"begin below, for example UniformGrid(start={0.98 * float(t):g})"
        )


def require_one_level(process: Process, method: str) -> None:
    """Raise SamplingError for a process whose noise has another level at every pixel, which `method` does not know."""
    if process.scalar()[1] is not None or process.coefficients(torch.tensor(process.T / 2)).s.numel() > 1:
        raise SamplingError(
            f"{method} takes one noise level for all pixels, and this {type(process).__name__} has a map of them; "
            "leave its weights away, or take DPS"
        )


def require_measurement(measurement: Tensor, expected: Tensor) -> None:
    """Raise UserError if the measurement (B, *), or (1, *) for all, has not the shape `expected` = H x."""
    if measurement.shape[1:] != expected.shape[1:] or len(measurement) not in (1, len(expected)):
        raise UserError(
            f"the measurement has shape {tuple(measurement.shape)}, and the operator gives {tuple(expected.shape)} for "
            "these samples; give one measurement for each, or one for all"
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class PosteriorSampler(Sampler):
    """A sampler that knows a measurement r and how it came about."""

    operator: LinearOperator
    """H."""
    measurement: Tensor
    """r, (B, *)."""

    def __post_init__(self) -> None:
        if not bool(self.measurement.isfinite().all()):
            raise UserError("the measurement holds NaN or infinity; mend or mask it first")

    def __call__(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        on_step: Callable[[int, int], None] | None = None,
        **condition: Tensor,
    ) -> Tensor:
        if x.numel():
            require_measurement(self.measurement, self.operator(x))
        return super().__call__(denoiser, x, y, noise, on_step, **condition)

    def start(self, process: Process, noise: Noise, y: Tensor | None = None) -> Tensor:
        """a H^+ r + b y + s z at the first time of the grid, where the published samplers begin."""
        explained = self.operator.pseudo_inverse(self.measurement)
        return process.sample(explained, self.times(process)[0], noise(explained), y)


@dataclass(frozen=True, eq=False, kw_only=True)
class CorrectedDDIM(PosteriorSampler):
    """A DDIM step with `eta`, then a correction: one call of the network and one gradient a step."""

    scale: float = 1.0
    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self.eta)
        if not self.scale >= 0:
            raise UserError(f"scale weighs the correction and is not negative, got {self.scale}")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    @property
    def differentiable(self) -> bool:
        return False

    @abstractmethod
    def correction(
        self, denoiser: DenoiserLike, x: Tensor, t: Tensor, s: Tensor, y: Tensor | None, condition: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """x0hat at `x`, and what `scale` times is added to the step from `t` to `s`; neither with a graph."""

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
            x0, change = self.correction(denoiser, x, t, s, y, condition)
            last = not bool((process.step_weights(t, s, self.eta).noise != 0).any())
            x = process.step(x, t, s, x0, y, None if last else drawn(noise, x), self.eta) + self.scale * change
            yield x
