"""States at the ends of an inversion: finite, with noise in it, made of a noise."""

from torch import Tensor

from ornstein.errors import UserError
from ornstein.process.affine import Process, combine


def require_finite(signal: Tensor, what: str) -> Tensor:
    """`signal` (B, *), or UserError if it holds NaN or infinity: the network or its parameterization failed."""
    if not bool(signal.isfinite().all()):
        raise UserError(
            f"{what} is not finite; check the input and the network, and keep the grid where the parameterization "
            "is defined (a noise prediction says nothing where a = 0)"
        )
    return signal


def require_noise(process: Process, t: Tensor) -> None:
    """Raise UserError where x_t holds no noise (a bridge at T, a predictive model): nothing of x0 is stored there."""
    if not bool((process.coefficients(t).s > 0).all()):
        raise UserError(
            f"{process} has no noise at t = {float(t):g}, so its state there keeps nothing of the signal; "
            f"begin below T, for example UniformGrid(start={0.98 * process.T:g})"
        )


def state_of_noise(process: Process, t: Tensor, z: Tensor, y: Tensor | None) -> Tensor:
    """b y + s z at the first time `t` of a grid: where sampling from the unit noise `z` (B, *) begins."""
    _, b, s, _ = process.coefficients(t)
    return combine(z, (b, process.require(y)), (s, z))
