"""Cutting and turning the parts of an item alike."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ornstein.errors import UserError
from ornstein.pictures.crops import Augmentation, augmented, check_settings, cropped

SCALE = 4


def item() -> dict[str, torch.Tensor]:
    """Every degraded pixel is the first one of its clean square, and the mask is the clean picture."""
    clean = torch.arange(32 * 48).reshape(1, 32, 48)
    return {"lq": clean[:, ::SCALE, ::SCALE], "gt": clean, "mask": clean}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([4, 12, 32]))
def test_parts_are_cut_at_one_place(seed: int, crop: int) -> None:
    cut = cropped(item(), crop, SCALE, torch.Generator().manual_seed(seed), None)
    assert cut["gt"].shape == (1, crop, crop)
    assert torch.equal(cut["gt"], cut["mask"])
    assert torch.equal(cut["gt"][:, ::SCALE, ::SCALE], cut["lq"])


def test_every_place_occurs_and_the_centre_is_one_of_them() -> None:
    generator = torch.Generator().manual_seed(0)
    places = {int(cropped(item(), 24, SCALE, generator, None)["lq"][0, 0, 0]) for _ in range(300)}
    assert places == {48 * top + left for top in (0, 4, 8) for left in range(0, 25, 4)}
    assert int(cropped(item(), 24, SCALE, None, None)["lq"][0, 0, 0]) == 48 * 4 + 12


def test_without_a_clean_picture_the_degraded_one_counts() -> None:
    assert cropped({"lq": torch.zeros(3, 8, 9)}, 8, 1, None, None)["lq"].shape == (3, 8, 8)


@pytest.mark.parametrize(("augment", "count"), [("none", 1), ("flip", 2), ("flip_rotate", 8)])
def test_symmetries(augment: Augmentation, count: int) -> None:
    square = torch.arange(9).reshape(1, 3, 3)
    generator = torch.Generator().manual_seed(0)
    found = set()
    for _ in range(100):
        turned = augmented({"lq": square, "gt": 2 * square}, augment, generator)
        assert torch.equal(2 * turned["lq"], turned["gt"])
        found.add(tuple(turned["lq"].flatten().tolist()))
    assert len(found) == count


class Half:
    scale = 2


def test_mistakes() -> None:
    with pytest.raises(UserError, match=r"x\.png has 48 x 32 pixels, less than the crop of 36"):
        cropped(item(), 36, SCALE, None, Path("x.png"))
    with pytest.raises(UserError, match="augment is 'turn'"):
        check_settings("turn", 8, 1, None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="crop of 10 pixels does not go with scale 4"):
        check_settings("none", 10, 4, None)
    with pytest.raises(UserError, match=r"shrinks 2 times, data\.scale is 4"):
        check_settings("none", 8, 4, Half())
