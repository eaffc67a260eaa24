"""A network for the residual and another one for the noise (RDDM)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ornstein.denoiser import Denoiser, one_a_sample
from ornstein.parameterization import Parameterization, TwoOutput
from ornstein.process.affine import Process


class TwoNetworks(Denoiser):
    """Two networks whose outputs are the halves of one output (SM-Res-N of RDDM, Liu et al. 2024, arXiv 2308.13712).

    Both are called as network(c_in x, t, y, **condition). With `amounts` each is told how much of its part is left in x
    in place of the time: b times `amounts`, and s times `amounts`, so that they serve every schedule and every path
    from noise and residual to none (partially path-independent generation, section 4.4 of the paper; published: 1000).

    Args:
        network: gives the first half, the residual.
        noise_network: gives the second half, the noise.
        process: as for `Denoiser`.
        parameterization: of both outputs together.
        amounts: what b = 1 and s = 1 are called; None tells both networks the time.
    """

    def __init__(
        self,
        network: nn.Module,
        noise_network: nn.Module,
        process: Process,
        parameterization: Parameterization = TwoOutput(),  # noqa: B008  # frozen
        amounts: float | None = None,
    ) -> None:
        super().__init__(network, process, parameterization)
        self.noise_network = noise_network
        self.amounts = amounts

    @property
    def networks(self) -> list[nn.Module]:
        return [self.network, self.noise_network]

    def with_networks(self, change: Callable[[nn.Module], nn.Module]) -> "TwoNetworks":
        network, noise_network = change(self.network), change(self.noise_network)
        return TwoNetworks(network, noise_network, self.process, self.parameterization, self.amounts)

    def output(self, x: Tensor, t: Tensor, y: Tensor | None = None, **condition: Tensor) -> Tensor:
        scaled, network_time, seen = self.parameterization.inputs(self.process, x, t, y)
        if self.amounts is None:
            times = [network_time, network_time]
        else:
            _, b, s, _ = self.process.reference(t)
            times = [b * self.amounts, s * self.amounts]
        outputs = []
        for network, time in zip(self.networks, times, strict=True):
            arguments = (scaled, one_a_sample(time, x))
            given = arguments if seen is None else (*arguments, seen)
            outputs.append(network(*given, **condition).to(x.dtype))
        return torch.cat(outputs, dim=1)
