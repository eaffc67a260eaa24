"""The UNet of DDPM and DDIM on its own."""

import pytest
import torch
from reference_weights import filled, parameters

from ornstein.errors import UserError
from ornstein.networks.ddim_unet import AttentionBlock, DDIMUNet, Level, from_published


def test_number_of_parameters() -> None:
    with torch.device("meta"):
        assert parameters(DDIMUNet()) == 35_746_307


def test_attention_is_where_the_picture_has_that_side() -> None:
    network = DDIMUNet(ch=32, ch_mult=(1, 1, 1), num_res_blocks=1, attn_resolutions=(16,), image_size=32)
    for levels in (network.down, network.up):
        assert [isinstance(level, Level) and len(level.attn) > 0 for level in levels] == [False, True, False]


def test_attention_is_the_formula() -> None:
    layer = filled(AttentionBlock(32)).double()
    x = torch.randn(2, 32, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    h = layer.norm(x)
    query, key, value = (part(h).flatten(2) for part in (layer.q, layer.k, layer.v))
    weights = torch.einsum("bci,bcj->bij", query, key).mul(32**-0.5).softmax(dim=2)
    out = torch.einsum("bij,bcj->bci", weights, value).reshape(x.shape)
    torch.testing.assert_close(layer(x), x + layer.proj_out(out))


def test_condition_is_joined() -> None:
    network = filled(DDIMUNet(ch=32, ch_mult=(1,), num_res_blocks=1, condition_channels=3))
    x, y = torch.randn(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    assert network(x, torch.ones(1), y).shape == x.shape
    with pytest.raises(ValueError, match="3 channels of y"):
        network(x, torch.ones(1))


def test_dropout_is_for_training_only() -> None:
    network = filled(DDIMUNet(ch=32, ch_mult=(1,), num_res_blocks=1, dropout=0.5))
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(x, torch.ones(1)), network(x, torch.ones(1)))
    network.train()
    torch.manual_seed(0)
    assert not torch.equal(network(x, torch.ones(1)), network(x, torch.ones(1)))


def test_options_that_are_not_built_are_refused() -> None:
    with pytest.raises(UserError, match="resamp_with_conv"):
        from_published({"resamp_with_conv": False})
    with pytest.raises(UserError, match="a multiple of 32"):
        DDIMUNet(ch=48)
