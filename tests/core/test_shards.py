import pytest

from ornstein.errors import UserError
from ornstein.shards import Shard, shard


def test_launchers() -> None:
    assert shard({}) == Shard(0, 1, 0)
    assert shard({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}) == Shard(1, 4, 1)
    srun = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}
    assert shard(srun) == Shard(5, 8, 1)
    assert shard({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) == Shard()  # a batch script, not srun
    for wrong in ({"RANK": "4", "WORLD_SIZE": "4"}, {"RANK": "x", "WORLD_SIZE": "4"}):
        with pytest.raises(UserError, match="RANK"):
            shard(wrong)
    assert Shard().device("auto") == "auto"
    assert Shard(1, 2, 1).device("cpu") == "cpu"
    assert Shard(1, 2, 1).device("auto") in ("auto", "cuda:0", "cuda:1")
