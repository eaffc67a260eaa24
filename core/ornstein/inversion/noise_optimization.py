"""Direct optimisation of the noise: the start of a sampler and the draws of a stochastic one suit an objective."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.errors import UserError
from ornstein.inversion.backpropagation import sample_with_gradient
from ornstein.inversion.states import require_finite, state_of_noise
from ornstein.noise import Noise
from ornstein.process.affine import Process
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler, require_sampler

Objective = Callable[[Tensor], Tensor]
"""Score of a sample, higher is better: (B, *) to (B,)."""


@dataclass(frozen=True)
class OptimizedNoise:
    """The best noise that was met, sample by sample."""

    start: Tensor
    """Unit noise of the start, (B, *)."""
    draws: list[Tensor]
    """Unit noise of the steps, in the order drawn; empty for a deterministic sampler."""
    sample: Tensor
    """What the sampler makes of it, (B, *)."""
    scores: Tensor
    """The objective before every iteration and at the end, (iterations + 1, B)."""


def norm_penalty(noise: list[Tensor]) -> Tensor:
    """-log density of the norm r of a sample's unit noise of D values, r^2/2 - (D - 1) log r, less its minimum; (B,)
    (Samuel et al. 2023, equation 6)."""
    flat = torch.cat([z.flatten(1) if not z.is_complex() else torch.view_as_real(z).flatten(1) for z in noise], 1)
    scale = 2.0 if noise[0].is_complex() else 1.0  # the two parts of complex noise have variance 1/2
    square, degrees = scale * flat.square().sum(1), max(flat.shape[1] - 1, 1)
    return (square - degrees * (square / degrees).clamp(min=1e-30).log() - degrees) / 2


@dataclass(frozen=True)
class NoiseOptimization:
    """Adam on the noise, by back-propagation through the whole sampler (Wallace et al. 2023; Tang et al. 2024).

    `prior` weighs `norm_penalty`, which keeps the noise where a network has seen noise; `clip` bounds the norm of a
    sample's gradient. Samples do not influence one another. The best noise of the run is returned.
    """

    sampler: Sampler = Ancestral(steps=10, eta=0.0)
    iterations: int = 50
    learning_rate: float = 0.05
    prior: float = 0.01
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.learning_rate <= 0 or self.prior < 0 or self.clip <= 0:
            raise UserError("noise optimisation needs iterations >= 1, learning_rate > 0, prior >= 0 and clip > 0")
        require_sampler("noise optimisation", self.sampler, differentiable=True)

    def __call__(
        self,
        denoiser: DenoiserLike,
        objective: Objective,
        start: Tensor,
        y: Tensor | None = None,
        noise: Noise | None = None,
        on_step: Callable[[int, int], None] | None = None,
        **condition: Tensor,
    ) -> OptimizedNoise:
        """Optimise the unit noise `start` (B, *) from which sampling begins.

        Args:
            denoiser: must let gradients through; its weights get none.
            objective: differentiable score, (B, *) to (B,).
            start: unit noise; sampling begins at b y + s start at the first time of the grid, at T at
                `process.start`.
            y: the observation.
            noise: gives the first draws of a stochastic sampler; they are optimised too.
            on_step: called after every iteration.
            **condition: the condition of every call.

        Raises:
            UserError: nothing can be optimised (a bridge starts at y: take a stochastic sampler, or begin below T), the
                objective does not give one finite number a sample or does not depend on it, or the gradient is not
                finite.
        """
        process = denoiser.process
        first = self.sampler.times(process)[0]
        draws: list[Tensor] = []

        def record(like: Tensor) -> Tensor:
            if noise is None:
                raise UserError("this sampler is stochastic; give it noise=SampleNoise(seeds)")
            draws.append(noise(like))
            return draws[-1]

        with torch.no_grad():
            begin = _begin(process, first, start, y)
            sample_with_gradient(self.sampler, denoiser, begin, y, record, on_step=None, **condition)
        silent = bool((process.coefficients(first).s == 0).all())
        if silent and not draws:
            raise UserError(f"{process} starts without noise; take a stochastic sampler, such as Ancestral(eta=1)")
        variables = [z.detach().clone().requires_grad_() for z in ([] if silent else [start]) + draws]
        optimizer = torch.optim.Adam(variables, lr=self.learning_rate)
        scores: list[Tensor] = []
        best: tuple[Tensor, list[Tensor], Tensor] | None = None
        for iteration in range(self.iterations + 1):
            replay = _replay(variables[0 if silent else 1 :])
            begin = _begin(process, first, start if silent else variables[0], y)
            sample = sample_with_gradient(self.sampler, denoiser, begin, y, replay, on_step=None, **condition)
            score = objective(sample)
            if score.shape != (len(start),):
                raise UserError(f"the objective gives {tuple(score.shape)}, it must give one number a sample")
            require_finite(score, "the objective")
            if iteration == 0 and not _depends(score, sample):
                raise UserError(
                    "the objective does not depend on the sample, or not so that a gradient can be taken; "
                    "compute it from the sample by differentiable operations"
                )
            scores.append(score.detach())
            best = _better(best, score.detach(), [v.detach().clone() for v in variables], sample.detach())
            if iteration == self.iterations:
                break
            loss = (self.prior * norm_penalty(variables) - score).sum()
            gradients = torch.autograd.grad(loss, variables)
            norm = torch.stack([g.abs().square().flatten(1).sum(1) for g in gradients]).sum(0).sqrt()
            scale = (self.clip / require_finite(norm, "the gradient").clamp(min=1e-30)).clamp(max=1)
            for variable, gradient in zip(variables, gradients, strict=True):
                variable.grad = gradient * scale.reshape(-1, *(1,) * (gradient.ndim - 1))
            optimizer.step()
            if on_step is not None:
                on_step(iteration + 1, self.iterations)
        assert best is not None
        _, found, sample = best
        return OptimizedNoise(start if silent else found[0], found[0 if silent else 1 :], sample, torch.stack(scores))


def _begin(process: Process, t: Tensor, z: Tensor, y: Tensor | None) -> Tensor:
    """The start of a grid from `t`: at T the one of the process, which may stand y in for the unknown a x0."""
    return process.start(z, y) if float(t) == process.T else state_of_noise(process, t, z, y)


def _depends(score: Tensor, sample: Tensor) -> bool:
    """Whether a gradient of `score` in `sample` exists."""
    if not (score.requires_grad and sample.requires_grad):
        return False
    return torch.autograd.grad(score.sum(), sample, retain_graph=True, allow_unused=True)[0] is not None


def _replay(draws: list[Tensor]) -> Noise:
    rest = iter(draws)
    return lambda like: next(rest)


def _better(
    best: tuple[Tensor, list[Tensor], Tensor] | None, score: Tensor, noise: list[Tensor], sample: Tensor
) -> tuple[Tensor, list[Tensor], Tensor]:
    """The higher score of two with what belongs to it, sample by sample."""
    if best is None:
        return score, noise, sample
    gain = score > best[0]

    def chosen(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(gain.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    return (
        chosen(score, best[0]),
        [chosen(n, o) for n, o in zip(noise, best[1], strict=True)],
        chosen(sample, best[2]),
    )
