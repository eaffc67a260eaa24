"""The adaptive token dictionary on its own."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_weights import filled, parameters
from restoration_networks import CASES

from ornstein.errors import UserError
from ornstein.networks.atd import ATD, CategoryAttention, _mirrored, category_order, from_published


def test_number_of_parameters() -> None:
    with torch.device("meta"):
        assert parameters(ATD()) == 2_532_360


@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_pictures_are_continued_by_mirrored_copies(height: int, width: int) -> None:
    x = torch.arange(2.0 * height * width).reshape(1, 2, height, width)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (0, -height % 16), (0, -width % 16)), mode="symmetric")
    np.testing.assert_array_equal(_mirrored(x, 16).numpy(), expected)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 9), (8, 5)])
def test_any_size(height: int, width: int) -> None:
    case = CASES["ATD"]
    network, x = case.network(), torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    out = network(x)
    assert out.shape == (2, 3, 4 * height, 4 * width)
    torch.testing.assert_close(out, network(_mirrored(x, 4))[..., : 4 * height, : 4 * width])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_order_is_by_category_and_then_by_place(categories: list[int]) -> None:
    similarity = torch.nn.functional.one_hot(torch.tensor(categories), 6)[None].float()
    expected = sorted(range(len(categories)), key=lambda place: (categories[place], place))
    assert category_order(similarity)[0].tolist() == expected


def test_categories_attend_to_themselves() -> None:
    """Two categories of the size of a piece: each is attended to by itself, wherever its tokens are."""
    layer = filled(CategoryAttention(8, 2, 6)).double()
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(1, 12, 24, dtype=torch.float64, generator=generator)
    similarity = torch.nn.functional.one_hot(torch.arange(12) % 2, 2)[None].double()
    out = layer(qkv, similarity)
    for category in range(2):
        alone = layer(qkv[:, category::2], similarity[:, category::2])
        torch.testing.assert_close(out[:, category::2], alone)


@pytest.mark.parametrize("count", [1, 5, 6, 7, 11, 13])
def test_the_last_piece_is_filled_up_from_behind(count: int) -> None:
    layer = filled(CategoryAttention(8, 2, 6)).double()
    qkv = torch.randn(1, count, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = layer(qkv, torch.zeros(1, count, 3, dtype=torch.float64))
    missing = -count % min(count, 6)
    tail = torch.cat([qkv, qkv[:, count - missing :].flip(1)], dim=1)
    expected = torch.cat([layer(piece, piece.new_zeros(1, piece.shape[1], 3)) for piece in tail.split(6, dim=1)], 1)
    torch.testing.assert_close(out, expected[:, :count])


def test_the_index_of_a_published_checkpoint_is_ignored() -> None:
    network = CASES["ATD"].network()
    state = network.state_dict() | {"relative_position_index_SA": torch.zeros(2, 2)}
    for same in (network, copy.deepcopy(network)):
        same.load_state_dict(state)
        assert "relative_position_index_SA" not in same.state_dict()
    with pytest.raises(RuntimeError, match="Unexpected key"):
        network.load_state_dict(state | {"td": torch.zeros(2, 2)})


def test_time_is_not_looked_at() -> None:
    case = CASES["ATD"]
    network, (x, t) = case.network(), case.signals()
    assert torch.equal(network(x), network(x, t))


def test_options_that_are_not_built_are_refused() -> None:
    with pytest.raises(UserError, match="upsampler"):
        from_published({"upsampler": "pixelshuffle"})
    with pytest.raises(UserError, match="convffn_kernel_size 4 odd"):
        ATD(convffn_kernel_size=4)
    with pytest.raises(UserError, match="one entry"):
        ATD(depths=(2,))
