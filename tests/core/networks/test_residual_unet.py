"""The UNet of RDDM and Resfusion, and its layers."""

import pytest
import torch
import torch.nn.functional as F
from reference_weights import filled, parameters
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ornstein.acceleration import Acceleration, accelerate
from ornstein.denoiser import Denoiser
from ornstein.errors import UserError
from ornstein.networks.residual_unet import Attention, LinearAttention, ResidualUNet, WeightStandardizedConv2d
from ornstein.networks.unet_res import SharedEncoderUNet, UNetRes, from_published
from ornstein.parameterization import Residual, TwoOutput
from ornstein.process.rddm import RDDM


def relative_error(value: torch.Tensor, expected: torch.Tensor) -> float:
    return float((value - expected).norm() / expected.norm())


def convolution() -> WeightStandardizedConv2d:
    """As in the middle of the published network, freshly initialised."""
    torch.manual_seed(0)
    return WeightStandardizedConv2d(512, 64, 3, padding=1).requires_grad_(False)


def test_weights_are_standardised_per_output_channel() -> None:
    layer = convolution().double()
    spikes = torch.zeros(1, 512, 7, 7, dtype=torch.float64)
    responses = []
    for channel in range(0, 512, 64):  # the answer to a spike is the kernel, mirrored
        spikes.zero_()[0, channel, 3, 3] = 1
        responses.append((layer(spikes) - layer.bias[None, :, None, None])[0, :, 2:5, 2:5].flip(1, 2))
    weight = layer.weight
    variance, mean = torch.var_mean(weight, dim=(1, 2, 3), correction=0, keepdim=True)
    expected = ((weight - mean) / (variance + 1e-5).sqrt())[:, ::64]
    torch.testing.assert_close(torch.stack(responses, dim=1), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=["float32 weights", "bf16 weights"])
def test_standardisation_keeps_its_precision_under_autocast(stored: torch.dtype) -> None:
    layer = convolution()
    x = torch.randn(2, 512, 8, 8, generator=torch.Generator().manual_seed(1))
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer.to(stored)(x)
    assert low.dtype == torch.bfloat16
    assert relative_error(low.float(), exact) < 0.01  # a few roundings of bf16

    weight = layer.weight.bfloat16()
    variance, mean = torch.var_mean(weight, dim=(1, 2, 3), correction=0, keepdim=True)
    published = (weight - mean) * (variance + 1e-3).rsqrt()
    wrong = F.conv2d(x.bfloat16(), published, layer.bias.bfloat16(), padding=1)
    assert relative_error(wrong.float(), exact) > 0.1


