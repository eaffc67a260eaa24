"""Edit-friendly DDPM inversion: noise maps of the stochastic sampler that reproduce a signal exactly."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.inversion.states import require_finite
from ornstein.noise import Noise
from ornstein.process.affine import Process, StepWeights, combine
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.time_grids import TimeGrid, UniformGrid


@dataclass(frozen=True)
class EditFriendlyCode:
    """What an inversion keeps, in the order of the grid."""

    states: Tensor
    """x_t, (steps + 1, B, *), from the noise to the signal."""
    corrections: Tensor
    """(steps, B, *): the noise z of a step, or x_s - mu itself where the step adds no noise."""


@dataclass(frozen=True)
class EditFriendlyInversion:
    """Codes and decodes a signal by the ancestral step with eta (Huberman-Spiegelglas et al. 2024, algorithm 1).

    The states x_t = a x0 + b y + s n_t have independent n_t; the noise of a step is what takes one to the next, z =
    (x_s - mu(x_t))/tau. A step without noise, as the last one to s = 0, keeps x_s - mu instead, so that decoding with
    the same condition is exact. The published setting is 100 steps, eta 1, guidance 3.5 to code and 15 to decode.
    """

    steps: int = 100
    grid: TimeGrid = UniformGrid()
    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.eta <= 1:
            raise UserError(f"edit-friendly inversion needs 0 < eta <= 1, got {self.eta:g}; DDIMInversion is eta = 0")

    def weights(self, process: Process, t: Tensor, s: Tensor) -> StepWeights:
        """Weights of the step from `t` to `s`."""
        return process.step_weights(t, s, self.eta)

    def __call__(
        self, denoiser: DenoiserLike, x0: Tensor, noise: Noise, y: Tensor | None = None, **condition: Tensor
    ) -> EditFriendlyCode:
        """Code `x0` (B, *), the signal at the end of the grid; `noise` is drawn once a state, smallest time first.

        Raises:
            UserError: no step of the process adds noise, or the network gives NaN.
        """
        process = denoiser.process
        pairs = self._pairs(process)
        if not any(bool((self.weights(process, t, s).noise > 0).any()) for t, s in pairs):
            raise UserError(f"no step of {process} adds noise, so there is none to keep; take a diffusion process")
        with torch.no_grad():
            states = [x0]
            states.extend(process.sample(x0, t, noise(x0), y) for t, _ in reversed(pairs))
            states.reverse()
            corrections = []
            for i, (t, s) in enumerate(pairs):
                mean, scale = self._step(denoiser, states[i], t, s, y, condition)
                corrections.append(combine(x0, (1 / scale, states[i + 1] - mean)))
                states[i + 1] = combine(x0, (torch.ones_like(scale), mean), (scale, corrections[i]))
        return EditFriendlyCode(torch.stack(states), require_finite(torch.stack(corrections), "the noise of a step"))

    def decode(
        self,
        denoiser: DenoiserLike,
        code: EditFriendlyCode,
        y: Tensor | None = None,
        skip: int = 0,
        **condition: Tensor,
    ) -> Tensor:
        """The signal of a code, (B, *); another condition or guidance edits it, the more the fewer are skipped.

        Raises:
            UserError: the code belongs to another number of steps, or `skip` leaves none.
        """
        pairs = self._pairs(denoiser.process)
        if len(code.corrections) != len(pairs):
            raise UserError(
                f"the code has {len(code.corrections)} steps, the inversion {len(pairs)}; use the same grid"
            )
        if not 0 <= skip < len(pairs):
            raise UserError(f"skip must be from 0 to {len(pairs) - 1}, got {skip}")
        x = code.states[skip]
        with torch.no_grad():
            for (t, s), correction in zip(pairs[skip:], code.corrections[skip:], strict=True):
                mean, scale = self._step(denoiser, x, t, s, y, condition)
                x = combine(x, (torch.ones_like(scale), mean), (scale, correction))
        return require_finite(x, "the edited signal")

    def _pairs(self, process: Process) -> list[tuple[Tensor, Tensor]]:
        return list(Ancestral(steps=self.steps, grid=self.grid).pairs(process))

    def _step(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        y: Tensor | None,
        condition: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Mean of the step from `t` to `s` and the scale of its correction: tau, or 1 where tau = 0."""
        w = self.weights(denoiser.process, t, s)
        x0 = denoiser(x, t, y, **condition).x0
        mean = combine(x, (w.x, x), (w.x0, x0), (w.y, denoiser.process.require(y)))
        return mean, torch.where(w.noise > 0, w.noise, torch.ones_like(w.noise))


@dataclass(frozen=True)
class PublishedEditFriendlyInversion(EditFriendlyInversion):
    """With the step of the published code: its direction term takes eta, not eta^2, of the variance; the same at eta 1.

    The published code also sets the noise of the last step to zero, which costs the exact reconstruction;
    `without_last` does that to a code.
    """

    def weights(self, process: Process, t: Tensor, s: Tensor) -> StepWeights:
        return process.step_weights(t, s, self.eta**0.5)._replace(noise=process.step_weights(t, s, self.eta).noise)

    @staticmethod
    def without_last(code: EditFriendlyCode) -> EditFriendlyCode:
        """The code as the published program returns it."""
        corrections = code.corrections.clone()
        corrections[-1] = 0
        return EditFriendlyCode(code.states, corrections)
