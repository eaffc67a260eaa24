"""Every parameterization turns its own target back into the true Estimate."""

import pytest
import torch

from ornstein.estimate import Estimate
from ornstein.parameterization import (
    X0,
    EDMPreconditioning,
    Mean,
    Noise,
    Parameterization,
    Residual,
    Score,
    TwoOutput,
    V,
    Velocity,
)
from ornstein.process.affine import Process
from tests.core.process.test_processes import every_process

PARAMETERIZATIONS = [
    X0(),
    Noise(),
    Score(),
    Score(scale=-1.0),
    V(),
    Velocity(),
    Mean(),
    Residual(),
    TwoOutput(),
    EDMPreconditioning(),
    EDMPreconditioning(sigma_data=0.1),
]


@every_process
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_round_trip(process: Process, parameterization: Parameterization, dtype: torch.dtype) -> None:
    x0, z, y = torch.randn(3, 4, 2, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.1, 0.4, 0.7, 0.9], dtype=torch.float64) * process.T
    x = process.sample(x0, t, z, y)
    truth = Estimate(process, x, t, x0, z, y)
    estimate = parameterization.estimate(process, parameterization.target(truth), x, t, y)
    for field in ("x0", "noise", "score", "velocity", "mean"):
        torch.testing.assert_close(getattr(estimate, field), getattr(truth, field), rtol=1e-7, atol=1e-7)


def test_edm_input_has_unit_variance_for_data_of_the_stated_deviation() -> None:
    from ornstein.process.edm import EDM as EDMProcess

    generator = torch.Generator().manual_seed(0)
    process, d = EDMProcess(), 0.5
    x0 = d * torch.randn(100_000, 1, generator=generator, dtype=torch.float64)
    t = torch.tensor(1.3, dtype=torch.float64)
    x = process.sample(x0, t, torch.randn(x0.shape, generator=generator, dtype=torch.float64))
    scaled, network_time, _ = EDMPreconditioning(d).inputs(process, x, t)
    assert abs(scaled.std() - 1) < 0.01
    assert abs(network_time - torch.tensor(1.3).log() / 4) < 1e-6
