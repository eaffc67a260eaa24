"""Forward operators of deepinv (optional package): tomography, MRI, blur, compressed sensing and more."""

from typing import Any

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.inverse_problems.operators import LinearOperator


class DeepinvOperator(LinearOperator):
    """A deepinv `LinearPhysics` as an operator; inverses by conjugate gradients.

    Args:
        physics: deepinv.physics.Tomography(...), for example; its noise model is not used.
        iterations: of the conjugate gradients.
        tolerance: at which they stop.
    """

    def __init__(self, physics: Any, iterations: int = 200, tolerance: float = 1e-6) -> None:
        if not all(hasattr(physics, name) for name in ("A", "A_adjoint")):
            raise UserError("deepinv's linear physics have A and A_adjoint; this object has not")
        self.physics, self.iterations, self.tolerance = physics, iterations, tolerance

    def __call__(self, x: Tensor) -> Tensor:
        return self.physics.A(x)

    def adjoint(self, r: Tensor) -> Tensor:
        return self.physics.A_adjoint(r)

    def pseudo_inverse(self, r: Tensor) -> Tensor:
        return self.regularized_inverse(r, 0.0)

    def regularized_inverse(self, r: Tensor, noise_to_signal: float) -> Tensor:
        # (H^H H + q I) x = H^H r has the same solution; for q = 0 conjugate gradients from 0 give the least-norm one
        wanted = self.adjoint(r)
        x = torch.zeros_like(wanted)
        residual, direction = wanted, wanted
        power = _inner(residual, residual)
        goal = self.tolerance**2 * power
        for _ in range(self.iterations):
            if bool((power <= goal).all()):
                break
            image = self.adjoint(self(direction)) + noise_to_signal * direction
            step = power / _inner(direction, image).clamp(min=torch.finfo(power.dtype).tiny)
            step = torch.where(power > goal, step, torch.zeros_like(step))
            x = x + step * direction
            residual = residual - step * image
            before, power = power, _inner(residual, residual)
            direction = residual + power / before.clamp(min=torch.finfo(power.dtype).tiny) * direction
        return x


def _inner(one: Tensor, other: Tensor) -> Tensor:
    return (one.conj() * other).real.flatten(1).sum(1).reshape(-1, *(1,) * (one.ndim - 1))
