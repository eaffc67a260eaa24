"""Small networks of restoration with weights that are nowhere zero, and signals for them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from reference_weights import filled
from torch import Tensor, nn

from ornstein.networks.atd import ATD
from ornstein.networks.ddim_unet import DDIMUNet
from ornstein.networks.dit import DiT
from ornstein.networks.residual_unet import ResidualUNet
from ornstein.networks.swin_unet import SwinUNet
from ornstein.networks.unet_res import SharedEncoderUNet, UNetRes


def swin(in_channels: int = 3, condition_channels: int = 3, num_feat: int | None = None) -> SwinUNet:
    return SwinUNet(
        in_channels,
        condition_channels,
        model_channels=32,
        channel_mult=(1, 2),
        num_res_blocks=(1, 1),
        attention_resolutions=(16, 8),
        image_size=16,
        num_head_channels=16,
        swin_embed_dim=32,
        window_size=4,
        mlp_ratio=2,
        num_feat=num_feat,
    )


@dataclass(frozen=True)
class Case:
    """A network, its channels and what it makes of a side."""

    build: Callable[[], nn.Module]
    channels: int = 3
    condition: int = 3
    unit: int = 2
    """Sides that are multiples of this are not padded."""
    scale: int = 1
    outputs: int = 3
    any_size: bool = True
    bf16_error: float = 0.03

    def network(self) -> nn.Module:
        return filled(self.build())

    def signals(self, height: int = 16, width: int = 16, batch: int = 2) -> tuple[Tensor, ...]:
        """x, t and y where there is one."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(batch, self.channels, height, width, generator=generator)
        y = torch.randn(batch, self.condition, height, width, generator=generator)
        return (x, torch.arange(1.0, batch + 1), y) if self.condition else (x, torch.arange(1.0, batch + 1))


TINY = {"dim": 8, "dim_mults": (1, 2)}
CASES = {
    "residual UNet": Case(lambda: ResidualUNet(**TINY)),
    "pair": Case(lambda: UNetRes(dim=8, dim_mults=(1,)), outputs=6, unit=1),
    "shared encoder": Case(lambda: SharedEncoderUNet(**TINY), outputs=6),
    "Swin-UNet": Case(swin, unit=8),
    "UPSR": Case(lambda: swin(48, 96, num_feat=16), 48, 96, unit=8, scale=4),
    "DiT": Case(lambda: DiT(16, 4, hidden_size=16, depth=2, num_heads=2), any_size=False),
    "DDIM": Case(
        lambda: DDIMUNet(ch=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(8,), image_size=16), condition=0
    ),
    "ATD": Case(
        lambda: ATD(
            embed_dim=16,
            depths=(2, 2),
            num_heads=(2, 2),
            window_size=4,
            category_size=12,
            num_tokens=4,
            reducted_dim=4,
            convffn_kernel_size=3,
        ),
        condition=0,
        unit=4,
        scale=4,
        bf16_error=0.15,  # tokens between two categories change them
    ),
}
