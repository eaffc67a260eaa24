"""Gradients through a whole sampler by discrete back-propagation, with the network's activations recomputed."""

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ornstein.denoiser import DenoiserLike
from ornstein.estimate import Estimate
from ornstein.inversion.states import require_finite
from ornstein.noise import Noise
from ornstein.samplers.base import Sampler, require_sampler
from ornstein.sampling_run import sampling_run


class CheckpointedDenoiser:
    """A denoiser whose activations are recomputed when a gradient passes (Chen et al. 2016).

    Memory falls to a few states a call; a backward pass costs one more call each. Works inside every sampler.
    """

    def __init__(self, denoiser: DenoiserLike) -> None:
        self.denoiser = denoiser
        self.process = denoiser.process

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        """The Estimate of the denoiser."""
        call = partial(self.denoiser, **condition)  # the names of a condition may be those of checkpoint's options
        estimate: Estimate = checkpoint(call, x, t, y, use_reentrant=False)
        return estimate


def sample_with_gradient(
    sampler: Sampler,
    denoiser: DenoiserLike,
    x: Tensor,
    y: Tensor | None = None,
    noise: Noise | None = None,
    on_step: Callable[[int, int], None] | None = None,
    **condition: Tensor,
) -> Tensor:
    """The sample that starts at `x`, differentiable in `x`, `y`, the noise, the condition and the weights: exactly the
    gradient of autograd, with checkpointed calls.

    Raises:
        UserError: the sampler lets no gradient through, or the sample is not finite.
    """
    require_sampler("a gradient through a sampler", sampler, differentiable=True)
    state = x
    with sampling_run():
        states = sampler.trajectory(CheckpointedDenoiser(denoiser), x, y, noise, **condition)
        for done, state in enumerate(states, start=1):  # noqa: B007  # the last one is the result
            if on_step is not None:
                on_step(done, sampler.steps)
    return require_finite(state, "the sample")
