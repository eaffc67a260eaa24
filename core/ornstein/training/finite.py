"""Losses that are not finite: found without waiting for the device, known to all ranks, kept out of the weights."""

from collections.abc import Iterable, Mapping

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor
from torch.distributed.tensor import DTensor

from ornstein.errors import UserError

NEVER = torch.iinfo(torch.int64).max


class FiniteGuard:
    """Notes on the device where the loss or its gradient first was not finite.

    To read a number from a GPU is to wait for all the work queued there, so `watch` and `protect`, called at every
    step, only queue more. `check` reads; it is called when losses are logged, before validation and before a checkpoint
    is written, so that nothing is measured or saved after a failure. Until then no update with such a gradient reaches
    the weights: DDP would carry the NaN of one rank to all of them within the same step.
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None  # step * (ranks + 1) + rank; the "rank" after the last: only the gradient
        self._values = torch.zeros(0)
        self._names: tuple[str, ...] = ()

    def watch(self, losses: Mapping[str, Tensor], step: int, rank: int = 0, ranks: int = 1) -> None:
        """Note whether the entry `loss` of scalar `losses` is finite; no synchronisation."""
        values = torch.stack([value.detach().float() for value in losses.values()])
        if self._first is None:
            self._first = torch.full((), NEVER, dtype=torch.int64, device=values.device)
            self._values = values
        self._names = tuple(losses)
        fresh = ~losses["loss"].detach().isfinite() & (self._first == NEVER)
        self._values = torch.where(fresh, values, self._values)
        self._first.masked_fill_(fresh, step * (ranks + 1) + rank)

    def protect(self, optimizer: torch.optim.Optimizer, weights: Iterable[Tensor], step: int, ranks: int = 1) -> Tensor:
        """Keep a gradient that is not finite from `weights`; return the norm of the whole gradient, (), on its device.

        Fused optimizers skip such a step altogether. For others the gradient becomes zero, which leaves the momentum.
        """
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        bad = ~norm.isfinite()
        if self._first is not None:
            self._first.masked_fill_(bad & (self._first == NEVER), step * (ranks + 1) + ranks)
        if getattr(optimizer, "_step_supports_amp_scaling", False) and not any(
            isinstance(g, DTensor) for g in gradients
        ):
            optimizer.found_inf = bad.float()  # type: ignore[attr-defined]  # what a gradient scaler sets
        else:
            for gradient in gradients:
                local = gradient.to_local() if isinstance(gradient, DTensor) else gradient
                local.masked_fill_(bad, 0)
        return norm

    def check(self, strategy: Strategy) -> None:
        """Read the note; a synchronisation, and a collective call: every rank comes to the same answer.

        Raises:
            UserError: on every rank, if the loss or its gradient was not finite on any.
        """
        if self._first is None:
            return
        ranks = getattr(strategy, "world_size", 1)
        first = int(strategy.reduce(self._first.clone(), reduce_op="min"))
        if first == NEVER:
            return
        self._first = None  # told once: the weights are sound, and may be saved on the way out
        step, rank = divmod(first, ranks + 1)
        if rank == ranks:
            raise UserError(f"the gradient is not finite at step {step} (the loss is); {_MEND}")
        found = strategy.broadcast(dict(zip(self._names, self._values.tolist(), strict=True)), src=rank)
        values = ", ".join(f"{name} {value:g}" for name, value in found.items())
        where = f" on rank {rank}" if ranks > 1 else ""
        raise UserError(f"the loss is not finite at step {step}{where} ({values}); {_MEND}")


_MEND = (
    "resume the last checkpoint with a lower learning rate or --trainer.gradient_clip_val 1, and check the data for NaN"
)
