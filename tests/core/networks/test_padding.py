"""Padding to multiples."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from ornstein.networks.padding import pad_to_multiple

sides = st.integers(1, 20)


@given(height=sides, width=sides, multiple=st.sampled_from([1, 2, 4, 8, 16]))
def test_the_picture_is_continued_to_the_right_and_below(height: int, width: int, multiple: int) -> None:
    x = torch.arange(2.0 * height * width).reshape(1, 2, height, width)
    expected = x.numpy()
    for axis, side in ((2, height), (3, width)):
        missing = -side % multiple
        edges = [(0, 0)] * 4
        edges[axis] = (0, missing)
        expected = np.pad(expected, edges, mode="reflect" if missing < side else "edge")
    padded = pad_to_multiple(x, multiple)
    assert padded.shape[2] % multiple == padded.shape[3] % multiple == 0
    np.testing.assert_array_equal(padded.numpy(), expected)
