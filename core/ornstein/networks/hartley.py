"""A network of pictures that is asked in the basis of frequencies."""

from torch import Tensor, nn

from ornstein.process.shortest_path import hartley


class InHartley(nn.Module):
    """hartley network(hartley x): (B, C, H, W) of frequencies in and out, the network sees and gives pictures.

    Noise, x0, v and score are linear in the signal, so what the network means by its output stays true.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return hartley(self.network(hartley(x), t, **condition))
