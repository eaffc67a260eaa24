"""How guides are trained: AdamW with a falling rate, and the weights of the best check on held-out signals."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ornstein.errors import UserError

CHECKS = 20
"""Looks at the held-out signals in a training."""


class Fit(NamedTuple):
    """How a training ended."""

    training: float
    """Mean loss over the last tenth of the steps."""
    validation: float | None
    """Loss on the held-out signals with the weights that were kept; None where no signal is held out."""
    step: int
    """The step after which the weights that were kept had been reached."""


def held_out(count: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of `count` signals to train on, and of the `share` of them to hold out (rounded down).

    Raises:
        UserError: the share is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise UserError(f"the share of signals to hold out is {share}; give a number from 0 to below 1, such as 0.1")
    order = torch.randperm(count, generator=generator, device=generator.device)
    kept = count - int(count * share)
    return order[:kept], order[kept:]


def spread(count: int) -> Tensor:
    """`count` numbers in (0, 1), equally far apart: (count,), float64."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / max(count, 1)


def fit(
    module: nn.Module,
    loss_of_batch: Callable[[], Tensor],
    held_loss: Callable[[], Tensor] | None,
    steps: int,
    learning_rate: float,
    on_step: Callable[[int], None] | None = None,
) -> Fit:
    """Train what requires a gradient in `module` for `steps` steps by AdamW with weight decay 0.05 and a linear fall of
    the rate; it ends with the weights of the smallest `held_loss`, looked at `CHECKS` times, or the last ones."""
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=learning_rate, weight_decay=0.05)
    fall = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    losses: list[float] = []
    best, best_step, best_weights = math.inf, steps, dict[str, Tensor]()
    every = max(steps // CHECKS, 1)
    for step in range(1, steps + 1):
        loss = loss_of_batch()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        fall.step()
        losses.append(float(loss.detach()))
        if held_loss is not None and (step % every == 0 or step == steps):
            found = _evaluated(module, held_loss)
            if found < best:
                best, best_step = found, step
                best_weights = {name: p.detach().clone() for name, p in trained.items()}
        if on_step is not None:
            on_step(step)
    with torch.no_grad():
        for name, value in best_weights.items():
            trained[name].copy_(value)
    tail = losses[-max(steps // 10, 1) :]
    return Fit(sum(tail) / len(tail), best if best_weights else None, best_step)


def _evaluated(module: nn.Module, held_loss: Callable[[], Tensor]) -> float:
    training = module.training
    module.eval()
    with torch.no_grad():
        found = float(held_loss())
    module.train(training)
    return found
