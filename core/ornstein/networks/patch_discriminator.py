"""The discriminator that tells patches of real pictures from decoded ones (Isola et al. 2017, arXiv 1611.07004)."""

import torch
from torch import Tensor, nn

from ornstein.errors import UserError


class PatchDiscriminator(nn.Module):
    """A number for every patch of pictures (B, C, H, W), high for real ones: (B, 1, H', W').

    As in VQGAN (Esser et al. 2021, arXiv 2012.09841), but for group norm in place of batch norm: real and decoded
    pictures are judged by the same function, whatever else is in the batch and on the other devices.

    Args:
        in_channels: C.
        ch: channels of the first layer, a multiple of 8.
        layers: convolutions that halve the sides; 3 see patches of 70 pixels.

    Raises:
        UserError: sizes that no network can have.
    """

    def __init__(self, in_channels: int = 3, ch: int = 64, layers: int = 3) -> None:
        super().__init__()
        if min(in_channels, ch, layers) < 1 or ch % 8:
            raise UserError(
                "a PatchDiscriminator needs in_channels and layers of at least 1 and ch, a multiple of 8, "
                f"got {in_channels}, {layers} and {ch}"
            )
        self.in_channels, self.ch, self.layers = in_channels, ch, layers
        body: list[nn.Module] = [nn.Conv2d(in_channels, ch, 4, 2, 1), nn.LeakyReLU(0.2)]
        channels = ch
        for index in range(1, layers + 1):
            wider = ch * min(2**index, 8)
            stride = 2 if index < layers else 1
            body += [nn.Conv2d(channels, wider, 4, stride, 1, bias=False), nn.GroupNorm(8, wider), nn.LeakyReLU(0.2)]
            channels = wider
        self.main = nn.Sequential(*body, nn.Conv2d(channels, 1, 4, 1, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)

    def forward(self, picture: Tensor) -> Tensor:
        """The judgement of each patch; raises ValueError where the sides are too short for one."""
        shortest = 2 ** (self.layers + 1) + 2 ** (self.layers - 1)
        if min(picture.shape[-2:]) < shortest:
            size = f"{picture.shape[-2]} x {picture.shape[-1]}"
            raise ValueError(f"{size} pixels hold no patch of this discriminator; give {shortest} at least")
        judged: Tensor = self.main(picture)
        return judged


def frozen(network: nn.Module, x: Tensor) -> Tensor:
    """`network` at `x` with a gradient for `x` alone."""
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    judged: Tensor = torch.func.functional_call(network, weights, (x,))
    return judged
