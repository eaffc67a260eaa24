"""No step of a sampler looks at a signal or a map of weights, for which it would have to wait on a GPU."""

from dataclasses import replace

import pytest
from benchmarks.sampling_overhead import CASES, GUIDANCE, GUIDED_CASES, SAMPLERS, guided_steps, steps_of


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_step_looks_at_a_signal(sampler: str, case: str) -> None:
    run = steps_of(SAMPLERS[sampler], replace(CASES[case], steps=4), "meta")
    assert run().is_meta  # such tensors have no values: to look at one raises


NFE = {"none": 1, "classifier-free": 2, "classifier-free, in an interval of t": 1.5, "adaptive, never left": 2}


@pytest.mark.parametrize("case", GUIDED_CASES)
@pytest.mark.parametrize("name", GUIDANCE)
def test_every_guidance_runs_and_is_counted(name: str, case: str) -> None:
    us, nfe = guided_steps(
        GUIDANCE[name], replace(CASES[case], steps=30 if name == "linear adaptive" else 6), repeats=1
    )
    assert us > 0
    if name in NFE:
        assert nfe == pytest.approx(NFE[name], abs=0.2)
    assert 1 <= nfe <= 2
