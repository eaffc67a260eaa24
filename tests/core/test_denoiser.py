import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.config import build, describe
from ornstein.denoiser import Denoiser, DenoiserLike
from ornstein.errors import UserError
from ornstein.networks.ncsnpp import NCSNpp
from ornstein.parameterization import X0, EDMPreconditioning
from ornstein.process.edm import EDM as EDMProcess
from ornstein.process.ouve import OUVE
from ornstein.process.vp import VP
from ornstein.samplers.ode_solvers import Euler


class Recorder(nn.Module):
    """Returns half its input and remembers how it was called."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, **condition: Tensor) -> Tensor:
        self.call = (x, t, y, condition)
        return x / 2


class Narrow(nn.Module):
    """A layer of four values; `cast` makes its input float32."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor, t: Tensor, cast: Tensor | None = None) -> Tensor:
        output: Tensor = self.layer(x if cast is None else x.to(cast.dtype))
        return output


def test_the_network_sees_scaled_input_vector_time_and_condition() -> None:
    network = Recorder()
    x, label = torch.randn(3, 2), torch.tensor([1, 2, 3])
    estimate = Denoiser(network, EDMProcess(), EDMPreconditioning(sigma_data=0.5))(x, 2.0, label=label)
    seen, t, y, condition = network.call
    torch.testing.assert_close(seen, x / (0.25 + 4.0) ** 0.5)
    torch.testing.assert_close(t, torch.full((3,), 2.0).log() / 4)
    assert y is None
    assert condition["label"] is label
    c_skip, c_out = 0.25 / 4.25, 2.0 * 0.5 / 4.25**0.5
    torch.testing.assert_close(estimate.x0, c_skip * x + c_out * seen / 2)


def test_complex_signals_keep_their_type_and_times_are_real() -> None:
    network = Recorder()
    x = torch.randn(2, 1, 4, 4, dtype=torch.complex64)
    estimate = Denoiser(network, OUVE(), X0())(x, torch.tensor([0.3, 0.7], dtype=torch.float64), x)
    assert network.call[1].dtype == torch.float32
    assert estimate.x0.dtype == estimate.noise.dtype == estimate.score.dtype == torch.complex64


def test_autocast_reaches_the_network_only() -> None:
    torch.manual_seed(0)
    network = NCSNpp(nf=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(), image_size=16)
    denoiser = Denoiser(network, OUVE(), X0())
    x = torch.randn(1, 1, 16, 16, dtype=torch.complex64)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        estimate = denoiser(x, 0.5, x)
    assert estimate.x0.dtype == torch.complex64
    residual = x - estimate.mean - OUVE().coefficients(torch.tensor(0.5, dtype=torch.float64)).s * estimate.noise
    assert residual.abs().max() < 1e-5  # the parts add up in float32 precision


def test_a_denoiser_is_described_and_built_again() -> None:
    denoiser = Denoiser(NCSNpp(nf=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=()), OUVE(theta=2.0), X0())
    again = build(describe(denoiser), Denoiser)
    assert again.process == denoiser.process
    assert isinstance(again, DenoiserLike)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in denoiser.state_dict().items()}


@pytest.mark.parametrize(
    ("given", "weights", "state"),
    [
        (torch.float64, "float32", "float32"),
        (torch.float16, "float32", "float32"),
        (torch.float32, "float64", "float64"),
        (torch.complex128, "float32", "complex64"),
    ],
)
def test_a_state_of_another_type_than_the_weights_is_named(given: torch.dtype, weights: str, state: str) -> None:
    denoiser = Denoiser(nn.Conv2d(1, 1, 1).to(getattr(torch, weights)), VP(), X0())
    denoiser.network.forward = lambda x, t: F.conv2d(x, denoiser.network.weight)  # type: ignore[method-assign, arg-type]
    x = torch.ones(2, 1, 4, 4, dtype=given)
    wanted = rf"of {given} and the weights of the network of torch.{weights}; give the state as x.to\(torch.{state}\)"
    for call in (lambda: denoiser(x, 0.5), lambda: Euler(2)(denoiser, x)):
        with pytest.raises(UserError, match=wanted):
            call()


def test_another_failure_of_a_network_keeps_its_own_error() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        Denoiser(Narrow(), VP(), X0())(torch.ones(2, 3), 0.5)


def test_other_types_than_that_of_the_weights_are_no_mistake_where_the_network_takes_them() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert Denoiser(Narrow(), VP(), X0())(torch.ones(2, 4), 0.5).x0.dtype == torch.float32
    assert Denoiser(Narrow(), VP(), X0())(torch.ones(2, 4).double(), 0.5, cast=torch.ones(())).x0.dtype == torch.float64
