"""What the network is shown, and the range of what is read."""

import pytest
import torch
from torch import Tensor, nn

from ornstein.config import build, describe
from ornstein.denoiser import Denoiser
from ornstein.parameterization import X0, Noise, Parameterization
from ornstein.process.affine import as_time
from ornstein.process.residual_shift import ResidualShift
from ornstein.process.upsr import UPSR
from ornstein.wrapped_parameterizations import (
    ClippedX0,
    HiddenObservation,
    RangeScaling,
    ScaledInput,
    VarianceScaling,
)


class Seeing(nn.Module):
    """Gives back what it sees."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        self.observation = y
        return x


def signals() -> tuple[Tensor, Tensor]:
    x, y = 3 * torch.randn(2, 2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return x, y


@pytest.mark.parametrize(
    ("scaling", "by_hand"),
    [
        (VarianceScaling(), lambda s: 1 / (1 + s**2) ** 0.5),
        (VarianceScaling(data=0.25, noise=0.3), lambda s: 1 / (0.3 * s**2 + 0.25) ** 0.5),
        (RangeScaling(), lambda s: 1 / (1 + 3 * s)),
    ],
)
def test_the_network_sees_the_scaled_state(scaling, by_hand) -> None:  # type: ignore[no-untyped-def]
    x, y = signals()
    process = ResidualShift()
    s = float(process.coefficients(as_time(9.0)).s)
    found = Denoiser(Seeing(), process, ScaledInput(X0(), scaling))(x, 9.0, y)
    torch.testing.assert_close(found.x0, by_hand(s) * x)
    assert torch.equal(found.x, x)  # the process goes on with the state itself
    t = torch.tensor([9.0, 2.0])  # each sample by its own time
    both = Denoiser(Seeing(), process, ScaledInput(X0(), scaling))(x, t, y)
    torch.testing.assert_close(both.x0[0], found.x0[0])
    assert not torch.allclose(both.x0[1], found.x0[1])


def test_scaling_goes_by_the_scalar_reference_where_the_noise_is_a_map() -> None:
    x, y = signals()
    plain, weighted = UPSR(), UPSR().weighted(torch.full((2, 3, 4, 4), 0.5))
    asked = ScaledInput(X0(), VarianceScaling(0.25, 0.3))
    assert torch.equal(
        Denoiser(Seeing(), plain, asked)(x, 3.0, y).x0, Denoiser(Seeing(), weighted, asked)(x, 3.0, y).x0
    )


def test_hidden_observation() -> None:
    x, y = signals()
    shown, hidden = (Denoiser(Seeing(), ResidualShift(), p) for p in (Noise(), HiddenObservation(Noise())))
    torch.testing.assert_close(shown(x, 4.0, y).x0, hidden(x, 4.0, y).x0)
    assert shown.network.observation is y
    assert hidden.network.observation is None


def test_clipped_x0() -> None:
    x, y = signals()
    process = ResidualShift()
    found = Denoiser(Seeing(), process, ClippedX0(X0(), 0.8))(x, 4.0, y)
    assert torch.equal(found.x0, x.clamp(-0.8, 0.8))
    torch.testing.assert_close(process.sample(found.x0, 4.0, found.noise, y), x)
    with pytest.raises(ValueError, match="positive"):
        ClippedX0(bound=0.0)
    with pytest.raises(ValueError, match="data > 0"):
        VarianceScaling(data=0.0)


@pytest.mark.parametrize("component", [ScaledInput(Noise(), RangeScaling()), HiddenObservation(), ClippedX0(bound=2.0)])
def test_they_are_data(component: Parameterization) -> None:
    assert build(describe(component), Parameterization) == component
