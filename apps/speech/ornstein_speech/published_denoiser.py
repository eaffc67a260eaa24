"""How the published `ncsnpp_v2` code calls its network; our own models use Denoiser."""

from torch import Tensor, nn

from ornstein.denoiser import Denoiser
from ornstein.estimate import Estimate
from ornstein.process.affine import Process, as_time, expand
from ornstein_speech.preconditioning import Preconditioned


class PublishedDenoiser(Denoiser):
    """Denoiser that scales the observation like the state: F(c_in x, t, c_in y) (Richter et al. 2024)."""

    def __init__(self, network: nn.Module, process: Process, parameterization: Preconditioned) -> None:
        super().__init__(network, process, parameterization)
        self.parameterization: Preconditioned = parameterization

    def forward(self, x: Tensor, t: Tensor | float, y: Tensor | None = None, **condition: Tensor) -> Estimate:
        """Estimate for `x` (B, *) at time `t`, () or (B,), given the observation `y` (B, *)."""
        if y is None:
            raise ValueError("PublishedDenoiser needs the observation y")
        t = as_time(t)
        c_in = expand(self.parameterization.weights(self.process, t)[0], x)
        times = self.process.network_time(t).to(device=x.device, dtype=x.real.dtype).expand(len(x))
        output = self.network(c_in * x, times, c_in * y, **condition).to(x.dtype)
        return self.parameterization.estimate(self.process, output, x, t, y)
