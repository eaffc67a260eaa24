"""Gradients through the probability flow: AdjointDPM's continuous adjoint, and exact back-propagation in segments."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.inversion.states import require_finite
from ornstein.process.affine import Process, combine
from ornstein.samplers.ode_solvers import Euler
from ornstein.samplers.time_grids import LogSNRGrid, TimeGrid

Rate = Callable[[Tensor, Tensor], Tensor]
Method = Literal["euler", "midpoint", "rk4", "dopri5", "dopri8"]


@dataclass(frozen=True)
class DifferentiableFlow(ABC):
    """d(u/a)/d(s/a) = z with u = x - b y, between two times of a grid where a > 0 (AdjointDPM, Pan et al. 2024,
    equation 9), in steps between the nodes of the grid.

    The network is asked at the time that belongs to the true rho = s/a of every stage; the published code rounds it to
    an index, which costs the midpoint and Runge-Kutta methods their order.
    """

    steps: int = 20
    grid: TimeGrid = LogSNRGrid(end=1e-2)

    def __call__(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        parameters: Iterable[Tensor] | None = None,
        **condition: Tensor,
    ) -> Tensor:
        """The state at the end of the grid, (B, *), differentiable in `x`, `y`, the condition and `parameters`.

        Args:
            denoiser: an exact formula, a network or a guided network.
            x: the state at the first time of the grid.
            y: the observation.
            parameters: weights that want a gradient; None: those of a denoiser that is a module and require one.
            **condition: the condition of every call.

        Raises:
            UserError: a <= 0 or no noise at the start of the grid, or the network gives NaN.
        """
        process = denoiser.process
        pairs = list(Euler(steps=self.steps, grid=self.grid).pairs(process))
        times = torch.stack([pairs[0][0], *(s for _, s in pairs)])
        a, b, s, _ = (torch.stack(c) for c in zip(*(process.coefficients(t) for t in times), strict=True))
        if a.ndim > 1 or s.ndim > 1:
            raise UserError(f"{process} has a noise level for every value, the flow in s/a needs one for all")
        if not bool((a > 0).all() & (s[0] > 0)):
            raise UserError(
                f"the flow in s/a needs a > 0 and s > 0, {process} has a = {float(a[0]):g}, s = {float(s[0]):g} at "
                f"t = {float(times[0]):g}; begin below T, for example at {0.98 * process.T:g}"
            )
        if parameters is None:
            parameters = denoiser.parameters() if isinstance(denoiser, nn.Module) else ()
        y = process.require(y)
        wanted = [p for p in (*parameters, y, *condition.values()) if p is not None and p.requires_grad]
        start = combine(x, (1 / a[0], x), (-b[0] / a[0], y))
        end = self.integrate(noise_rate(denoiser, y, condition), start, s / a, tuple(wanted))
        return require_finite(combine(x, (a[-1], end), (b[-1], y)), "the end of the flow")

    @abstractmethod
    def integrate(self, rate: Rate, start: Tensor, rho: Tensor, wanted: tuple[Tensor, ...]) -> Tensor:
        """u/a at the last of the nodes `rho` (steps + 1,), where it changes by `rate` from `start`; `wanted` are the
        tensors besides `start` that want a gradient."""


@dataclass(frozen=True)
class CheckpointedFlow(DifferentiableFlow):
    """Back-propagation through the steps: exactly the gradient of the numbers computed, whatever the step.

    sqrt(steps) states are kept, the rest is recomputed; an adaptive method is not replayed, so it needs
    `ContinuousAdjoint`.
    """

    method: Method = "midpoint"
    """A method of torchdiffeq with fixed steps."""

    def integrate(self, rate: Rate, start: Tensor, rho: Tensor, wanted: tuple[Tensor, ...]) -> Tensor:
        from torchdiffeq import odeint

        if self.method not in ("euler", "midpoint", "rk4"):
            raise UserError(f"{self.method} has no fixed steps; take euler, midpoint or rk4, or ContinuousAdjoint")
        state, size = start, math.isqrt(len(rho) - 1) or 1

        def recomputed(rho: Tensor, state: Tensor) -> Tensor:
            slope: Tensor = checkpoint(rate, rho, state, use_reentrant=False)
            return slope

        def run(state: Tensor, nodes: Tensor) -> Tensor:
            end: Tensor = odeint(recomputed, state, nodes, method=self.method)[-1]
            return end

        for first in range(0, len(rho) - 1, size):
            state = checkpoint(run, state, rho[first : first + size + 1], use_reentrant=False)
        return state


@dataclass(frozen=True)
class ContinuousAdjoint(DifferentiableFlow):
    """The adjoint equation da/drho = -a^T dz/d(u/a), solved backwards with the flow itself (Chen et al. 2018).

    It is the gradient of the exact flow up to the error of the solver: coarse steps give a wrong gradient where
    `CheckpointedFlow` gives that of the coarse result.
    """

    method: Method = "midpoint"
    """A method of torchdiffeq."""
    keep_states: bool = True
    """Start the way back of every step from the state of the way there: one state a step in memory, as the published
    program; otherwise only the last one is kept and the others are found by going back."""
    rtol: float = 1e-6
    """Relative tolerance of an adaptive method."""
    atol: float = 1e-6
    """Absolute tolerance of an adaptive method."""

    def integrate(self, rate: Rate, start: Tensor, rho: Tensor, wanted: tuple[Tensor, ...]) -> Tensor:
        from torchdiffeq import odeint_adjoint

        inside = self.method in ("euler", "midpoint", "rk4") and not self.keep_states

        def nodes(_: Rate, __: Tensor, t: Tensor) -> Tensor:
            grid = rho.to(t) * t.sum().sign()  # torchdiffeq turns falling times round, for the backward pass twice
            return grid if (grid[0] > grid[-1]) == (t[0] > t[-1]) else grid.flip(0)

        options = {"grid_constructor": nodes} if inside else {}
        end: Tensor = odeint_adjoint(
            rate,
            start,
            rho if self.keep_states else rho[[0, -1]],
            rtol=self.rtol,
            atol=self.atol,
            method=self.method,
            options=options,
            adjoint_options=dict(options),
            adjoint_params=wanted,
        )[-1]
        return end


def noise_rate(denoiser: DenoiserLike, y: Tensor | None, condition: dict[str, Tensor]) -> Rate:
    """The right-hand side z at (rho, u/a)."""
    process: Process = denoiser.process

    def rate(rho: Tensor, state: Tensor) -> Tensor:
        t = process.time_at_kappa(1 / rho.detach().double())
        a, b, _, _ = process.coefficients(t)
        x = combine(state, (a, state), (b, y))
        noise: Tensor = denoiser(x, t, y, **condition).noise
        return noise

    return rate
