"""What the trainings of guides share: corrupted signals, and checks of what is given."""

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.process.affine import Process


def corrupted(process: Process, x0: Tensor, t: Tensor, generator: torch.Generator, y: Tensor | None = None) -> Tensor:
    """x_t of `x0` (B, *) at `t` (B,), with noise drawn on the device of `generator`."""
    z = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=generator.device)
    return process.sample(x0, t, z.to(x0.device), y)


def require_steps(steps: int, batch: int) -> None:
    """Raise UserError if nothing would be trained."""
    if steps < 1:
        raise UserError(f"{steps} steps train nothing; give at least 1")
    if batch < 1:
        raise UserError(f"a batch of {batch} signals trains nothing; give at least 1")


def require_pairs(signals: Tensor, others: Tensor | None, name: str) -> None:
    """Raise UserError if there is no signal, or not one of `others` for each."""
    if len(signals) == 0:
        raise UserError("there are no clean signals to train on; generate or load some first")
    if others is not None and len(others) != len(signals):
        raise UserError(f"there are {len(signals)} signals and {len(others)} {name}; give one for each signal")