def test_attention_of_all_positions_is_the_formula() -> None:
    layer = filled(Attention(16)).double()
    x = torch.randn(2, 16, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    query, key, value = layer.to_qkv(x).reshape(2, 3, 4, 32, 15).unbind(1)
    weights = torch.einsum("bhdi,bhdj->bhij", query * 32**-0.5, key).softmax(dim=-1)
    out = torch.einsum("bhij,bhdj->bhdi", weights, value).reshape(2, 128, 3, 5)
    torch.testing.assert_close(layer(x), layer.to_out(out), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sides", [(3, 5), (16, 16), (16, 32), (19, 31)])  # fewer than one piece, pieces, and a rest
def test_linear_attention_is_the_formula(sides: tuple[int, int]) -> None:
    layer = filled(LinearAttention(16)).double()
    x = torch.randn(2, 16, *sides, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    positions = sides[0] * sides[1]
    query, key, value = layer.to_qkv(x).reshape(2, 3, 4, 32, positions).unbind(1)
    context = torch.einsum("bhdn,bhen->bhde", key.softmax(dim=-1), value / positions)
    out = torch.einsum("bhde,bhdn->bhen", context, query.softmax(dim=-2) * 32**-0.5).reshape(2, 128, *sides)
    torch.testing.assert_close(layer(x), layer.to_out(out), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16])
def test_linear_attention_does_not_underflow_in_half_precision(low: torch.dtype) -> None:
    layer = filled(LinearAttention(16))
    layer.to_out[0].bias.zero_()  # it hides what comes from the positions
    x = torch.randn(1, 16, 128, 128, generator=torch.Generator().manual_seed(1))
    exact = layer(x)
    with torch.autocast("cpu", low):
        found = layer(x)
    assert relative_error(found, exact) < (0.005 if low == torch.float16 else 0.02)


def test_linear_attention_bears_large_keys() -> None:
    layer = filled(LinearAttention(16))
    layer.to_qkv.weight.mul_(100.0)
    x = torch.randn(1, 16, 24, 24, generator=torch.Generator().manual_seed(1))
    assert layer(x).isfinite().all()
    with torch.autocast("cpu", torch.float16):
        assert layer(x).isfinite().all()


def test_what_papers_print_leaves_out_the_standardised_convolutions() -> None:
    with torch.device("meta"):
        network = ResidualUNet().eval().requires_grad_(False)
        assert parameters(network) == 36_261_187
        assert parameters(ResidualUNet(condition_channels=5)) == 36_267_459
    plain = [module for module in network.modules() if type(module) in (nn.Conv2d, nn.Linear)]
    assert sum(parameters(module) for module in plain) == 7_737_667  # "7.7 M"

    for parameter in network.to_empty(device="cpu").parameters():
        parameter.zero_()
    picture = torch.zeros(1, 3, 16, 16)
    with FlopCounterMode(display=False) as counter:
        network(picture, torch.zeros(1), picture)
    areas = (256 // 16) ** 2  # operations of convolutions grow with the area
    counts = counter.get_flop_counts()
    of_convolutions = counts["Global"][torch.ops.aten.convolution] * areas / 2
    standardised = sum(sum(own.values()) for name, own in counts.items() if name.endswith(".proj")) * areas / 2
    assert of_convolutions == pytest.approx(117.5e9, abs=0.05e9)
    assert of_convolutions - standardised == pytest.approx(32.9e9, abs=0.05e9)  # "32.9 G"


def test_two_networks_are_one_after_the_other_each_with_its_time() -> None:
    pair = filled(UNetRes(dim=8, dim_mults=(1, 2)))
    x, y = torch.randn(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).unbind(0)
    first, second = torch.tensor([3.0, 700.0]), torch.tensor([1.5, 900.25])
    expected = [pair.unet0(x, first, y), pair.unet1(x, second, y)]
    assert torch.equal(pair(x, first, y, noise_time=second), torch.cat(expected, dim=1))
    assert torch.equal(pair(x, first, y), torch.cat([expected[0], pair.unet1(x, first, y)], dim=1))


def test_one_network_of_a_pair_is_the_network() -> None:
    single = filled(UNetRes(1, dim=8, dim_mults=(1, 2)))
    x, y = torch.randn(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).unbind(0)
    t = torch.tensor([3.0, 700.0])
    assert torch.equal(single(x, t, y), single.unet0(x, t, y))
    assert all(name.startswith("unet0.") for name in single.state_dict())


def test_decoder_of_the_residual_sees_no_skips() -> None:
    network = filled(SharedEncoderUNet(dim=8, dim_mults=(1, 2)))
    x, y = torch.randn(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(1)).unbind(0)
    before = network(x, torch.ones(1), y)
    network.ups[0][0].block1.proj.weight.add_(torch.randn(network.ups[0][0].block1.proj.weight.shape))
    after = network(x, torch.ones(1), y)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_published_options() -> None:
    with torch.device("meta"):
        assert isinstance(from_published({"share_encoder": 1, "dim": 8}), SharedEncoderUNet)
        pair = from_published({"num_unet": 2, "dim": 8, "condition": False})
        assert isinstance(pair, UNetRes)
        assert (pair.networks, pair.condition_channels) == (2, 0)
        assert parameters(UNetRes()) == 72_522_374
    with pytest.raises(UserError, match="share_encoder is 2"):
        from_published({"share_encoder": 2})


def test_denoiser_with_residual_and_mask() -> None:
    network = filled(ResidualUNet(condition_channels=6, dim=8, dim_mults=(1, 2)))
    denoiser = Denoiser(network, RDDM(), Residual())
    x, y, mask = torch.randn(3, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).unbind(0)
    estimate = denoiser(x, 500.0, y, mask=mask)
    torch.testing.assert_close(y - estimate.x0, network(x, torch.full((2,), 499.0), y, mask))


def test_denoiser_with_two_outputs() -> None:
    network = filled(UNetRes(dim=8, dim_mults=(1, 2)))
    x, y = torch.randn(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).unbind(0)
    estimate = Denoiser(network, RDDM(), TwoOutput())(x, 500.0, y)
    _, noise = network(x, torch.full((2,), 499.0), y).chunk(2, dim=1)
    torch.testing.assert_close(estimate.noise, noise)


def test_accelerated_standardises_once_and_gives_the_same() -> None:
    torch.manual_seed(0)
    network = ResidualUNet(dim=8, dim_mults=(1, 2), groups=4).double()
    denoiser = Denoiser(network, RDDM(), Residual())
    fast = accelerate(denoiser, Acceleration(channels_last=True))
    assert not any(isinstance(module, WeightStandardizedConv2d) for module in fast.network.modules())
    assert any(isinstance(module, WeightStandardizedConv2d) for module in network.modules())
    x, y = (torch.randn(2, 3, 16, 16, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([1.0, 900.0], dtype=torch.float64)
    torch.testing.assert_close(fast.network(x, t, y), network(x, t, y), rtol=1e-10, atol=1e-10)


def test_accelerated_in_low_precision() -> None:
    network = filled(UNetRes(dim=8, dim_mults=(1, 2)))
    denoiser = Denoiser(network, RDDM(), TwoOutput())
    x, y = torch.randn(2, 2, 3, 13, 16, generator=torch.Generator().manual_seed(1)).unbind(0)
    exact = denoiser(x, 500.0, y)
    fast = accelerate(denoiser, Acceleration("bfloat16"))(x, 500.0, y)
    assert relative_error(fast.noise, exact.noise) < 0.03
    assert relative_error(accelerate(denoiser)(x, 500.0, y).noise, exact.noise) < 1e-5


@pytest.mark.parametrize("arguments", [{"dim": 10}, {"dim": 2, "groups": 1}, {"dim_mults": ()}, {"dim_mults": (0,)}])
def test_impossible_widths_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(UserError, match="a residual UNet needs"):
        ResidualUNet(**arguments)


def test_number_of_networks_is_one_or_two() -> None:
    with pytest.raises(UserError, match="1 or 2 networks"):
        UNetRes(3)  # type: ignore[arg-type]
