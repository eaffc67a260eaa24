"""Weights, gradients and optimizer state split over the devices: PyTorch's FSDP2, through Lightning's strategy."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ornstein.errors import UserError


class FSDP2(ModelParallelStrategy):
    """Lightning's ModelParallelStrategy with all processes in one data-parallel group; on the command line `fsdp2`.

    Checkpoints are single files of whole tensors, gathered on rank 0: those of other strategies, which can resume them
    and be resumed. (Lightning's own numbering of the optimizer's state counts frozen weights, theirs does not.)

    Args:
        process_group_backend: nccl, gloo, ...; None takes the usual one of the device.
        timeout: of collective calls.
    """

    def __init__(
        self, process_group_backend: str | None = None, timeout: timedelta | None = default_pg_timeout
    ) -> None:
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )

    def setup_environment(self) -> None:
        """Start the process group and the mesh; Lightning's `auto` would split tensors within a machine instead.

        Raises:
            UserError: the precision is 16-mixed, whose gradient scaler does not know split gradients.
        """
        if self.precision_plugin.precision == "16-mixed":
            raise UserError("fsdp2 cannot train in 16-mixed; use --trainer.precision bf16-mixed")
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Place the split weights; evaluation runs under no_grad instead of inference mode.

        What is gathered first in inference mode, as by a validation before training, cannot be trained on; on one GPU
        it cannot even be gathered again.
        """
        evaluations: list[Any] = [trainer.validate_loop, trainer.test_loop, trainer.predict_loop]
        for loop in [*evaluations, trainer.fit_loop.epoch_loop.val_loop]:
            loop.inference_mode = False
        super().setup(trainer)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The state of `optimizer` as its own state_dict would be with whole weights; empty on all ranks but 0."""
        optimizer = getattr(optimizer, "_optimizer", optimizer)  # out of Lightning's wrapper
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state: dict[str, Any] = get_optimizer_state_dict(self._network, optimizer, options=options)
        if not state:
            return state
        number = {name: i for i, name in enumerate(self._names(optimizer))}
        return _renamed(state, number)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Fill the weights and the optimizers from a file of whole tensors; return its content without the weights."""
        checkpoint: dict[str, Any] = torch.load(
            self.broadcast(checkpoint_path), map_location="cpu", mmap=True, weights_only=weights_only is not False
        )
        strict = self.lightning_module is None or self.lightning_module.strict_loading
        options = StateDictOptions(full_state_dict=True, strict=strict)
        set_model_state_dict(self._network, checkpoint.pop("state_dict"), options=options)
        for optimizer, saved in zip(self.optimizers, checkpoint.get("optimizer_states", []), strict=False):
            numbers = [number for group in saved["param_groups"] for number in group["params"]]
            name = dict(zip(numbers, self._names(optimizer), strict=True))
            set_optimizer_state_dict(self._network, optimizer, _renamed(saved, name), options=options)
        return checkpoint

    @property
    def _network(self) -> nn.Module:
        assert self.model is not None
        return self.model

    def _names(self, optimizer: torch.optim.Optimizer) -> list[str]:
        """Names of the weights of `optimizer` in its order."""
        name = {weight: name for name, weight in self._network.named_parameters()}
        return [name[weight] for group in optimizer.param_groups for weight in group["params"]]


StrategyRegistry.register("fsdp2", FSDP2, description="Fully sharded data parallel (FSDP2) over all processes")


def shard(network: nn.Module, mesh: DeviceMesh, smallest: int = 100_000) -> None:
    """Split the weights of `network` over the ranks of the one-dimensional `mesh`, in place; again does nothing.

    Every element of a ModuleList or Sequential with `smallest` weights or more is gathered, used and released on its
    own, the rest of the network together: smaller messages would cost more than the memory that they save.
    """
    if isinstance(network, FSDPModule):
        return
    for block in _blocks(network, smallest):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    # released after the forward pass too, where FSDP2 by itself would keep the root's weights for the backward pass: in
    # validation there is none, and the next forward pass would use them although the averaged weights came or went
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a split tensor, sharing its memory; other tensors as they are."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The whole of a split tensor, a collective call; other tensors as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def copy_whole_(target: Tensor, source: Tensor) -> None:
    """Fill `target`, which may be split, from a whole tensor that every rank has; no communication."""
    if isinstance(target, DTensor):
        source = distribute_tensor(
            source.to(target.device, target.dtype), target.device_mesh, target.placements, src_data_rank=None
        )
    local(target).copy_(local(source))


def _renamed(state: dict[str, Any], new: Mapping[Any, Any]) -> dict[str, Any]:
    """An optimizer's state with other keys for its weights."""
    groups = [{**group, "params": [new[key] for key in group["params"]]} for group in state["param_groups"]]
    return {"state": {new[key]: value for key, value in state["state"].items()}, "param_groups": groups}


def _blocks(module: nn.Module, smallest: int) -> list[nn.Module]:
    found: list[nn.Module] = []
    for child in module.children():
        inner = _blocks(child, smallest)
        in_list = isinstance(module, (nn.ModuleList, nn.Sequential)) and not isinstance(child, nn.ModuleList)
        if in_list and sum(weight.numel() for weight in child.parameters()) >= smallest:
            found.append(child)  # the outermost: one gather per block
        else:
            found += inner
    return found
