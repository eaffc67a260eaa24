"""Counts what would make a training step wait for a GPU, on a machine without one."""

from typing import Any

import torch
from lightning.pytorch import Callback
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SIZED_BY_VALUES = {
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten._unique2.default,
}


class Reads(TorchDispatchMode):
    """Counts operations that give Python a number or a shape that depends on the values of tensors.

    Such as `.item()`, `bool(...)`, `.tolist()`, `torch.equal`, `nonzero`; each waits for all the work queued on a GPU.
    """

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves((args, kwargs)))
        numbers = any(isinstance(leaf, (bool, int, float)) for leaf in tree_leaves(result))
        self.count += (tensors and numbers) or func in SIZED_BY_VALUES
        return result


class ReadsPerStep(Callback):
    """The counts of all steps, from the batch's arrival to after the optimizer, the EMA and the other callbacks."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.mode = Reads()
        self.mode.__enter__()

    def on_train_batch_end(self, *_: Any) -> None:
        self.mode.__exit__(None, None, None)
        self.steps.append(self.mode.count)
