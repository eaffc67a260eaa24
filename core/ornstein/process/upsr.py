"""Residual shifting whose noise is weaker where the observation is sure (UPSR)."""

import copy
from dataclasses import dataclass, field

from torch import Tensor

from ornstein.process.affine import Coefficients, Process
from ornstein.process.residual_shift import ResidualShift


@dataclass(frozen=True)
class UPSR(ResidualShift):
    """a = 1 - eta, b = eta, s = noise_scale W sqrt(eta), W one weight per pixel (Zhang et al. 2025, arXiv 2503.18512).

    `weighted` gives the process of a batch; without weights W = 1. W drops out of the posterior mean and of every
    weight of a solver but that of fresh noise. Grids and kappa go by the process with W = 1. The defaults are the
    published 5 steps.
    """

    steps: int = 5
    noise_scale: float = 2.5
    power: float = 0.2
    min_noise: float = 0.2
    floor: float = 0.4
    """The weight where the estimate agrees with y (b_u, the option `min_noise` of the network)."""
    saturation: float = 0.1
    """Uncertainty from which the weight is 1 (u_max)."""
    weights: Tensor | None = field(default=None, init=False, repr=False, compare=False)
    _scalar: Process = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.floor <= 1 and self.saturation > 0):
            raise ValueError(f"UPSR needs 0 < floor <= 1 and saturation > 0, got {self.floor} and {self.saturation}")

    def uncertainty_weights(self, y: Tensor, estimate: Tensor) -> Tensor:
        """W = floor + (1 - floor) min(psi, saturation)/saturation with psi = |estimate - y|/2: shape of `y` (B, *),
        both in [-1, 1], `estimate` the restored image of a regression network."""
        psi = (estimate - y).abs() / 2
        return self.floor + (1 - self.floor) * psi.clamp(max=self.saturation) / self.saturation

    def weighted(self, weights: Tensor) -> "UPSR":
        """This process with the map `weights` > 0, as many dimensions as the signals and broadcasting against them.

        Values on a device are not looked at, which would make a training step wait.
        """
        if weights.ndim < 2 or (weights.device.type == "cpu" and not bool((weights > 0).all())):
            raise ValueError(
                f"UPSR needs positive weights (B or 1, *) like the signal, got shape {tuple(weights.shape)}"
            )
        process = copy.copy(self)
        object.__setattr__(process, "weights", weights.double())
        object.__setattr__(process, "_scalar", self.scalar()[0])
        return process

    def scalar(self) -> tuple[Process, Tensor | None]:
        return (self, None) if self.weights is None else (self._scalar, self.weights)

    def reference(self, t: Tensor) -> Coefficients:
        return super().coefficients(t)

    def coefficients(self, t: Tensor) -> Coefficients:
        return self._on_map(super().coefficients(t))

    def derivatives(self, t: Tensor) -> Coefficients:
        return self._on_map(super().derivatives(t))

    def _on_map(self, c: Coefficients) -> Coefficients:
        """The coefficients with s a map, the others shaped to broadcast against it."""
        if self.weights is None:
            return c
        shape, device = (-1, *(1,) * (self.weights.ndim - 1)), self.weights.device
        a, b, s, phi = (each.to(device).reshape(shape) if each.ndim == 1 else each for each in c)
        return Coefficients(a=a, b=b, s=s * self.weights, phi=phi)
