"""Exact gradients through the probability flow with one state in memory: a solver that runs backwards exactly."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ornstein.inversion.adjoint import DifferentiableFlow, Rate


@dataclass(frozen=True)
class ReversibleFlow(DifferentiableFlow):
    """The asynchronous leapfrog (Zhuang et al. 2021, MALI, algorithms 2 and 3): second order, one call a step.

    A step of length h takes (u, v) to the middle u_m = u + v h/2, where the network is asked, then v' = 2 z(u_m) - v
    and u' = u_m + v' h/2. The same three lines undo it, so the way back finds every state again from the last one. That
    gives exactly the gradient of the numbers computed, up to rounding, in memory that does not grow with the steps, for
    one more call a step. The method has no damping: take small steps where the flow is stiff.
    """

    def integrate(self, rate: Rate, start: Tensor, rho: Tensor, wanted: tuple[Tensor, ...]) -> Tensor:
        end: Tensor = _Leapfrog.apply(rate, rho, start, *wanted)
        return end


class _Leapfrog(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rate: Rate, rho: Tensor, start: Tensor, *wanted: Tensor) -> Tensor:
        state, speed = start, rate(rho[0], start)
        for now, ahead in pairwise(rho):
            middle, half = (now + ahead) / 2, float(ahead - now) / 2
            inside = state + half * speed
            speed = 2 * rate(middle, inside) - speed
            state = inside + half * speed
        ctx.rate, ctx.rho = rate, rho
        ctx.save_for_backward(start, state, speed, *wanted)
        return state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        start, state, speed, *wanted = ctx.saved_tensors
        found = [torch.zeros_like(tensor) for tensor in wanted]

        def pull(rho: Tensor, at: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
            """The rate, and what `by` is drawn back to by its derivative in `at`; the other gradients are added up."""
            with torch.enable_grad():
                at = at.detach().requires_grad_()
                value = ctx.rate(rho, at)
                first, *others = _gradients(value, (at, *wanted), by)
            for total, part in zip(found, others, strict=True):
                total += part
            return value.detach(), first

        of_speed = torch.zeros_like(speed)
        for ahead, now in pairwise(ctx.rho.flip(0)):
            middle, half = (now + ahead) / 2, float(ahead - now) / 2
            inside = state - half * speed
            of_speed = of_speed + half * gradient  # v' acts on u' and on what follows
            value, first = pull(middle, inside, 2 * of_speed)
            gradient = gradient + first
            speed = 2 * value - speed
            state = inside - half * speed
            of_speed = half * gradient - of_speed
        _, first = pull(ctx.rho[0], start, of_speed)
        return None, None, gradient + first, *found


def _gradients(value: Tensor, inputs: Sequence[Tensor], by: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(value, inputs, by, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]
