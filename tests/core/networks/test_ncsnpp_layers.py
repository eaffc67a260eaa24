"""The layers of NCSN++: what they compute, and that eager and compiled forms agree, gradients included."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ornstein.networks.ncsnpp_layers import Down, GroupNorm, Up


def zero_stuffed(x: Tensor, taps: tuple[int, ...], *, up: bool) -> Tensor:
    """The definition: the outer product of the taps as a convolution per channel."""
    kernel = torch.tensor(taps, dtype=x.dtype)
    kernel = (kernel[:, None] * kernel / kernel.sum() ** 2)[None, None].repeat(x.shape[1], 1, 1, 1)
    if not up:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), kernel, stride=2, groups=x.shape[1])
    stuffed = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    stuffed[..., ::2, ::2] = x
    return F.conv2d(F.pad(stuffed, (2, 1, 2, 1)), 4 * kernel, groups=x.shape[1])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_resampling_is_the_published_filter(batch: int, channels: int, bins: int, frames: int, last: bool) -> None:
    x = torch.randn(batch, channels, 2 * bins, 2 * frames, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    torch.testing.assert_close(Down()(x), zero_stuffed(x, (1, 3, 3, 1), up=False))
    torch.testing.assert_close(Up()(x), zero_stuffed(x, (1, 3, 3, 1), up=True))


@pytest.mark.parametrize("layer", [Down(), Up()])
def test_gradients_of_resampling(layer: nn.Module) -> None:
    x = torch.randn(1, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


def group_norm() -> GroupNorm:
    norm = GroupNorm(4, 16, eps=1e-6).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize("layer", [group_norm(), Down(), Up()], ids=["norm", "down", "up"])
def test_compiled_form_agrees_with_the_eager_one(layer: nn.Module) -> None:
    torch.compiler.reset()
    x = (3 + torch.randn(2, 16, 8, 6, dtype=torch.float64)).requires_grad_()
    eager = layer(x)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(compiled, eager, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(eager)
    wanted = torch.autograd.grad((eager * weights).sum(), [x, *layer.parameters()])
    given_ = torch.autograd.grad((compiled * weights).sum(), [x, *layer.parameters()])
    for found, expected in zip(given_, wanted, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_normalisation_of_low_precision_is_computed_in_float32() -> None:
    """Features with a mean of 100 and a spread of 1 would lose the spread in bfloat16 sums of squares."""
    torch.compiler.reset()
    norm = GroupNorm(4, 16)
    x = (100 + torch.randn(2, 16, 32, 32)).to(torch.bfloat16)
    expected = norm(x.float())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(norm(x).float(), expected, rtol=0.02, atol=0.02)
        compiled = torch.compile(norm, backend="aot_eager", fullgraph=True)(x)
    assert compiled.dtype == torch.float32
    torch.testing.assert_close(compiled, expected, rtol=1e-3, atol=1e-3)
