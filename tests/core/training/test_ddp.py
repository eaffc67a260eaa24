"""Two processes on the CPU (gloo), started as a user starts them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

PROGRAM = Path(__file__).parent / "tiny_training.py"


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_two_processes_stay_identical_and_resume(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(PROGRAM), str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    first, second = (rank["whole"] for rank in ranks)

    for part in ("ema", "optimizer", "val_loss"):
        assert equal(first[part], second[part]), part
    # running statistics are each rank's own; DDP sends those of rank 0 to all before they are used
    names = [name for name in first["weights"] if not name.endswith(("running_mean", "running_var"))]
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in names)

    # 14 items make 3 batches of 2 per rank and epoch: no item twice, and all but 2 used
    items = [i for run in (first, second) for _, _, batch in run["seen"][:3] for i in batch]
    assert len(set(items)) == len(items) == 12
    # 5 items to validate, after the one whole epoch: 3 on one rank, 2 on the other, each once
    assert sorted(first["validated"] + second["validated"]) == list(range(5))
    assert {len(first["validated"]), len(second["validated"])} == {2, 3}

    # stopped within the second epoch, resumed with the data read by a worker
    for rank in ranks:
        assert rank["resumed"]["seen"] == rank["whole"]["seen"][4:]
        for part in ("ema", "optimizer", "weights"):
            assert equal(rank["resumed"][part], rank["whole"][part]), part
