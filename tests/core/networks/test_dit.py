"""The transformer of Resfusion on its own."""

import math

import pytest
import torch
from reference_weights import filled, parameters

from ornstein.errors import UserError
from ornstein.networks.dit import Attention, DiT, from_published, positions


def test_numbers_of_parameters() -> None:
    with torch.device("meta"):
        assert parameters(DiT()) == 130_739_136
        assert parameters(DiT(hidden_size=384, num_heads=6)) == pytest.approx(33.08e6, abs=0.005e6)
        assert parameters(DiT(hidden_size=1024, depth=24, num_heads=16)) == pytest.approx(458.4e6, abs=0.05e6)


def test_starts_as_zero() -> None:
    network = DiT(16, 4, hidden_size=16, depth=1, num_heads=2)
    x, y = torch.randn(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).unbind(0)
    assert not network(x, torch.tensor([0.0, 3.0]), y).any()


def test_positions_are_columns_then_rows() -> None:
    table = positions(8, 3)[0].reshape(3, 3, 8)
    for row in range(3):
        for column in range(3):
            expected = []
            for place in (column, row):
                angles = [place, place / 100]
                expected += [*map(math.sin, angles), *map(math.cos, angles)]
            assert table[row, column].tolist() == pytest.approx(expected, abs=1e-6)


def test_attention_is_the_formula() -> None:
    layer = filled(Attention(12, 3)).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    query, key, value = layer.qkv(x).reshape(2, 5, 3, 3, 4).permute(2, 0, 3, 1, 4)
    out = (query @ key.transpose(2, 3) / 2).softmax(dim=3) @ value
    torch.testing.assert_close(layer(x), layer.proj(out.permute(0, 2, 1, 3).reshape(2, 5, 12)))


def test_positions_stay_what_they_are() -> None:
    network = DiT(16, 4, hidden_size=16, depth=1, num_heads=2)
    state = network.state_dict()
    fixed = state["pos_embed"].clone()
    network.load_state_dict(state | {"pos_embed": torch.zeros_like(fixed)})
    assert torch.equal(network.pos_embed, fixed)
    assert not network.pos_embed.requires_grad


def test_published_options() -> None:
    options = {"input_size": 16, "patch_size": 4, "hidden_size": 16, "num_heads": 2, "mask_condition": True}
    network = from_published(options | {"depth": 1, "learn_sigma": False})
    assert network.condition_channels == 5


@pytest.mark.parametrize("arguments", [{"input_size": 100}, {"num_heads": 7}, {"hidden_size": 6, "num_heads": 2}])
def test_impossible_options_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(UserError, match="must be a multiple"):
        DiT(**arguments)
