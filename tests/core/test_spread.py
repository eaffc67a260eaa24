"""`ornstein.spread`."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ornstein.spread import spread


@given(st.integers(0, 60), st.integers(1, 60))
def test_gaps_are_alike(size: int, count: int) -> None:
    found = spread(range(size), count)
    assert len(found) == min(size, count)
    assert found == sorted(set(found))
    gaps = {after - before for before, after in pairwise(found)}
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(
    ("size", "count", "expected"), [(10, 5, [0, 2, 4, 6, 8]), (7, 3, [0, 2, 4]), (3, 3, [0, 1, 2]), (2, 9, [0, 1])]
)
def test_which(size: int, count: int, expected: list[int]) -> None:
    assert spread(range(size), count) == expected


def test_nothing_is_left_out_without_a_count() -> None:
    assert spread("abc", None) == ["a", "b", "c"]
