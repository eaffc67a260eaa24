"""The probability flow integrated in t with an adaptive step."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.noise import Noise
from ornstein.process.affine import Process
from ornstein.samplers.base import Sampler, require_finite_end, require_finite_rates
from ornstein.samplers.reverse_diffusion import reverse_mean
from ornstein.samplers.time_grids import TimeGrid, UniformGrid

ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
"""Methods of torchdiffeq that choose their steps."""


@dataclass(frozen=True)
class ProbabilityFlowODE(Sampler):
    """dx/dt = velocity from the first to the last time of the grid by torchdiffeq, then, if `final_step`, one
    noiseless reverse step to 0.

    The step size suits the whole batch, so that a sample depends on its neighbours, within the tolerances. The defaults
    are the ODE sampler of SGMSE+: Dormand-Prince 5(4), tolerances 1e-5, from 1 to t_eps = 0.03, on a table
    from T to its first level. The velocity must be finite on the way, so a bridge has to start below T, and most
    processes end above 0.
    """

    steps: int = 1
    grid: TimeGrid = UniformGrid(end=0.03)
    rtol: float = 1e-5
    atol: float = 1e-5
    method: str = "dopri5"
    final_step: bool = True

    def __post_init__(self) -> None:
        if not (self.rtol > 0 and self.atol > 0):
            raise UserError(f"the tolerances rtol and atol have to be positive, got {self.rtol} and {self.atol}")
        if self.method not in ADAPTIVE:
            raise UserError(
                f"{self.method!r} does not choose its steps; take one of {', '.join(ADAPTIVE)}, or VelocityFlow"
            )

    @property
    def differentiable(self) -> bool:
        """False: autograd goes through the choice of the steps too, which spoils it by far more than the tolerance
        (`test_why_an_adaptive_flow_declares_no_gradient`). `ContinuousAdjoint` has the gradient of an adaptive flow."""
        return False

    def trajectory(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        **condition: Tensor,
    ) -> Iterator[Tensor]:
        from torchdiffeq import odeint

        def real(x: Tensor) -> Tensor:
            return torch.view_as_real(x) if is_complex else x

        def signal(x: Tensor) -> Tensor:
            return torch.view_as_complex(x.contiguous()) if is_complex else x

        def velocity(t: Tensor, x: Tensor) -> Tensor:
            return real(denoiser(signal(x), t, y, **condition).velocity)

        is_complex = x.is_complex()
        times = self.times(denoiser.process)
        require_finite_rates(denoiser.process, times[0], diffusion=False)
        require_finite_end(denoiser.process, times[-1], score=self.final_step)
        for i, (t, s) in enumerate(self.pairs(denoiser.process), start=1):
            # step_t makes the solver land on s: it would step past it and interpolate, into times where s(t) is not
            # real
            options = {"step_t": s[None]}
            path = odeint(
                velocity,
                real(x),
                torch.stack([t, s]),
                rtol=self.rtol,
                atol=self.atol,
                method=self.method,
                options=options,
            )
            x = signal(path[-1])
            if i < self.steps:
                yield x
        if self.final_step:
            end = times[-1]
            x = reverse_mean(denoiser(x, end, y, **condition), end, denoiser.process.diffusion_squared(end).sqrt())
        yield x

    def evaluations(self, process: Process) -> int | None:
        return None
