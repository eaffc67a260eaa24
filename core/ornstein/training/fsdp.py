"""Weights, gradients and optimizer state split over the devices: PyTorch's FSDP2, through Lightning's strategy."""

from datetime import timedelta

from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


class FSDP2(ModelParallelStrategy):
    """Lightning's ModelParallelStrategy with all processes in one data-parallel group; on the command line `fsdp2`.

    Checkpoints are single files of whole tensors, gathered on rank 0, as those of other strategies.

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
        """Start the process group and the mesh; Lightning's `auto` would split tensors within a machine instead."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


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
