import torch
from torch import Tensor, nn

from ornstein.config import build, describe
from ornstein.denoiser import Denoiser, DenoiserLike
from ornstein.networks.ncsnpp import NCSNpp
from ornstein.parameterization import X0, EDMPreconditioning
from ornstein.process.edm import EDM as EDMProcess
from ornstein.process.ouve import OUVE


class Recorder(nn.Module):
    """Returns half its input and remembers how it was called."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, **condition: Tensor) -> Tensor:
        self.call = (x, t, y, condition)
        return x / 2


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
