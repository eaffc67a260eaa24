"""The share of the work that falls to this process when a launcher started several: torchrun or SLURM's srun."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ornstein.errors import UserError

_VARIABLES = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),  # of srun; a batch script alone is one process
)


@dataclass(frozen=True)
class Shard:
    """Process number `rank` of `count`, and `local` on its machine."""

    rank: int = 0
    count: int = 1
    local: int = 0

    def device(self, name: str) -> str:
        """The device of this process: where several share a machine, each takes a GPU of its own, in turn."""
        if self.count == 1 or name not in ("auto", "cuda"):
            return name
        import torch

        gpus = torch.cuda.device_count()
        return f"cuda:{self.local % gpus}" if gpus else name


def shard(environment: Mapping[str, str] = os.environ) -> Shard:
    """What the launcher says in the environment; one process without a launcher.

    Raises:
        UserError: the variables are no numbers or contradict each other.
    """
    for rank, count, local in _VARIABLES:
        if rank not in environment or count not in environment:
            continue
        try:
            found = Shard(int(environment[rank]), int(environment[count]), int(environment.get(local, "0")))
        except ValueError:
            raise UserError(f"{rank}, {count} and {local} have to be whole numbers; unset them to run alone") from None
        if not 0 <= found.rank < found.count:
            raise UserError(
                f"{rank} is {found.rank} of {count} {found.count}; it counts from 0; unset both to run alone"
            )
        return found
    return Shard()
