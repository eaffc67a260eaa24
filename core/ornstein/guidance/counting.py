"""How much work a denoiser does: calls, and evaluations of single samples."""

from torch import Tensor

from ornstein.denoiser import DenoiserLike
from ornstein.estimate import Estimate


class Counted:
    """The denoiser unchanged; put it innermost to count what guidance asks of it.

    `calls` counts calls, `evaluations` the samples in them: guidance with two conditions in one call makes one call
    and two evaluations a sample.
    """

    def __init__(self, denoiser: DenoiserLike) -> None:
        self.denoiser = denoiser
        self.process = denoiser.process
        self.calls = 0
        self.evaluations = 0

    def reset(self) -> None:
        """Count from zero again."""
        self.calls = self.evaluations = 0

    def __call__(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        self.calls += 1
        self.evaluations += len(x)
        return self.denoiser(x, t, y, **condition)
