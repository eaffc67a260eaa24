"""RDDM's networks of a residual and a noise (Liu et al. 2024, arXiv 2308.13712), with the published tensor names."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ornstein.errors import UserError
from ornstein.networks.conditioning import join
from ornstein.networks.padding import pad_to_multiple
from ornstein.networks.residual_unet import (
    Attention,
    PreNorm,
    Residual,
    ResidualBlock,
    ResidualUNet,
    check_widths,
    decode,
    down_levels,
    encode,
    time_mlp,
    up_levels,
)


class UNetRes(nn.Module):
    """network(x, t, y, mask=mask, noise_time=noise_time): one `ResidualUNet` or two, which see the same input.

    Two give cat(residual, noise), (B, 2 channels, H, W), for the parameterization `TwoOutput`: 72,522,374 parameters by
    default (the published `share_encoder` 0 without its tables; papers print 15.5 M, which is THOP's count, see
    `ResidualUNet`). One gives (B, channels, H, W) (`share_encoder` -1). The arguments are those of `ResidualUNet`;
    condition_channels 6 is y and a mask image in [0, 1].

    Args:
        networks: 1 or 2.
    """

    def __init__(
        self,
        networks: Literal[1, 2] = 2,
        channels: int = 3,
        condition_channels: int = 3,
        dim: int = 64,
        dim_mults: Sequence[int] = (1, 2, 4, 8),
        groups: int = 8,
    ) -> None:
        super().__init__()
        if networks not in (1, 2):
            raise UserError(f"a UNetRes has 1 or 2 networks, got {networks}")
        self.networks: Literal[1, 2] = networks
        self.channels, self.condition_channels, self.dim = channels, condition_channels, dim
        self.dim_mults, self.groups = tuple(dim_mults), groups
        self.unet0 = ResidualUNet(channels, condition_channels, dim, dim_mults, groups)
        self.unet1 = ResidualUNet(channels, condition_channels, dim, dim_mults, groups) if networks == 2 else None

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | None = None,
        mask: Tensor | None = None,
        noise_time: Tensor | None = None,
    ) -> Tensor:
        """Output of the network or both, in the dtype of x.

        `noise_time` (B,) is the time of the network of the noise where it differs: path-independent generation gives
        `t` = T abar and `noise_time` = T bbar, which need not be whole.

        Raises:
            ValueError: sizes that do not fit.
        """
        first = self.unet0(x, t, y, mask)
        if self.unet1 is None:
            return first
        return torch.cat([first, self.unet1(x, t if noise_time is None else noise_time, y, mask)], dim=1)


class SharedEncoderUNet(nn.Module):
    """network(x, t, y, mask=mask) with one encoder and two decoders, that of the residual without skips: (B, 2
    channels, H, W) as cat(residual, noise) for the parameterization `TwoOutput` (the published `share_encoder` 1).

    The arguments are those of `ResidualUNet`.
    """

    def __init__(
        self,
        channels: int = 3,
        condition_channels: int = 3,
        dim: int = 64,
        dim_mults: Sequence[int] = (1, 2, 4, 8),
        groups: int = 8,
    ) -> None:
        super().__init__()
        check_widths(dim, dim_mults, groups)
        self.channels, self.condition_channels, self.dim = channels, condition_channels, dim
        self.dim_mults, self.groups = tuple(dim_mults), groups
        widths = [dim, *(dim * multiple for multiple in dim_mults)]
        self.init_conv = nn.Conv2d(channels + condition_channels, dim, 7, padding=3)
        self.time_mlp = time_mlp(dim)
        self.downs = down_levels(widths, 4 * dim, groups)
        self.ups = up_levels(widths, 4 * dim, groups, skips=True)
        self.ups_no_skip = up_levels(widths, 4 * dim, groups, skips=False)
        self.mid_block1 = ResidualBlock(widths[-1], widths[-1], 4 * dim, groups)
        self.mid_attn = Residual(PreNorm(widths[-1], Attention(widths[-1])))
        self.mid_block2 = ResidualBlock(widths[-1], widths[-1], 4 * dim, groups)
        self.final_res_block_1 = ResidualBlock(dim, dim, 4 * dim, groups)
        self.final_conv_1 = nn.Conv2d(dim, channels, 1)
        self.final_res_block_2 = ResidualBlock(2 * dim, dim, 4 * dim, groups)
        self.final_conv_2 = nn.Conv2d(dim, channels, 1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Both outputs, in the dtype of x.

        Raises:
            ValueError: sizes that do not fit.
        """
        signal = join(x, t, y, mask, self.channels, self.condition_channels)
        first = self.init_conv(pad_to_multiple(signal, 2 ** (len(self.dim_mults) - 1)))
        embedding = self.time_mlp(t)
        h, skips = encode(self.downs, first, embedding)
        h = self.mid_block2(self.mid_attn(self.mid_block1(h, embedding)), embedding)
        residual = decode(self.ups_no_skip, h, embedding)
        residual = self.final_conv_1(self.final_res_block_1(residual, embedding))
        noise = decode(self.ups, h, embedding, skips)
        noise = self.final_conv_2(self.final_res_block_2(torch.cat([noise, first], dim=1), embedding))
        return torch.cat([residual, noise], dim=1)[..., : x.shape[2], : x.shape[3]].to(x.dtype)


def from_published(options: Mapping[str, Any]) -> UNetRes | SharedEncoderUNet:
    """The network of a published RDDM run from the options of its script, defaults as published.

    Args:
        options: flat mapping with `share_encoder` (or `num_unet`), `dim`, `dim_mults`, `channels`, `condition`,
            `input_condition` and `resnet_block_groups`; other entries are ignored.

    Raises:
        UserError: an unknown share_encoder.
    """
    shared = options.get("share_encoder", {1: -1, 2: 0}.get(options.get("num_unet", 0), 1))
    channels = options.get("channels", 3)
    arguments = {
        "channels": channels,
        "condition_channels": channels
        * (bool(options.get("condition", True)) + bool(options.get("input_condition", False))),
        "dim": options.get("dim", 64),
        "dim_mults": options.get("dim_mults", (1, 2, 4, 8)),
        "groups": options.get("resnet_block_groups", 8),
    }
    if shared == 1:
        return SharedEncoderUNet(**arguments)
    if shared not in (0, -1):
        raise UserError(f"share_encoder is {shared!r}; published networks have 0, 1 or -1")
    return UNetRes(networks=2 if shared == 0 else 1, **arguments)
