"""What every network of restoration has in common."""

import pytest
import torch
from device_reads import Reads
from restoration_networks import CASES, Case

from ornstein.config import build, describe
from ornstein.networks.padding import pad_to_multiple

cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
resizable = pytest.mark.parametrize(
    "case",
    [case for name, case in CASES.items() if case.any_size and name != "ATD"],
    ids=[name for name, case in CASES.items() if case.any_size and name != "ATD"],
)


@cases
def test_shape_and_dtype(case: Case) -> None:
    x, *others = case.signals()
    out = case.network()(x, *others)
    assert out.shape == (2, case.outputs, 16 * case.scale, 16 * case.scale)
    assert out.dtype == torch.float32
    assert bool(out.isfinite().all())


@cases
def test_description_and_back(case: Case) -> None:
    network = case.network()
    spec = describe(network)
    again = build(spec, type(network))
    assert describe(again) == spec
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(*case.signals()), network(*case.signals()))


@cases
def test_items_of_a_batch_do_not_see_each_other(case: Case) -> None:
    network = case.network().double()
    signals = [signal.double() for signal in case.signals()]
    whole = network(*signals)
    single = torch.cat([network(*(signal[i : i + 1] for signal in signals)) for i in range(2)])
    torch.testing.assert_close(whole, single, rtol=1e-9, atol=1e-10)


@cases
def test_every_signal_matters(case: Case) -> None:
    network, signals = case.network(), case.signals()
    out = network(*signals)
    for index, signal in enumerate(signals):
        if case is CASES["ATD"] and index == 1:
            continue  # it has no time
        changed = [*signals[:index], signal + 1.5, *signals[index + 1 :]]
        assert not torch.allclose(network(*changed), out, atol=1e-4)


@cases
def test_every_parameter_learns(case: Case) -> None:
    network = case.network().train()
    fixed = {"pos_embed"}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in fixed)
    network(*case.signals()).square().mean().backward()
    without = [
        name for name, p in network.named_parameters() if name not in fixed and (p.grad is None or not p.grad.any())
    ]
    assert not without


@cases
def test_autocast_changes_little(case: Case) -> None:
    network, signals = case.network(), case.signals()
    exact = network(*signals)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(*signals)
    assert low.dtype == torch.float32
    assert float((low - exact).norm() / exact.norm()) < case.bf16_error


@cases
def test_nothing_is_read_from_the_device(case: Case) -> None:
    network = case.network()
    side = 24 if case.any_size else 16  # not the size that buffers were made for
    with torch.no_grad(), Reads() as reads:
        network(*case.signals(side, side))
    assert reads.count == 0


@resizable
@pytest.mark.parametrize(("height", "width"), [(13, 9), (16, 11)])
def test_odd_sides_are_padded_and_cropped(case: Case, height: int, width: int) -> None:
    network = case.network()
    x, t, *y = case.signals(height, width)
    padded = network(pad_to_multiple(x, case.unit), t, *(pad_to_multiple(signal, case.unit) for signal in y))
    expected = padded[..., : height * case.scale, : width * case.scale]
    torch.testing.assert_close(network(x, t, *y), expected, rtol=1e-5, atol=1e-5)


@resizable
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5)])
def test_pictures_of_single_pixels(case: Case, height: int, width: int) -> None:
    out = case.network()(*case.signals(height, width))
    assert out.shape == (2, case.outputs, height * case.scale, width * case.scale)
    assert bool(out.isfinite().all())


@cases
def test_wrong_channels_are_refused(case: Case) -> None:
    x, *others = case.signals()
    with pytest.raises(ValueError, match=r"channels|must be"):
        case.network()(torch.cat([x, x], dim=1), *others)


@pytest.mark.parametrize("name", ["residual UNet", "shared encoder", "Swin-UNet", "UPSR", "DiT"])
def test_missing_or_unfit_conditions_are_refused(name: str) -> None:
    case = CASES[name]
    network, (x, t, y) = case.network(), case.signals()
    with pytest.raises(ValueError, match="channels of y"):
        network(x, t)
    with pytest.raises(ValueError, match=r"no whole factor|conditions of shapes"):
        network(x, t, y[..., :-1])
    with pytest.raises(ValueError, match=r"t \(B,\)"):
        network(x, t[:1], y)


def test_transformer_refuses_other_sizes() -> None:
    case = CASES["DiT"]
    with pytest.raises(ValueError, match="side 16"):
        case.network()(*case.signals(32, 32))
