"""Pictures of every kind are read as they look, written back as they were, and refused with a reason."""

import contextlib
import io
import subprocess
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PIL
from PIL import ImageCms

from ornstein.errors import UserError
from ornstein_restoration import images

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

TURNS = {
    2: PIL.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Transpose.ROTATE_180,
    4: PIL.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Transpose.TRANSPOSE,
    6: PIL.Transpose.ROTATE_270,
    7: PIL.Transpose.TRANSVERSE,
    8: PIL.Transpose.ROTATE_90,
}
"""How a picture becomes upright, by its EXIF orientation."""


def values(*shape: int, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def smooth(height: int, width: int) -> np.ndarray:
    """A picture that lossy formats keep well."""
    rows, columns = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None]
    return np.stack([rows + 0 * columns, columns + 0 * rows, rows * columns]).astype(np.float32)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
@pytest.mark.parametrize("grey", [False, True])
def test_eight_bits_come_back_exactly(tmp_path: Path, suffix: str, grey: bool) -> None:
    stored = values(5, 7) if grey else values(5, 7, 3)
    PIL.fromarray(stored).save(tmp_path / f"a{suffix}")
    found = images.read(tmp_path / f"a{suffix}")
    assert (found.depth, found.grey, found.alpha, found.size) == (8, grey, None, (5, 7))
    assert found.pixels.dtype == np.float32
    expected = np.broadcast_to(np.atleast_3d(stored).transpose(2, 0, 1), (3, 5, 7))
    np.testing.assert_array_equal(found.pixels, expected / np.float32(255))
    images.write(tmp_path / f"b{suffix}", found.pixels, found)
    with PIL.open(tmp_path / f"b{suffix}") as back:
        assert back.mode == ("L" if grey else "RGB")
        np.testing.assert_array_equal(np.asarray(back), stored)


@pytest.mark.parametrize(
    ("suffix", "channels"), [(".png", 1), (".png", 2), (".png", 3), (".png", 4), (".tif", 1), (".tif", 3), (".tif", 4)]
)
def test_sixteen_bits_come_back_exactly(tmp_path: Path, suffix: str, channels: int) -> None:
    stored = values(6, 5, channels, dtype="uint16")[..., 0 if channels == 1 else slice(None)]
    if suffix == ".png":
        (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(stored))
    else:
        tifffile.imwrite(
            tmp_path / "a.tif",
            stored,
            photometric="rgb" if channels > 2 else "minisblack",
            planarconfig=None if channels == 1 else "contig",
            extrasamples=["unassalpha"] if channels == 4 else None,
            compression="lzw",
        )
    found = images.read(tmp_path / f"a{suffix}")
    assert (found.depth, found.grey, found.alpha is None) == (16, channels < 3, channels in (1, 3))
    images.write(tmp_path / f"b{suffix}", found.pixels, found)
    again = images.read(tmp_path / f"b{suffix}")
    np.testing.assert_array_equal(again.pixels, found.pixels)
    first = np.atleast_3d(stored)[..., 0]
    np.testing.assert_array_equal(np.rint(again.pixels[0] * 65535), first)
    if found.alpha is not None and again.alpha is not None:
        np.testing.assert_array_equal(np.rint(again.alpha * 65535), np.atleast_3d(stored)[..., -1])
    images.write(tmp_path / f"c{suffix}", found.pixels, found, depth=8)
    assert images.read(tmp_path / f"c{suffix}").depth == 8


def test_white_may_be_zero_and_planes_apart(tmp_path: Path) -> None:
    stored = values(4, 5, dtype="uint16")
    tifffile.imwrite(tmp_path / "white.tif", stored, photometric="miniswhite")
    np.testing.assert_array_equal(np.rint(images.read(tmp_path / "white.tif").pixels[1] * 65535), 65535 - stored)
    planes = values(3, 4, 5, dtype="uint16")
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(np.rint(images.read(tmp_path / "planes.tif").pixels * 65535), planes)


