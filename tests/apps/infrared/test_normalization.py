"""Values come back exactly, whatever the frame holds; ranges are robust; the preview is a picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ornstein.config import build, describe
from ornstein.errors import UserError
from ornstein_infrared import thermal
from ornstein_infrared.normalization import CLIP, FixedRange, Normalization, PercentileLinear, normalize, plateau

KINDS: list[Normalization] = [PercentileLinear(), PercentileLinear(5, 95), FixedRange(), FixedRange(2600, 2700)]


@given(arrays(np.uint16, (9, 12), elements=st.integers(0, 65535)), st.sampled_from(KINDS))
def test_counts_come_back_from_the_identity(counts: Any, kind: Normalization) -> None:
    """Well below one count is lost, outside the range, too."""
    found = kind(counts.astype(np.float32))
    assert found.z.dtype == np.float32
    assert np.abs(found.z).max() <= CLIP
    np.testing.assert_allclose(found.values(found.z), counts, rtol=0, atol=1e-6)


@given(st.floats(-50, 500), st.floats(0, 100), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_temperatures_come_back(base: float, spread: float, seed: int) -> None:
    frame = (base + spread * np.random.default_rng(seed).normal(size=(8, 10))).astype(np.float32)
    found = PercentileLinear()(frame)
    np.testing.assert_allclose(found.values(found.z), frame, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_files_come_back_from_the_identity(tmp_path: Path, kind: Normalization) -> None:
    """Read, normalise, do nothing, undo, write: the same counts, those without a measurement and a fire, too."""
    counts = np.random.default_rng(0).integers(2617, 2739, (20, 30)).astype(np.uint16)
    counts[3, 4], counts[10:12, 10:12] = 65535, 16000
    tifffile.imwrite(tmp_path / "frame.tif", counts)
    frame = thermal.read(tmp_path / "frame.tif", scale=thermal.Scale(0.04, -273.15))
    found = kind(frame.values, frame.mask)
    thermal.write(tmp_path / "out.tif", found.values(found.z), frame)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), counts)


def test_the_range_is_linear_and_robust() -> None:
    """The example of 115 counts of 14 bits: a spot does not take the range from the scene."""
    counts = np.linspace(2617, 2739, 64 * 64).reshape(64, 64)
    counts[10, 10] = 16000
    found = PercentileLinear()(counts)
    assert (found.low, found.high) == pytest.approx((2617, 2739), abs=1)
    inside = np.abs(found.z) < 1
    np.testing.assert_allclose(
        found.z[inside], (2 * (counts - found.low) / (found.high - found.low) - 1)[inside], atol=1e-6
    )
    assert found.z[10, 10] == CLIP
    large = found.values(np.repeat(np.repeat(found.z, 4, 0), 4, 1))
    assert large[40:44, 40:44].max() > 10000  # the spot is still hot in the result
    mask = np.zeros(counts.shape, bool)
    mask[10, 10] = True
    assert PercentileLinear(0, 100)(counts, mask).high < 2740


def test_a_constant_frame_is_enlarged_as_it_is() -> None:
    frame = np.full((8, 9), 7000.0)
    frame[4, 4] = 7003
    found = PercentileLinear(1, 98)(frame)
    assert found.constant
    assert not found.z.any()
    np.testing.assert_array_equal(found.values(found.z), frame)
    large = found.values(np.random.default_rng(0).normal(size=(32, 36)))  # whatever the network says
    assert 6999 < large.min() < large.max() <= 7003.5
    np.testing.assert_array_equal(PercentileLinear()(np.full((8, 8), 5.0)).values(np.zeros((16, 16))), 5.0)


def test_fixed_range_is_the_same_for_all_frames() -> None:
    levels = np.array([[0.0, 127.5, 255.0]] * 3)
    np.testing.assert_array_equal(FixedRange()(levels).z[0], [-1, 0, 1])


def test_sizes_that_are_no_multiple() -> None:
    found = normalize(np.zeros((8, 8)), 0, 1)
    for size in ((12, 12), (16, 24), (4, 4)):
        with pytest.raises(ValueError, match="one factor"):
            found.values(np.zeros(size))


def test_plateau_shows_both_scene_and_spot() -> None:
    rng = np.random.default_rng(0)
    frame = 7000 + rng.normal(0, 10, (64, 64))
    frame[:8, :8] += 3000
    picture = plateau(frame)
    assert picture.dtype == np.uint8
    assert picture[:8, :8].min() >= picture[8:, 8:].max()
    linear = 255 * (frame - frame.min()) / np.ptp(frame)
    assert picture[8:, 8:].std() > 3 * linear[8:, 8:].std()
    order = np.argsort(frame, axis=None)
    assert (np.diff(picture.ravel()[order].astype(int)) >= 0).all()
    assert (plateau(np.full((4, 4), 3.0)) == 128).all()


def test_settings_are_checked_and_travel() -> None:
    for kind in (PercentileLinear(1, 99), FixedRange(-20, 40)):
        assert build(describe(kind), type(kind)) == kind
    for wrong in (lambda: PercentileLinear(60, 40), lambda: FixedRange(3, 3), lambda: plateau(np.ones((3, 3)), 0)):
        with pytest.raises(UserError, match="; give"):
            wrong()


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_strips_change_nothing(factor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large results are made some rows at a time, with the filter looking beyond them."""
    from ornstein_infrared import normalization

    rng = np.random.default_rng(0)
    values = 3000 + 40 * rng.normal(size=(50, 30))
    values[20, 10] = 9000  # beyond the range: enlarged apart
    found = PercentileLinear()(values)
    z = rng.uniform(-1, 1, (factor * 50, factor * 30)).astype(np.float32)
    whole = found.values(z)
    monkeypatch.setattr(normalization, "ROWS", 7)
    np.testing.assert_allclose(found.values(z), whole, atol=2e-3)
    assert whole.max() > 7000


@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_constant_frame_in_a_fixed_range_is_constant(value: int) -> None:
    found = FixedRange()(np.full((8, 9), value, np.uint8))
    assert found.constant
    np.testing.assert_array_equal(found.values(np.zeros((32, 36), np.float32)), value)
    other = np.full((8, 9), value, np.uint8)
    other[0, 0] = 100
    assert not FixedRange()(other).constant
