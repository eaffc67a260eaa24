"""Posterior samplers and guidance on every process: they run, or name the coefficient that they divide by."""

import pytest
import torch
from torch import Tensor

from ornstein.analysis.examples import MIXTURE, PROCESSES
from ornstein.analysis.mixture import MixtureDenoiser
from ornstein.guidance.gradient import ClassifierGuidance, EnergyGuidance
from ornstein.inverse_problems.base import PosteriorSampler
from ornstein.inverse_problems.ddrm import DDRM
from ornstein.inverse_problems.dps import DPS
from ornstein.inverse_problems.operators import Matrix
from ornstein.inverse_problems.pigdm import PiGDM, PseudoinverseGuidance
from ornstein.inverse_problems.red_diff import REDDiff
from ornstein.noise import SampleNoise
from ornstein.process.affine import Process, as_time
from ornstein.samplers.base import SamplingError
from ornstein.samplers.ode_solvers import Euler
from ornstein.samplers.time_grids import UniformGrid

F64 = torch.float64
H = Matrix(torch.tensor([[1.0, 0.0]], dtype=F64))
MEASURED = torch.full((3, 1), 0.5, dtype=F64)
PLAIN = [name for name in PROCESSES if name not in ("UPSR", "VE", "EDM", "Resfusion, a < 0")]
"""A map of noise levels has no single a and s; the others diverge from states of scale 20 or have a < 0."""


def run(sampler: PosteriorSampler, process: Process) -> Tensor:
    noise, y = SampleNoise(range(3)), torch.ones(3, 2, dtype=F64)
    return sampler(MixtureDenoiser(MIXTURE, process), sampler.start(process, noise, y), y, noise)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(("method", "divisor"), [(DDRM, "a"), (PiGDM, "s"), (REDDiff, "a")])
def test_a_zero_divisor_is_named(name: str, method: type[PosteriorSampler], divisor: str) -> None:
    process = PROCESSES[name]
    a, _, s, _ = process.coefficients(as_time(process.T))
    sampler = method(steps=6, grid=UniformGrid(), operator=H, measurement=MEASURED)
    if float({"a": a, "s": s}[divisor]) <= 0:
        with pytest.raises(SamplingError, match=rf"needs {divisor} > 0.* at t = .*begin below"):
            run(sampler, process)
        sampler = method(steps=6, grid=UniformGrid(start=0.9 * process.T), operator=H, measurement=MEASURED)
    assert run(sampler, process).isfinite().all()


@pytest.mark.parametrize("name", ["rectified flow", "trigonometric", "bridge", "interpolant"])
@pytest.mark.parametrize("kind", ["classifier", "energy", "pseudoinverse"])
def test_guidance_leaves_a_state_without_signal_alone(name: str, kind: str) -> None:
    """From T on, where a = 0: the first estimate is the plain one, the sample is moved by the steps that follow."""
    process = PROCESSES[name]
    plain = MixtureDenoiser(MIXTURE, process)
    guided = {
        "classifier": ClassifierGuidance(plain, lambda x, t: -(x[:, 0] - 1).square(), 2.0),
        "energy": EnergyGuidance(plain, lambda x0: (x0[:, 0] - 1).square(), 2.0),
        "pseudoinverse": PseudoinverseGuidance(plain, H, MEASURED, 0.1),
    }[kind]
    y = torch.ones(3, 2, dtype=F64)
    x = process.start(SampleNoise(range(3))(y), y)
    torch.testing.assert_close(guided(x, process.T, y).x0, plain(x, process.T, y).x0)
    sampler = Euler(8)
    found, without = sampler(guided, x, y), sampler(plain, x, y)
    assert found.isfinite().all()
    assert not torch.allclose(found, without, atol=1e-3)


@pytest.mark.parametrize(("method", "name"), [(DDRM, "DDRM"), (PiGDM, "PiGDM"), (REDDiff, "RED-diff")])
def test_a_map_of_noise_levels_is_named(method: type[PosteriorSampler], name: str) -> None:
    sampler = method(steps=5, grid=UniformGrid(), operator=H, measurement=MEASURED)
    with pytest.raises(SamplingError, match=f"{name} takes one noise level for all pixels, and this UPSR has a map"):
        run(sampler, PROCESSES["UPSR"])
    with pytest.raises(SamplingError, match="one noise level"):
        PseudoinverseGuidance(MixtureDenoiser(MIXTURE, PROCESSES["UPSR"]), H, MEASURED, 0.1)


def test_dps_takes_a_map_of_noise_levels() -> None:
    sampler = DPS(steps=5, grid=UniformGrid(), operator=H, measurement=MEASURED, eta=1.0)
    assert run(sampler, PROCESSES["UPSR"]).isfinite().all()
