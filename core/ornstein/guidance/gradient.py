"""Guidance by a gradient: of a classifier of noisy states, or of an energy of the clean estimate."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ornstein.denoiser import DenoiserLike, one_a_sample
from ornstein.errors import UserError
from ornstein.estimate import Estimate
from ornstein.guidance.classifier_free import require_scale
from ornstein.process.affine import Weight, as_time, combine

LogProbability = Callable[[Tensor, Tensor], Tensor]
"""log p(c | x_t), (B,), of a state (B, *) at a time () or (B,)."""


class ClassifierGuidance:
    """noise - scale s grad_x log p(c | x_t) (Dhariwal and Nichol 2021, algorithm 2).

    The score rises by scale times the gradient, on every process and with every sampler.

    Args:
        denoiser: what is guided.
        log_probability: differentiable log p(c | x_t) of each sample, for example `class_log_probability`.
        scale: strength.
    """

    def __init__(self, denoiser: DenoiserLike, log_probability: LogProbability, scale: float = 1.0) -> None:
        require_scale(scale)
        self.denoiser = denoiser
        self.process = denoiser.process
        self.log_probability = log_probability
        self.scale = scale

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        t = as_time(t)
        estimate = self.denoiser(x, t, y, **condition)
        with torch.enable_grad():
            state = x.detach().requires_grad_()
            gradient = gradient_of(self.log_probability(state, t), state)
        return raise_score(estimate, gradient, self.scale)


class EnergyGuidance:
    """noise + scale s grad_x E(x0hat(x_t)): the energy falls; the gradient runs through the denoiser (FreeDoM, Yu et
    al. 2023; universal guidance, Bansal et al. 2023).

    Args:
        denoiser: what is guided; differentiable.
        energy: E of clean signals (B, *), one number a sample.
        scale: strength.
    """

    def __init__(self, denoiser: DenoiserLike, energy: Callable[[Tensor], Tensor], scale: float = 1.0) -> None:
        require_scale(scale)
        self.denoiser = denoiser
        self.process = denoiser.process
        self.energy = energy
        self.scale = scale

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        with torch.enable_grad():
            state = x.detach().requires_grad_()
            estimate = self.denoiser(state, t, y, **condition)
            gradient = gradient_of(self.energy(estimate.x0), state)
        kept = Estimate(estimate.process, x, estimate.t, estimate.x0.detach(), estimate.noise.detach(), estimate.y)
        return raise_score(kept, gradient, -self.scale)


def gradient_of(values: Tensor, state: Tensor) -> Tensor:
    """The gradient of the sum of `values` in `state`."""
    (gradient,) = torch.autograd.grad(values, state, torch.ones_like(values))
    return gradient


def raise_score(estimate: Estimate, change: Tensor, scale: float = 1.0) -> Estimate:
    """The estimate whose score is larger by c = `scale` times `change` (B, *): noise - s c, x0 + s^2/a c.

    Where a = 0 the state says nothing about x0, so that no gradient of the state can guide: nothing changes there.
    """
    a, _, s, _ = estimate.process.coefficients_at(estimate.t)
    gain: Weight
    less: Weight
    if isinstance(a, Tensor):
        acts = a != 0
        less = torch.where(acts, scale * torch.as_tensor(s).to(a), 0.0)
        gain = less * s / torch.where(acts, a, 1.0)
    else:
        less = scale * s if a != 0 else 0.0
        gain = less * s / (a or 1.0)
    x0 = combine(estimate.x, (1.0, estimate.x0), (gain, change))
    noise = combine(estimate.x, (1.0, estimate.noise), (-less, change))
    return Estimate(estimate.process, estimate.x, estimate.t, x0, noise, estimate.y)


def class_log_probability(classifier: Callable[[Tensor, Tensor], Tensor], target: Tensor | int) -> LogProbability:
    """log softmax of `classifier`(x_t, t (B,)) -> (B, classes) at `target`, one class or one a sample (B,).

    The times are real and on the device of x_t. A classifier with a method `at_time(x_t, t)`, such as experts that are
    chosen by the time, is given the time that all samples share by that, as a float.

    Raises:
        UserError: in a call, the classifier has no such class (a target on the host).
    """
    wanted_class = torch.as_tensor(target)
    on_host = wanted_class.device.type == "cpu"  # a target on a device is not waited for
    smallest, largest = (int(wanted_class.min()), int(wanted_class.max())) if on_host else (0, 0)
    at_time: Callable[[Tensor, float], Tensor] | None = getattr(classifier, "at_time", None)
    moved = wanted_class

    def log_probability(x: Tensor, t: Tensor) -> Tensor:
        nonlocal moved
        if at_time is not None and t.ndim == 0 and t.device.type == "cpu":
            logits = at_time(x, t.item())
        else:
            logits = classifier(x, one_a_sample(t, x))
        if smallest < 0 or largest >= logits.shape[-1]:
            wrong = smallest if smallest < 0 else largest
            raise UserError(f"the target is class {wrong}; the classifier has the classes 0 to {logits.shape[-1] - 1}")
        if moved.ndim and len(moved) not in (1, len(x)):
            raise UserError(f"there are {len(moved)} targets for {len(x)} samples; give one for each, or one for all")
        log_probabilities = logits.log_softmax(-1)
        if isinstance(target, int):
            return log_probabilities.select(-1, target)
        moved = moved.to(x.device)  # once a device: a copy from the host would be waited for
        return -F.nll_loss(log_probabilities, moved.expand(len(x)), reduction="none")

    return log_probability
