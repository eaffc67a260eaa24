"""Super-resolution without diffusion: one call from the small picture to the large one, UPSR's g."""

from collections.abc import Callable

from torch import Tensor, nn

from ornstein.denoiser import Denoiser
from ornstein.parameterization import OneShot, Parameterization
from ornstein.pictures.sizes import upscale
from ornstein.process.affine import Process
from ornstein.process.prediction import Prediction


class RegressionUpscaler(Denoiser):
    """A super-resolution network, such as ATD, as a predictive denoiser that takes the small picture in [-1, 1].

    The network goes from pictures (B, 3, h, w) in [0, 1] to (B, 3, scale h, scale w).

    Its process runs on large pictures; the representation leaves the enlargement to this denoiser.

    Args:
        network: the network; it is not told the time.
        process: no diffusion.
        parameterization: the network gives the clean picture.
        scale: of the network.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process = Prediction(),  # noqa: B008  # frozen
        parameterization: Parameterization = OneShot(),  # noqa: B008  # frozen
        scale: int = 4,
    ) -> None:
        super().__init__(network, process, parameterization)
        self.scale = scale

    def observe(self, y: Tensor | None) -> tuple[Tensor | None, dict[str, Tensor]]:
        """The bicubic enlargement of `y` (B, 3, h, w), and `y` itself for the network."""
        if y is None:
            raise ValueError("super-resolution needs the small picture")
        return upscale(y, self.scale), {"small": y}

    def with_networks(self, change: Callable[[nn.Module], nn.Module]) -> "RegressionUpscaler":
        return RegressionUpscaler(change(self.network), self.process, self.parameterization, self.scale)

    def output(self, x: Tensor, t: Tensor, y: Tensor | None = None, **condition: Tensor) -> Tensor:
        """The network's picture, in [-1, 1]."""
        large: Tensor = self.network((condition["small"] + 1) / 2)
        return (2 * large - 1).to(x.dtype)
