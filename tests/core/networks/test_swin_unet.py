"""The Swin-UNet of ResShift and UPSR on its own."""

import pytest
import torch
import torch.nn.functional as F
from reference_weights import filled, parameters
from restoration_networks import CASES, swin

from ornstein.errors import UserError
from ornstein.networks.swin_unet import SwinUNet, from_published, published_mask
from ornstein.networks.window_attention import shift_mask


def test_numbers_of_parameters() -> None:
    with torch.device("meta"):
        assert parameters(SwinUNet()) == 118_593_583
        assert parameters(SwinUNet(48, 96, num_feat=128)) == 119_418_319


def test_observation_of_another_size() -> None:
    x, t, y = CASES["Swin-UNet"].signals()
    network = filled(swin())
    small = y[..., ::4, ::4]
    assert torch.equal(network(x, t, small), network(x, t, small.repeat_interleave(4, 2).repeat_interleave(4, 3)))
    large = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    wide = filled(swin(condition_channels=12))
    assert torch.equal(wide(x, t, large), wide(x, t, F.pixel_unshuffle(large, 2)))
    with pytest.raises(ValueError, match="no whole factor"):
        network(x, t, y[..., :7, :])


def test_published_mask_is_not_that_of_the_shift() -> None:
    """It leaves the windows on the right whole, and parts those at the bottom the wrong way."""
    published, right = published_mask(8, 12, 4, 2), shift_mask(8, 12, 4, 2)
    assert published.shape == right.shape == (6, 16, 16)
    assert [int((window != 0).sum()) for window in published] == [0, 0, 0, 128, 128, 128]
    assert [int((window != 0).sum()) for window in right] == [0, 0, 128, 128, 128, 192]
    columns = torch.arange(16) % 4 >= 2
    assert torch.equal(published[3] != 0, columns[:, None] != columns[None, :])
    assert torch.equal(right[2], published[3])


def test_small_levels_are_one_window_without_shift() -> None:
    network = swin()
    layers = {name: layer for name, layer in network.named_modules() if type(layer).__name__ == "SwinLayer"}
    assert {layer.window for layer in layers.values()} == {4}
    small = SwinUNet(
        model_channels=32, channel_mult=(1, 2), num_res_blocks=(1, 1), attention_resolutions=(8, 4), image_size=8,
        swin_embed_dim=32, window_size=8,
    )  # fmt: skip
    assert [block.shift for block in small.middle_block[1].blocks] == [0, 0]
    assert small.middle_block[1].window == 4
    assert all(block.mask is None for block in small.input_blocks[1][1].blocks)


def test_published_options() -> None:
    options = {"in_channels": 15, "out_channels": 3, "model_channels": 32, "swin_embed_dim": 64, "cond_lq": True}
    with torch.device("meta"):
        network = from_published(options)
        upsr = from_published(options | {"in_channels": 48, "num_feat": 16})
        newer = from_published({"in_channels": 3, "out_channels": 3, "cond_lq": True, "lq_size": 64, "image_size": 64})
    assert (network.in_channels, network.condition_channels, network.num_feat) == (3, 12, None)
    assert parameters(newer) == 118_593_583
    with pytest.raises(UserError, match="lq_size 32"):
        from_published({"in_channels": 3, "cond_lq": True, "lq_size": 32})
    assert (upsr.in_channels, upsr.condition_channels, upsr.num_feat) == (48, 96, 16)


@pytest.mark.parametrize(
    "arguments",
    [{"model_channels": 48}, {"swin_embed_dim": 100}, {"num_head_channels": 36}, {"channel_mult": (1, 2)}],
)
def test_impossible_options_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(UserError, match="SwinUNet"):
        SwinUNet(**arguments)
