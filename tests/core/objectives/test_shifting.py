"""Losses of residual shifting on latents: published values, and the weights of its targets."""

from dataclasses import dataclass

import pytest
import torch
from reference_vectors import ReferenceFile, reference_files
from torch import Tensor, nn

from ornstein.denoiser import Denoiser
from ornstein.estimate import Estimate
from ornstein.objectives.outputs import OutputObjective
from ornstein.objectives.time_sampling import TimeSampling
from ornstein.objectives.weighting import InverseNoiseVariance, PosteriorWeighting, Unweighted, Weighting
from ornstein.parameterization import X0, Noise, Parameterization, Residual, ScaledNoise
from ornstein.process.affine import Process
from ornstein.process.residual_shift import ResidualShift
from ornstein.wrapped_parameterizations import ScaledInput

CASES: dict[str, tuple[Parameterization, Weighting]] = {
    "xstart": (X0(), Unweighted()),
    "xstart_weighted": (X0(), PosteriorWeighting()),
    "residual": (Residual(), Unweighted()),
    "epsilon": (Noise(), Unweighted()),
    "epsilon_scale": (ScaledNoise(), InverseNoiseVariance()),
}


class Analytic(nn.Module):
    """The network of the reference vectors."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return 0.9 * torch.tanh(0.8 * x + 0.5 * y) + 0.01 * t.reshape(-1, 1, 1, 1)


@dataclass(frozen=True)
class Times(TimeSampling):
    """The same times in every batch."""

    times: tuple[float, ...]

    def __call__(self, process: Process, count: int, generator: torch.Generator) -> Tensor:
        return torch.tensor(self.times, dtype=torch.float64)


@reference_files(
    "infrared",
    "train_loss_*.npz",
    cases=lambda v: [case for case in v.prefixes("_loss") if case in CASES],
    needs=["x0", "y", "noise", "{case}_t", "{case}_zt", "{case}_pred_x0"],
)
def test_published_losses(vectors: ReferenceFile, case: str) -> None:
    x0, y, z = (vectors.tensor(name) for name in ("x0", "y", "noise"))
    t = vectors.tensor(f"{case}_t").double() + 1
    meaning, weighting = CASES[case]
    denoiser = Denoiser(Analytic(), ResidualShift(), ScaledInput(meaning))
    x = denoiser.process.sample(x0, t, z, y)
    torch.testing.assert_close(x, vectors.tensor(f"{case}_zt"), rtol=1e-5, atol=1e-5)
    output = denoiser.output(x, t, y)
    torch.testing.assert_close(denoiser(x, t, y).x0, vectors.tensor(f"{case}_pred_x0"), rtol=1e-4, atol=1e-4)
    objective = OutputObjective(weighting=weighting)
    for i, expected in enumerate(vectors.tensor(f"{case}_loss")):
        one = slice(i, i + 1)
        truth = Estimate(denoiser.process, x[one], t[one], x0[one], z[one], y[one])
        loss = objective.compare(output[one], denoiser.parameterization.target(truth), truth)
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)


def test_scaled_noise_and_noise_weigh_the_same_error() -> None:
    """|s z - F|^2/s^2 = |z - F/s|^2."""
    process = ResidualShift()
    x0, y, z, error = (torch.randn(2, 1, 3, 3, dtype=torch.float64) for _ in range(4))
    t = torch.tensor([1.0, 15.0]).double()
    s = process.coefficients(t).s.reshape(2, 1, 1, 1)
    x = process.sample(x0, t, z, y)
    truth = Estimate(process, x, t, x0, z, y)
    scaled = ScaledNoise()
    torch.testing.assert_close(scaled.target(truth), s * z)
    found = scaled.estimate(process, s * z, x, t, y)
    torch.testing.assert_close(found.x0, x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.noise, z)
    loss = OutputObjective(weighting=InverseNoiseVariance()).compare(s * (z + error), scaled.target(truth), truth)
    torch.testing.assert_close(loss, error.square().mean())


def test_the_weights_are_the_errors_of_the_posterior() -> None:
    """The KL divergence of two posteriors whose x0 differ by d is (w d)^2/(2 v)."""
    process, d = ResidualShift(), 0.3
    for level in (2.0, 7.0, 15.0):
        t = torch.tensor(level).double()
        mean = [process.step(torch.ones(1).double(), t, t - 1, torch.full((1,), x0).double(), torch.zeros(1).double(),
                             None, eta=1.0) for x0 in (0.0, d)]  # fmt: skip
        variance = process.step_weights(t, t - 1).noise ** 2
        normal = [torch.distributions.Normal(m, variance.sqrt()) for m in mean]
        divergence = torch.distributions.kl_divergence(*normal)
        torch.testing.assert_close(PosteriorWeighting()(process, t[None]) * d**2, divergence)
    with pytest.raises(ValueError, match="one level"):
        PosteriorWeighting()(ResidualShift(steps=1), torch.ones(1).double())


def test_levels_are_drawn_alike() -> None:
    denoiser = Denoiser(Analytic(), ResidualShift(), ScaledInput(X0()))
    x0, y = torch.randn(2, 3, 1, 4, 4)
    losses = [
        OutputObjective(time_sampling=Times((float(t),) * 3))(
            denoiser, x0, y, generator=torch.Generator().manual_seed(0)
        )["loss"]
        for t in range(1, 16)
    ]
    assert torch.stack(losses).isfinite().all()
