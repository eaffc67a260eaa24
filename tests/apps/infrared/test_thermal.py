"""Frames keep their depth, scale and what the file says; odd files are treated or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from flir_files import PLANCK, block, radiometric_jpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ornstein.errors import UserError
from ornstein_infrared import thermal
from ornstein_infrared.degradations.bicubic import shrink
from ornstein_infrared.pixels import dead_pixels, enlarged, fill
from ornstein_infrared.thermal import Scale


def ramp(height: int = 12, width: int = 20, dtype: Any = np.uint16, low: int = 7000) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 2, (height, width))
    values = low + 3.0 * np.arange(width) + 5.0 * np.arange(height)[:, None] + noise
    return values.round().astype(dtype) if np.dtype(dtype).kind in "ui" else values.astype(dtype)


def saved(path: Path, values: np.ndarray, **options: Any) -> Path:
    if path.suffix == ".tif":
        tifffile.imwrite(path, values, **options)
    else:
        Image.fromarray(values).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("suffix", "dtype", "unit"),
    [
        (".png", np.uint8, "levels"),
        (".tif", np.uint8, "levels"),
        (".bmp", np.uint8, "levels"),
        (".png", np.uint16, "counts"),
        (".tif", np.uint16, "counts"),
        (".tif", np.int16, "counts"),
        (".tif", np.float32, "unknown"),
        (".tif", np.float64, "unknown"),
    ],
)
def test_every_type_comes_back(tmp_path: Path, suffix: str, dtype: Any, unit: str) -> None:
    values = ramp(dtype=dtype, low=100 if dtype == np.uint8 else 7000)
    frame = thermal.read(saved(tmp_path / f"frame{suffix}", values))
    assert (frame.unit, frame.dtype, frame.mask, frame.notes) == (unit, dtype, None, ())
    np.testing.assert_array_equal(frame.values, values)
    thermal.write(tmp_path / f"copy{suffix}", frame.values, frame)
    again = thermal.read(tmp_path / f"copy{suffix}")
    assert again.dtype == dtype
    np.testing.assert_array_equal(again.values, values)
    with pytest.raises(UserError, match="exists"):
        thermal.write(tmp_path / f"copy{suffix}", frame.values, frame)


def test_counts_are_not_cut_to_eight_bits_and_halves_become_floats(tmp_path: Path) -> None:
    counts = ramp(low=2617)
    grey = np.repeat(counts[..., None], 3, axis=2)
    import imagecodecs

    path = tmp_path / "rgb.png"
    path.write_bytes(imagecodecs.png_encode(grey))
    np.testing.assert_array_equal(thermal.read(path).values, counts)
    half = thermal.read(saved(tmp_path / "half.tif", np.full((8, 9), 20.5, np.float16)))
    assert half.dtype == np.float32


def test_a_scale_is_undone_and_remembered(tmp_path: Path) -> None:
    counts = ramp()
    path = saved(tmp_path / "frame.tif", counts)
    frame = thermal.read(path, scale=Scale(0.04, -273.15, "degC"))
    np.testing.assert_allclose(frame.values, 0.04 * counts - 273.15, atol=1e-4)
    for suffix in (".tif", ".png"):
        thermal.write(tmp_path / f"out{suffix}", frame.values + 1.0, frame)
        again = thermal.read(tmp_path / f"out{suffix}")
        assert (again.scale, again.dtype) == (frame.scale, np.uint16)
        np.testing.assert_allclose(again.values, frame.values + 1, atol=0.0201)
    with pytest.raises(UserError, match="the gain not 0"):
        Scale(0.0)
    with pytest.raises(UserError, match="use one of"):
        Scale(1.0, 0.0, "F")  # type: ignore[arg-type]


def test_temperatures_of_a_camera_become_a_tiff_with_its_constants(tmp_path: Path) -> None:
    path = tmp_path / "frame.fff"
    path.write_bytes(block(ramp(low=13000)))
    frame = thermal.read(path)
    assert frame.suffixes == (".tif", ".tiff")
    with pytest.raises(UserError, match=r"\.tif or \.tiff; change the suffix"):
        thermal.write(tmp_path / "out.png", frame.values, frame)
    thermal.write(tmp_path / "out.tif", frame.values, frame)
    again = thermal.read(tmp_path / "out.tif")
    assert (again.unit, again.dtype) == ("degC", np.float32)
    assert again.planck == frame.planck
    assert again.planck is not None
    np.testing.assert_array_equal(again.values, frame.values)
    np.testing.assert_allclose(again.planck.counts(again.values), ramp(low=13000), atol=0.05)  # back to counts


def test_tiff_tags_stay_and_follow_the_size(tmp_path: Path) -> None:
    tags = [
        (271, "s", 0, "Maker", True),
        (33550, "d", 3, (0.5, 0.25, 0.0), True),
        (33922, "d", 6, (10.0, 20.0, 0.0, 500.0, 600.0, 0.0), True),
        (700, "B", 5, b"<xmp>", True),
    ]
    options = {"extratags": tags, "description": "boiler", "resolution": (72, 36), "metadata": None}
    frame = thermal.read(saved(tmp_path / "frame.tif", ramp(), **options))
    thermal.write(tmp_path / "out.tif", enlarged(frame.values, (48, 80)), frame)
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        found = file.pages.first.aspage().tags
        assert (found[270].value, found[271].value, bytes(found[700].value)) == ("boiler", "Maker", b"<xmp>")
        assert found[33550].value == (0.125, 0.0625, 0.0)
        assert found[33922].value == (40.0, 80.0, 0.0, 500.0, 600.0, 0.0)
        assert found["XResolution"].value == (288, 1)


def test_exif_and_texts_stay(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[271], exif[0x0112] = "Maker", 6
    info = PngInfo()
    info.add_text("Comment", "roof")
    values = ramp(dtype=np.uint8, low=50)
    frame = thermal.read(saved(tmp_path / "frame.png", values, exif=exif, pnginfo=info))
    assert frame.size == (20, 12)  # upright
    np.testing.assert_array_equal(frame.values, np.rot90(values, -1))
    for suffix in (".png", ".jpg"):
        thermal.write(tmp_path / f"out{suffix}", frame.values, frame)
        with Image.open(tmp_path / f"out{suffix}") as out:
            assert out.getexif()[271] == "Maker"
            assert out.getexif().get(0x0112, 1) == 1
    with Image.open(tmp_path / "out.png") as out:
        assert out.text["Comment"] == "roof"
    thermal.write(tmp_path / "out.tif", frame.values, frame)
    assert thermal.read(tmp_path / "out.tif").about.texts[271] == "Maker"


@pytest.mark.parametrize("kind", ["saturated", "nan", "nodata"])
def test_pixels_without_a_value_are_filled_and_come_back(tmp_path: Path, kind: str) -> None:
    values = ramp(dtype=np.uint16 if kind == "saturated" else np.float32)
    place = (slice(2, 5), slice(3, 7))
    bad = {"saturated": 65535, "nan": np.nan, "nodata": -9999}[kind]
    values[place] = bad
    options = {"extratags": [(42113, "s", 0, "-9999", True)]} if kind == "nodata" else {}
    frame = thermal.read(saved(tmp_path / "frame.tif", values, **options))
    assert frame.mask is not None
    assert frame.mask[place].all()
    assert frame.mask.sum() == 12
    assert "12 pixels" in frame.notes[0]
    assert 6990 < frame.values.min() <= frame.values.max() < 7150
    large = enlarged(frame.values, (24, 40))
    thermal.write(tmp_path / "out.tif", large, frame)
    out = tifffile.imread(tmp_path / "out.tif")
    np.testing.assert_array_equal(out[4:10, 6:14], np.full((6, 8), bad, values.dtype))
    assert np.isfinite(out).sum() == 24 * 40 - (48 if kind == "nan" else 0)
    thermal.write(tmp_path / "filled.tif", large, frame, restore_mask=False)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "filled.tif"), large.astype(values.dtype))


def test_dead_pixels_are_found_and_points_of_a_scene_are_not(tmp_path: Path) -> None:
    values = ramp(32, 40).astype(np.float64)
    clean = dead_pixels(values)
    assert not clean.any()
    y, x = np.mgrid[:32, :40]
    star = 400 * np.exp(-0.5 * ((y - 10) ** 2 + (x - 12) ** 2) / 0.5**2)  # a point behind a lens
    values += star
    values[20, 30], values[0, 0], values[25, 5] = 0, 16383, 7800
    spot = np.full((64, 80), 7000.0)
    spot[20:24, 32:36] = 9000  # one pixel of the frame shrunk by 4, the worst case of a cubic
    assert not dead_pixels(shrink(spot, 4)).any()
    found = dead_pixels(values.round().astype(np.uint16))
    assert sorted(zip(*np.nonzero(found), strict=True)) == [(0, 0), (20, 30), (25, 5)]
    path = saved(tmp_path / "frame.tif", values.round().astype(np.uint16))
    frame = thermal.read(path)
    assert frame.values[20, 30] == pytest.approx(7190, abs=10)
    thermal.write(tmp_path / "out.tif", frame.values, frame)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), values.round())
    assert thermal.read(path, dead=False).mask is None


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.95))
@settings(max_examples=30)
def test_filling_leaves_what_is_known_and_stays_in_its_range(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    values, mask = rng.normal(size=(9, 11)), rng.random((9, 11)) < share
    mask[4, 5] = False
    filled = fill(np.where(mask, np.nan, values), mask)
    np.testing.assert_array_equal(filled[~mask], values[~mask])
    assert values[~mask].min() <= filled.min() <= filled.max() <= values[~mask].max()


def test_channels_and_opacity(tmp_path: Path) -> None:
    grey = ramp(16, 16, np.uint8, 60)
    rgba = np.dstack([grey, grey, grey, np.full_like(grey, 90)])
    frame = thermal.read(saved(tmp_path / "rgba.png", rgba))
    np.testing.assert_array_equal(frame.values, grey)
    assert frame.notes == ("the opacity is left away",)
    saved(tmp_path / "grey.jpg", np.repeat(grey[..., None], 3, 2), quality=90)
    jpeg = thermal.read(tmp_path / "grey.jpg")
    assert np.abs(jpeg.values - grey).max() < 12
    iron = np.dstack([grey, grey // 3, 255 - grey])
    false = thermal.read(saved(tmp_path / "iron.png", iron))
    assert false.values.shape == grey.shape
    assert "palette does not say" in false.notes[0]
    palette = Image.fromarray(grey).convert("P")  # a grey palette is no colour
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(thermal.read(tmp_path / "palette.png").values, grey)


def test_pages_are_chosen(tmp_path: Path) -> None:
    stack = np.stack([ramp(low=7000), ramp(low=8000), ramp(low=9000)])
    path = saved(tmp_path / "stack.tif", stack, photometric="minisblack")
    assert thermal.pages(path) == 3
    with pytest.raises(UserError, match="has 3 pages; choose one with --page, from 0 to 2"):
        thermal.read(path)
    np.testing.assert_array_equal(thermal.read(path, page=2).values, stack[2])
    with pytest.raises(UserError, match="no page -1"):
        thermal.read(path, page=-1)


def test_constant_frames_are_frames(tmp_path: Path) -> None:
    frame = thermal.read(saved(tmp_path / "flat.tif", np.full((8, 8), 7000, np.uint16)))
    assert frame.mask is None
    assert frame.values.max() == frame.values.min() == 7000


def test_what_is_refused(tmp_path: Path) -> None:
    cases: dict[str, tuple[str, Any]] = {
        "small.png": ("at least 8", ramp(7, 20)),
        "all.tif": ("no pixel that measured", np.full((9, 9), 65535, np.uint16)),
        "none.tif": ("no pixel that measured", np.full((9, 9), np.nan, np.float32)),
        "long.tif": ("holds uint32", np.zeros((9, 9), np.uint32)),
        "complex.tif": ("holds complex64", np.zeros((9, 9), np.complex64)),
    }
    for name, (message, values) in cases.items():
        with pytest.raises(UserError, match=message):
            thermal.read(saved(tmp_path / name, values))
    (tmp_path / "text.png").write_text("no frame at all")
    for path, message in (
        (tmp_path / "text.png", "no frame that can be read"),
        (tmp_path, "is a folder"),
        (tmp_path / "missing.png", "there is no file"),
    ):
        with pytest.raises(UserError, match=message):
            thermal.read(path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_cut_files_say_so(tmp_path: Path, suffix: str) -> None:
    whole = saved(tmp_path / f"frame{suffix}", ramp(40, 50)).read_bytes()
    path = tmp_path / f"cut{suffix}"
    for length in (3, 9, 40, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"damaged|no frame"):
            thermal.read(path)


@pytest.mark.parametrize("name", ["plain.tif", "packed.tif", "grey.png", "grey.jpg"])
@pytest.mark.filterwarnings("ignore")  # of false colours that a changed byte makes
def test_changed_bytes_are_told_in_a_line_or_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    values = ramp(dtype=np.uint8 if "grey" in name else np.uint16, low=50)
    whole = saved(path, values, **({"compression": "zlib", "predictor": True} if "packed" in name else {})).read_bytes()
    rng = np.random.default_rng(0)
    messages: list[str] = []
    for _ in range(80):
        data = bytearray(whole)
        data[int(rng.integers(min(len(data), 300)))] = int(rng.integers(256))
        path.write_bytes(bytes(data))
        try:
            assert min(thermal.read(path, page=0).size) >= 8
        except UserError as error:
            messages.append(str(error))
    assert messages
    assert all("; " in message or "(" in message for message in messages)


def test_frames_larger_than_any_camera_are_refused(tmp_path: Path) -> None:
    """Before their pixels are made: the file has a megabyte, the frame would have a hundred."""
    path = tmp_path / "huge.tif"
    tifffile.imwrite(path, np.zeros((10000, 10000), np.uint8), compression="zlib")
    with pytest.raises(UserError, match="more than any camera"):
        thermal.read(path)


def test_nothing_bad_is_written(tmp_path: Path) -> None:
    frame = thermal.read(saved(tmp_path / "frame.tif", ramp()))
    with pytest.raises(UserError, match="NaN"):
        thermal.write(tmp_path / "out.tif", np.full((8, 8), np.nan), frame)
    thermal.write(tmp_path / "out.tif", np.array([[-5.0, 70000.0]]), frame)  # clipped to what the type holds
    assert tifffile.imread(tmp_path / "out.tif").tolist() == [[0, 65535]]
    with pytest.raises(ValueError, match="shape"):
        thermal.write(tmp_path / "x.tif", np.zeros((1, 8, 8)), frame)


def test_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.png", "a.tif", ".hidden.png", "notes.txt", "sub/c.seq"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [file.name for file in thermal.find(tmp_path)] == ["a.tif", "b.png", "c.seq"]
    (tmp_path / "empty").mkdir()
    for path, message in ((tmp_path / "empty", "holds no frames"), (tmp_path / "nowhere", "no file or folder")):
        with pytest.raises(UserError, match=message):
            thermal.find(path)


def test_every_frame_can_be_written_under_the_name_of_its_result(tmp_path: Path) -> None:
    from ornstein_infrared.thermal import FRAMES

    values = ramp(dtype=np.uint8, low=50)
    sources = [saved(tmp_path / f"levels{suffix}", values) for suffix in (".png", ".tif", ".bmp", ".jpg")]
    sources += [saved(tmp_path / f"counts{suffix}", ramp()) for suffix in (".png", ".tif")]
    (tmp_path / "flir.jpg").write_bytes(radiometric_jpeg(block(ramp(low=13000))))
    (tmp_path / "flir.fff").write_bytes(block(ramp(low=13000)))
    for source in [*sources, tmp_path / "flir.jpg", tmp_path / "flir.fff"]:
        frame = thermal.read(source)
        target = tmp_path / "out" / FRAMES.result_name(source)
        thermal.write(target, frame.values, frame, overwrite=True)
        np.testing.assert_allclose(thermal.read(target).values, frame.values, atol=1e-4)


def test_reading_loads_no_torch() -> None:
    import subprocess
    import sys

    code = "import ornstein_infrared.thermal, sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_planck_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "frame.fff"
    path.write_bytes(block(ramp(low=13000)))
    found = thermal.read(path).planck
    assert found is not None
    assert found.as_dict() == pytest.approx(PLANCK.as_dict(), rel=1e-4)
