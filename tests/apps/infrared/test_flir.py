"""Planck's law against reference values, and FLIR files: each way of storing counts, sequences, damage."""

import struct
from pathlib import Path

import numpy as np
import pytest
from flir_files import PLANCK, Storage, block, radiometric_jpeg
from hypothesis import given
from hypothesis import strategies as st
from reference_vectors import ReferenceFile, reference_files

from ornstein.errors import UserError
from ornstein_infrared import flir, thermal
from ornstein_infrared.planck import Planck


def counts(height: int = 12, width: int = 17, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 4, (height, width))
    return (13000 + 40 * np.arange(width) + 90 * np.arange(height)[:, None] + noise).astype(np.uint16)


@reference_files("infrared", "radiometric*.npz", needs=["raw", "temp_c", "meta"])
def test_published_temperatures(vectors: ReferenceFile) -> None:
    meta = vectors.json("meta")
    names = {
        "r1": "Planck R1",
        "r2": "Planck R2",
        "b": "Planck B",
        "f": "Planck F",
        "o": "Planck O",
        "emissivity": "Emissivity",
        "distance": "Object Distance",
        "reflected": "Reflected Apparent Temperature",
        "atmosphere": "Atmospheric Temperature",
        "window": "IR Window Temperature",
        "window_transmission": "IR Window Transmission",
        "humidity": "Relative Humidity",
        "alpha1": "Atmospheric Trans Alpha 1",
        "alpha2": "Atmospheric Trans Alpha 2",
        "beta1": "Atmospheric Trans Beta 1",
        "beta2": "Atmospheric Trans Beta 2",
        "x": "Atmospheric Trans X",
    }
    planck = Planck(**{ours: float(meta[theirs]) for ours, theirs in names.items()})
    found = planck.celsius(vectors["raw"])
    np.testing.assert_allclose(found, vectors["temp_c"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(planck.counts(found), vectors["raw"], rtol=1e-10)


@given(st.floats(-40, 400), st.floats(0.3, 1), st.floats(0, 200), st.floats(0.5, 1), st.floats(0, 1))
def test_counts_and_temperatures_are_inverse(t: float, e: float, distance: float, w: float, humidity: float) -> None:
    planck = Planck(
        PLANCK.r1, PLANCK.b, PLANCK.f, PLANCK.o, PLANCK.r2, e, distance, window_transmission=w, humidity=humidity
    )
    assert float(planck.celsius(planck.counts(t))) == pytest.approx(t, abs=1e-6)
    black = Planck(PLANCK.r1, PLANCK.b, PLANCK.f, PLANCK.o, PLANCK.r2)
    assert float(black.counts(t)) == pytest.approx(float(black.counts_of(t)), rel=1e-12)  # nothing in between


def test_no_temperature_below_absolute_zero_and_no_constants_of_no_camera() -> None:
    assert np.isnan(PLANCK.celsius(0))
    assert Planck.from_dict(PLANCK.as_dict()) == PLANCK
    for wrong in (
        {"emissivity": 0.0},
        {"r1": float("nan")},
        {"distance": -1.0},
        {"reflected": -300.0},
        {"beta1": -1e9},
    ):
        with pytest.raises(UserError, match="read the file as counts"):
            Planck.from_dict(PLANCK.as_dict() | wrong)
    for odd in ([], {"r1": 1.0}, {"r1": "1"}, {"other": 1.0}):
        with pytest.raises(UserError, match="read it as counts"):
            Planck.from_dict(odd)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("storage", ["raw", "png", "png_swapped", "jpegls"])
def test_every_way_of_storing_counts(tmp_path: Path, storage: Storage, order: str) -> None:
    made = counts()
    path = tmp_path / "frame.fff"
    path.write_bytes(block(made, storage=storage, order=order))
    raw = thermal.read(path, counts=True, dead=False)
    np.testing.assert_array_equal(raw.values, made)
    assert (raw.unit, raw.dtype, raw.planck) == ("counts", np.uint16, None)
    frame = thermal.read(path, dead=False)
    assert frame.unit == "degC"
    assert frame.planck is not None
    np.testing.assert_allclose(frame.values, PLANCK.celsius(made), atol=1e-3)  # the file has float32 constants


@pytest.mark.parametrize("segment", [60000, 100])
def test_radiometric_jpeg(tmp_path: Path, segment: int) -> None:
    made = counts(24, 32)
    path = tmp_path / "FLIR0001.jpg"
    path.write_bytes(radiometric_jpeg(block(made, storage="png_swapped"), segment))
    np.testing.assert_allclose(thermal.read(path, dead=False).values, PLANCK.celsius(made), atol=1e-3)
    path.write_bytes(radiometric_jpeg(block(made), 400, skip=[1]))
    with pytest.raises(UserError, match="parts; copy the file again"):
        thermal.read(path)


def test_humidity_in_percent(tmp_path: Path) -> None:
    percent = Planck(**PLANCK.as_dict() | {"humidity": 50.0})
    found = flir.parse(block(counts(), percent), tmp_path / "x.fff").planck
    assert found is not None
    assert found.humidity == pytest.approx(0.5)


def test_sequence(tmp_path: Path) -> None:
    made = [counts(seed=seed) for seed in range(3)]
    path = tmp_path / "video.seq"
    path.write_bytes(b"\0\0\0".join(block(one, storage="png_swapped") for one in made))
    assert thermal.pages(path) == 3
    with pytest.raises(UserError, match="3 pages; choose one"):
        thermal.read(path)
    with pytest.raises(UserError, match="no page 3"):
        thermal.read(path, page=3)
    for page, one in enumerate(made):
        np.testing.assert_array_equal(thermal.read(path, page=page, counts=True, dead=False).values, one)


def test_without_constants_there_are_counts(tmp_path: Path) -> None:
    path = tmp_path / "frame.fff"
    path.write_bytes(block(counts(), planck=None))
    frame = thermal.read(path, dead=False)
    assert frame.unit == "counts"
    assert "no constants" in frame.notes[0]


@pytest.mark.parametrize("storage", ["raw", "png"])
def test_damaged_files_say_so(tmp_path: Path, storage: Storage) -> None:
    """Cut anywhere, or with a byte changed: a frame of the right size, or a line for the user; never another error."""
    whole = block(counts(), storage=storage)
    path = tmp_path / "frame.fff"
    rng = np.random.default_rng(0)
    messages: list[str] = []
    for attempt in range(120):
        data = bytearray(whole)
        if attempt % 2:
            data = data[: int(rng.integers(4, len(whole)))]
        else:
            data[int(rng.integers(4, 200))] = int(rng.integers(256))
        path.write_bytes(bytes(data))
        try:
            assert thermal.read(path).size[0] >= 8
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > 60
    assert all("; " in message and "\n" not in message for message in messages)


def test_damaged_constants_leave_the_counts(tmp_path: Path) -> None:
    data = block(counts())
    emissivity = struct.pack("<f", PLANCK.emissivity)
    path = tmp_path / "frame.fff"
    path.write_bytes(data.replace(emissivity, struct.pack("<f", -5.0)))
    with pytest.raises(UserError, match="read the file as counts"):
        thermal.read(path)
    np.testing.assert_array_equal(thermal.read(path, counts=True, dead=False).values, counts())


def test_a_scale_does_not_go_with_constants(tmp_path: Path) -> None:
    path = tmp_path / "frame.fff"
    path.write_bytes(block(counts()))
    with pytest.raises(UserError, match="says itself"):
        thermal.read(path, scale=thermal.Scale(0.04))
