"""Two networks as one denoiser: what each is told, copies, checkpoints."""

import pytest
import torch
from torch import Tensor, nn

from ornstein.acceleration.denoiser import Acceleration, accelerate
from ornstein.checkpoint import load, save
from ornstein.config import describe
from ornstein.networks.unet import UNet
from ornstein.objectives.outputs import OutputObjective
from ornstein.parameterization import TwoOutput
from ornstein.process.rddm import RDDM
from ornstein.residual_outputs import ResidualOutputs
from ornstein.samplers.compat_residual import PublishedResidual
from ornstein.two_networks import TwoNetworks
from ornstein.wrapped_parameterizations import HiddenObservation


class Told(nn.Module):
    """Remembers what it is given."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, **condition: Tensor) -> Tensor:
        self.given = t, y, condition
        return x


def small(amounts: float | None = None) -> TwoNetworks:
    torch.manual_seed(0)
    return TwoNetworks(UNet(1, 8, 1), UNet(1, 8, 1), RDDM(10), HiddenObservation(ResidualOutputs()), amounts)


@pytest.mark.parametrize("t", [7.0, torch.tensor([7.0, 3.0])])
@pytest.mark.parametrize("amounts", [None, 1000.0])
def test_what_each_network_is_told(t: Tensor | float, amounts: float | None) -> None:
    process = RDDM(10, sum_scale=0.01)
    denoiser = TwoNetworks(Told(), Told(), process, TwoOutput(), amounts)
    x, y, mask = torch.randn(3, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    denoiser(x, t, y, mask=mask)
    times = torch.as_tensor(t, dtype=torch.float64).expand(2)
    c = process.coefficients(times)
    expected = [times - 1, times - 1] if amounts is None else [1000 * c.b, 1000 * c.s]
    for network, told in zip(denoiser.networks, expected, strict=True):
        torch.testing.assert_close(network.given[0], told.float())
        assert network.given[1] is y
        assert network.given[2] == {"mask": mask}


def test_both_learn() -> None:
    denoiser = small()
    x0, y = torch.rand(2, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    OutputObjective("absolute")(denoiser, x0, y, generator=torch.Generator())["loss"].backward()
    for network in denoiser.networks:
        assert any(weight.grad is not None and weight.grad.any() for weight in network.parameters())


def test_faster_copies_and_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> None:
    denoiser, path = small(amounts=1000), tmp_path_factory.mktemp("rddm") / "rddm.safetensors"
    save(path, denoiser, app="restoration", sampler=PublishedResidual(5))
    again = load(path, "restoration")
    assert isinstance(again.denoiser, TwoNetworks)
    assert again.sampler == PublishedResidual(5)
    assert describe(again.denoiser) == describe(denoiser)
    z = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    fast = accelerate(denoiser, Acceleration())
    ours, theirs, copied = (PublishedResidual(5)(d.eval(), z, z) for d in (denoiser, again.denoiser, fast))
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(ours, copied)
