"""No step of a sampler, and of most guidance, looks at a signal or a map of weights, for which it would have to wait on
a GPU."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from benchmarks.sampling_overhead import (
    CASES,
    GUIDANCE,
    GUIDED_CASES,
    SAMPLERS,
    guided_steps,
    guided_steps_of,
    steps_of,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_step_looks_at_a_signal(sampler: str, case: str) -> None:
    run = steps_of(SAMPLERS[sampler], replace(CASES[case], steps=4), "meta")
    assert run().is_meta  # such tensors have no values: to look at one raises


class NoCopies(TorchDispatchMode):
    """Refuses a copy from the host to where the signals are, which is waited for too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            assert not (result.is_meta and any(not tensor.is_meta for tensor in given)), f"{func} from the host"
        return result


WAITS = {"adaptive, never left", "linear adaptive, guesses checked"}
"""What has to know how the two estimates of a sample differ before it asks for the next ones."""


@pytest.mark.parametrize("case", GUIDED_CASES)
@pytest.mark.parametrize("name", [name for name in GUIDANCE if name not in WAITS])
def test_no_step_of_this_guidance_waits(name: str, case: str) -> None:
    run = guided_steps_of(GUIDANCE[name], CASES[case], "meta")
    run()  # what lies on the host, such as an unconditional label, is brought over once
    with NoCopies():
        assert run().is_meta


@pytest.mark.parametrize("name", sorted(WAITS))
def test_guidance_that_goes_by_the_estimates_waits(name: str) -> None:
    """The two that docs/guidance.md and docs/speed.md name."""
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        guided_steps_of(GUIDANCE[name], CASES["VP, noise"], "meta")()


NFE = {"none": 1, "classifier-free": 2, "classifier-free, in an interval of t": 1.5, "adaptive, never left": 2}


@pytest.mark.parametrize("case", GUIDED_CASES)
@pytest.mark.parametrize("name", GUIDANCE)
def test_every_guidance_runs_and_is_counted(name: str, case: str) -> None:
    us, nfe = guided_steps(
        GUIDANCE[name], replace(CASES[case], steps=30 if name.startswith("linear adaptive") else 6), repeats=1
    )
    assert us > 0
    if name in NFE:
        assert nfe == pytest.approx(NFE[name], abs=0.2)
    assert 1 <= nfe <= 2
