"""DDIM inversion: the deterministic sampler run from the clean signal to the noise that would give it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.estimate import Estimate
from ornstein.inversion.states import require_finite, require_noise
from ornstein.process.affine import Process, combine
from ornstein.samplers.base import Sampler
from ornstein.samplers.ode_solvers import Euler
from ornstein.samplers.time_grids import TimeGrid, UniformGrid


def later_state(
    process: Process,
    x: Tensor,
    s: Tensor,
    t: Tensor,
    estimate: Estimate,
    y: Tensor | None,
    early: bool = False,
) -> Tensor:
    """The state at the later time `t` that the deterministic step with `estimate` at `t` takes to `x` at `s`.

    With u = x - b y: u_t = (a_t/a_s) u_s + (s_t - s_s a_t/a_s) z where a > 0 (Song et al. 2021, equation 13), else
    u_t = (s_t/s_s) u_s + (a_t - a_s s_t/s_s) x0, which is defined at a <= 0; `early` takes that wherever it can.
    """
    a_s, b_s, s_s, _ = process.coefficients(s)
    a_t, b_t, s_t, _ = process.coefficients(t)
    if bool((a_t > 0).all() & (a_s > 0).all()) and not (early and bool((s_s > 0).all())):
        ratio = a_t / a_s
        direction = (s_t - s_s * ratio, estimate.noise)
    elif bool((s_s > 0).all()):
        ratio = s_t / s_s
        direction = (a_t - a_s * ratio, estimate.x0)
    else:
        raise UserError(f"one step cannot go from no noise to a = {float(a_t):g} at t = {float(t):g}; take more steps")
    return combine(x, (ratio, x), direction, (b_t - b_s * ratio, process.require(y)))


@dataclass(frozen=True)
class DDIMInversion:
    """From a signal at the end of the grid up to its start (Song et al. 2021, section 4.3; Dhariwal and Nichol 2021).

    A step from s up to t asks the network at t about the state of s, as the published inversions do. This is the first
    iteration of a fixed-point equation whose solution inverts the DDIM step exactly; `refinements` adds iterations
    (Pan et al. 2023, equation 9), each one network call a step.
    """

    steps: int = 50
    grid: TimeGrid = UniformGrid()
    refinements: int = 0

    def __post_init__(self) -> None:
        if self.refinements < 0:
            raise UserError(f"refinements is {self.refinements}; it is at least 0")

    def trajectory(
        self, denoiser: DenoiserLike, x0: Tensor, y: Tensor | None = None, **condition: Tensor
    ) -> Iterator[Tensor]:
        """Yield the state after every step upwards; the last one is at the first time of the grid."""
        process = denoiser.process
        pairs = list(self.sampler.pairs(process))
        require_noise(process, pairs[0][0])
        x = x0
        for t, s in reversed(pairs):
            shift = process.coefficients(t).b - process.coefficients(s).b
            guess = combine(x, (torch.ones_like(shift), x), (shift, process.require(y)))
            # For unit data the iteration shrinks an error by (1 - kappa_t/kappa_s)/(1 + kappa_t^2) in the noise and by
            # (kappa_s/kappa_t - 1) kappa_t^2/(1 + kappa_t^2) in x0: near T the first comes close to 1.
            ends = process.kappa(torch.stack([t, s]))
            in_x0 = bool(ends[0] * ends[1] < 1)
            for i in range(1 + self.refinements):
                guess = later_state(process, x, s, t, denoiser(guess, t, y, **condition), y, early=in_x0 and i > 0)
            x = guess
            yield x

    def states(self, denoiser: DenoiserLike, x0: Tensor, y: Tensor | None = None, **condition: Tensor) -> list[Tensor]:
        """The pivot: `steps` + 1 states in the order of the grid, from the noise to `x0` itself; no gradient."""
        with torch.no_grad():
            path = [x0, *self.trajectory(denoiser, x0, y, **condition)]
        require_finite(path[-1], "the inverted state")
        return path[::-1]

    def __call__(self, denoiser: DenoiserLike, x0: Tensor, y: Tensor | None = None, **condition: Tensor) -> Tensor:
        """The state at the start of the grid, (B, *), that `sampler` takes back to `x0`; no gradient.

        Raises:
            UserError: the process has no noise at the start of the grid, or the network gives NaN.
        """
        return self.states(denoiser, x0, y, **condition)[0]

    @property
    def sampler(self) -> Sampler:
        """The sampler that this inverts: DDIM on the same grid."""
        return Euler(steps=self.steps, grid=self.grid)

    def evaluations(self) -> int:
        """Network calls of one inversion."""
        return self.steps * (1 + self.refinements)
