"""No step of a sampler looks at a signal or a map of weights, for which it would have to wait on a GPU."""

from dataclasses import replace

import pytest
from benchmarks.sampling_overhead import CASES, SAMPLERS, steps_of


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_step_looks_at_a_signal(sampler: str, case: str) -> None:
    run = steps_of(SAMPLERS[sampler], replace(CASES[case], steps=4), "meta")
    assert run().is_meta  # such tensors have no values: to look at one raises