def test_colours_may_be_multiplied_by_opacity(tmp_path: Path) -> None:
    colours, opacity = values(4, 5, 3, dtype="uint16"), np.full((4, 5, 1), 32768, np.uint16)
    stored = np.concatenate([(colours / 65535 * opacity).round().astype(np.uint16), opacity], axis=2)
    options = {"photometric": "rgb", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", stored, extrasamples=["assocalpha"], **options)
    found = images.read(tmp_path / "a.tif")
    np.testing.assert_allclose(found.pixels, colours.transpose(2, 0, 1) / 65535, atol=2e-5)
    assert found.alpha is not None
    np.testing.assert_allclose(found.alpha, 32768 / 65535)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_opacity_is_kept_aside_and_follows_the_size(tmp_path: Path, suffix: str) -> None:
    stored = values(8, 6, 4)
    stored[..., 3] = np.linspace(0, 255, 48).reshape(8, 6)
    PIL.fromarray(stored).save(tmp_path / f"a{suffix}", lossless=True)
    found = images.read(tmp_path / f"a{suffix}")
    assert found.alpha is not None
    np.testing.assert_array_equal(np.rint(found.alpha * 255), stored[..., 3])
    larger = found.pixels.repeat(2, axis=1).repeat(2, axis=2)
    images.write(tmp_path / f"b{suffix}", larger, found)
    again = images.read(tmp_path / f"b{suffix}")
    assert again.size == (16, 12)
    assert again.alpha is not None
    assert again.alpha.shape == (16, 12)
    np.testing.assert_allclose(again.alpha[::2, ::2], found.alpha, atol=0.06)


def test_palettes_are_resolved(tmp_path: Path) -> None:
    picture = PIL.fromarray(values(9, 9, 3)).quantize(16)
    picture.save(tmp_path / "opaque.png")
    picture.save(tmp_path / "clear.png", transparency=3)
    found = images.read(tmp_path / "opaque.png")
    np.testing.assert_array_equal(np.rint(found.pixels * 255), np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
    clear = images.read(tmp_path / "clear.png")
    assert clear.alpha is not None
    np.testing.assert_array_equal(clear.alpha == 0, np.asarray(picture) == 3)


def test_cmyk_becomes_srgb(tmp_path: Path) -> None:
    PIL.new("CMYK", (4, 3), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=100)
    found = images.read(tmp_path / "red.jpg")
    assert found.icc is None
    np.testing.assert_allclose(found.pixels[:, 0, 0], [1, 0, 0], atol=0.02)
    turned = PIL.Exif()
    turned[0x0112], turned[0x010F] = 6, "maker"
    stripes = np.zeros((2, 6, 4), np.uint8)
    stripes[1, :, 3] = 255
    PIL.fromarray(stripes, "CMYK").save(tmp_path / "turned.tif", exif=turned)
    upright = images.read(tmp_path / "turned.tif")
    assert upright.size == (6, 2)
    np.testing.assert_allclose(upright.pixels[1], [[0, 1]] * 6, atol=0.02)
    images.write(tmp_path / "rgb.tif", upright.pixels, upright)
    assert images.read(tmp_path / "rgb.tif").size == (6, 2)
    PIL.new("CMYK", (4, 3), (0, 255, 255, 0)).save(tmp_path / "profile.jpg", icc_profile=SRGB)  # of another mode
    with pytest.raises(UserError, match="profile that does not fit"):
        images.read(tmp_path / "profile.jpg")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("grey", [False, True])
def test_orientation_is_applied_and_reset(tmp_path: Path, orientation: int, suffix: str, grey: bool) -> None:
    stored = (smooth(24, 40) * 255).astype(np.uint8).transpose(1, 2, 0)
    stored = stored[..., 2] if grey else stored
    exif = PIL.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    PIL.fromarray(stored).save(tmp_path / f"a{suffix}", exif=exif)
    found = images.read(tmp_path / f"a{suffix}")
    method = TURNS.get(orientation)
    upright = PIL.fromarray(stored)
    if suffix == ".jpg":
        with PIL.open(tmp_path / "a.jpg") as picture:
            upright = PIL.fromarray(np.asarray(picture))
    upright = upright if method is None else upright.transpose(method)
    np.testing.assert_array_equal(np.rint(found.pixels * 255), np.asarray(upright.convert("RGB")).transpose(2, 0, 1))
    assert images.size(tmp_path / f"a{suffix}") == found.size
    images.write(tmp_path / f"b{suffix}", found.pixels, found)
    with PIL.open(tmp_path / f"b{suffix}") as picture:
        assert picture.getexif().get(0x0112, 1) == 1
        assert picture.getexif()[0x010F] == "maker"
        assert picture.size == (found.size[1], found.size[0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_sixteen_bits(tmp_path: Path, orientation: int) -> None:
    stored = values(3, 4, 3, dtype="uint16")
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    exif = PIL.Exif()
    exif[0x0112] = orientation
    PIL.fromarray((stored >> 8).astype(np.uint8)).save(tmp_path / "b.png", exif=exif)
    found, eight = images.read(tmp_path / "a.tif"), images.read(tmp_path / "b.png")
    np.testing.assert_allclose(found.pixels, eight.pixels, atol=1 / 200)
    assert images.size(tmp_path / "a.tif") == found.size == eight.size


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_profile_and_exif_are_kept(tmp_path: Path, suffix: str, depth: int) -> None:
    exif = PIL.Exif()
    exif[0x0110] = "camera"
    exif.get_ifd(0x8769).update({0xA002: 40, 0xA003: 24, 0x829A: 0.01})
    like = images.Image(smooth(24, 40), depth, icc=SRGB, exif=exif.tobytes())
    if depth == 16 and suffix in (".jpg", ".webp"):
        with pytest.raises(UserError, match="holds 8 bits"):
            images.write(tmp_path / f"a{suffix}", like.pixels, like)
        return
    images.write(tmp_path / f"a{suffix}", smooth(48, 80), like)
    found = images.read(tmp_path / f"a{suffix}")
    assert (found.icc, found.depth) == (SRGB, depth)
    np.testing.assert_allclose(found.pixels, smooth(48, 80), atol=0.03)
    with PIL.open(tmp_path / f"a{suffix}") as picture:
        assert picture.getexif()[0x0110] == "camera"
        details = picture.getexif().get_ifd(0x8769)
    if depth == 8 or suffix != ".tif":
        assert (details[0xA002], details[0xA003]) == (80, 48)
        assert float(details[0x829A]) == pytest.approx(0.01)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([".png", ".tif", ".jpg", ".webp", ".bmp"]))
def test_any_size_down_to_a_pixel(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("size") / f"a{suffix}"
    images.write(path, torch.full((3, height, width), 0.5))
    found = images.read(path)
    assert found.size == (height, width)
    np.testing.assert_allclose(found.pixels, 0.5, atol=0.01)


def test_values_are_clipped_and_rounded(tmp_path: Path) -> None:
    images.write(tmp_path / "a.png", np.array([-1.0, 0.4999 / 255, 0.501 / 255, 7.0]).reshape(1, 2, 2).repeat(3, 0))
    np.testing.assert_array_equal(images.read(tmp_path / "a.png").pixels[0] * 255, [[0, 0], [1, 255]])


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    pixels = smooth(4, 5)
    for name, like, problem in (
        ("a.jpg", images.Image(pixels, alpha=pixels[0]), "no transparency"),
        ("a.bmp", images.Image(pixels, icc=SRGB), "no colour profile"),
        ("a.webp", images.Image(pixels, 16), "8 bits"),
        ("a.tif", images.Image(pixels, 16, grey=True, alpha=pixels[0]), "grey with transparency"),
        ("a.gif", None, "suffix"),
        ("a", None, "suffix"),
    ):
        with pytest.raises(UserError, match=problem):
            images.write(tmp_path / name, pixels, like)
    for bad in (np.nan, np.inf):
        with pytest.raises(UserError, match="NaN or infinite"):
            images.write(tmp_path / "a.png", np.full((3, 2, 2), bad))
    with pytest.raises(UserError, match="16383 pixels a side"):
        images.write(tmp_path / "a.webp", np.zeros((3, 1, 16384)))
    with pytest.raises(ValueError, match="shape"):
        images.write(tmp_path / "a.png", np.zeros((4, 4)))
    assert list(tmp_path.iterdir()) == []
    images.write(tmp_path / "a.png", pixels)
    with pytest.raises(UserError, match="exists"):
        images.write(tmp_path / "a.png", pixels)
    images.write(tmp_path / "a.png", 1 - pixels, overwrite=True)
    np.testing.assert_allclose(images.read(tmp_path / "a.png").pixels, 1 - pixels, atol=0.002)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about what it finds in them
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp"])
@pytest.mark.parametrize("depth", [8, 16])
def test_truncated_files_are_told(tmp_path: Path, suffix: str, depth: int) -> None:
    if depth == 16 and suffix not in (".png", ".tif"):
        suffix = ".png"
    noise = np.random.default_rng(0).random((3, 40, 40))
    images.write(tmp_path / f"a{suffix}", noise, depth=depth)
    data = (tmp_path / f"a{suffix}").read_bytes()
    for part in (0, 1, 20, len(data) // 2, len(data) - 40):
        (tmp_path / f"b{suffix}").write_bytes(data[:part])
        with pytest.raises(UserError, match=r"b\.(png|jpg|tif|webp|bmp) is "):
            images.read(tmp_path / f"b{suffix}")


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about what it finds in them
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_files_never_end_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    kinds = [(".png", 8), (".png", 16), (".tif", 8), (".tif", 16), (".jpg", 8), (".webp", 8)]
    suffix, depth = data.draw(st.sampled_from(kinds))
    images.write(folder / f"a{suffix}", smooth(12, 16), images.Image(smooth(1, 1), depth, icc=SRGB))
    damaged = bytearray((folder / f"a{suffix}").read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=6)):
        damaged[place] = data.draw(st.integers(0, 255))
    (folder / f"b{suffix}").write_bytes(damaged)
    with contextlib.suppress(UserError):  # any other error fails the test
        assert images.read(folder / f"b{suffix}").pixels.ndim == 3


def test_other_files_are_refused(tmp_path: Path) -> None:
    frames = [PIL.fromarray(values(4, 4, 3, seed=k)) for k in range(3)]
    frames[0].save(tmp_path / "animated.png", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "animated.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(tmp_path / "pages.tif", save_all=True, append_images=frames[1:])
    for name in ("animated.png", "animated.webp", "pages.tif"):
        with pytest.raises(UserError, match="3 frames or pages"):
            images.read(tmp_path / name)
    frames[0].save(tmp_path / "a.gif")
    (tmp_path / "text.png").write_text("no picture")
    for name in ("a.gif", "text.png"):
        with pytest.raises(UserError, match="not a picture that can be read"):
            images.read(tmp_path / name)
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((4, 4), np.float32))
    with pytest.raises(UserError, match="float32"):
        images.read(tmp_path / "float.tif")
    PIL.new("LAB", (3, 3)).save(tmp_path / "lab.tif")
    with pytest.raises(UserError, match="LAB"):
        images.read(tmp_path / "lab.tif")
    with pytest.raises(UserError, match="there is no file"):
        images.read(tmp_path / "nothing.png")
    with pytest.raises(UserError, match="is a folder"):
        images.read(tmp_path)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    PIL.new("1", (1, 1)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(UserError, match="179 million"):
        images.read(tmp_path / "bomb.png")


def test_find(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no pictures"):
        images.find(tmp_path)
    with pytest.raises(UserError, match="no file or folder"):
        images.find(tmp_path / "nothing")
    for name in ("b.PNG", "a/z.jpg", "a/y.txt", ".hidden/x.png", "a/.c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert images.find(tmp_path) == [tmp_path / "a" / "z.jpg", tmp_path / "b.PNG"]
    assert images.find(tmp_path / "b.PNG") == [tmp_path / "b.PNG"]


def test_reading_a_picture_loads_no_torch(tmp_path: Path) -> None:
    images.write(tmp_path / "a.png", smooth(4, 4), depth=16)
    code = (
        "import sys; from ornstein_restoration import images\n"
        f"images.write({str(tmp_path / 'b.tif')!r}, images.read({str(tmp_path / 'a.png')!r}).pixels)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
