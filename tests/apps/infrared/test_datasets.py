"""Layouts of public sets, pairing by name, and items that are functions of seed, epoch and index."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from ornstein.errors import UserError
from ornstein_infrared.data import InfraredData
from ornstein_infrared.datasets import Frames
from ornstein_infrared.degradations import Bicubic, Degradation, RealESRGAN, Thermal
from ornstein_infrared.degradations.bicubic import shrink
from ornstein_infrared.layouts import Layout, Pair, Split, find_pairs
from ornstein_infrared.normalization import FixedRange
from ornstein_infrared.simulate import simulate
from ornstein_infrared.trial import FrameTrial


def save(path: Path, seed: int = 0, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return values


def published(root: Path, count: int = 3) -> list[Pair]:
    """Frames with measured ones as DifIISR's test set has them."""
    for i in range(count):
        large = save(root / "HR" / f"{i:05d}.png", i)
        (root / "LR").mkdir(exist_ok=True)
        Image.fromarray(shrink(large, 4)).save(root / "LR" / f"{i:05d}x4.png")
    return find_pairs(root, "pairs", "test")


def names(root: Path, layout: Layout, split: Split, **options: Any) -> list[str]:
    return [pair.name for pair in find_pairs(root, layout, split, **options)]


def test_roadscene_is_cut_by_sorted_name(tmp_path: Path) -> None:
    for i in range(221):
        (tmp_path / "infrared").mkdir(exist_ok=True)
        (tmp_path / "infrared" / f"FLIR_{i:05d}.jpg").touch()
    splits = [names(tmp_path, "roadscene", split) for split in ("train", "val", "test")]
    assert [len(split) for split in splits] == [181, 20, 20]
    assert [name for split in splits for name in split] == [f"FLIR_{i:05d}" for i in range(221)]


@pytest.mark.parametrize(
    ("layout", "folders"),
    [
        ("pairs", ("train/HR", "test/HR")),
        ("fmb", ("train/Infrared", "test/Infrared")),
        ("msrs", ("train/ir", "test/ir")),
        ("llvip", ("infrared/train", "infrared/test")),
        ("flir_adas", ("images_thermal_train/data", "images_thermal_val/data")),
        ("flir_adas", ("train/thermal_8_bit", "val/thermal_8_bit")),
    ],
)
def test_sets_with_splits(tmp_path: Path, layout: Layout, folders: tuple[str, str]) -> None:
    for folder, count in zip(folders, (10, 2), strict=True):
        for i in range(count):
            save(tmp_path / folder / f"{folder[:3]}{i}.png", size=(8, 8))
    train, val, test = (names(tmp_path, layout, split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (9, 1, 2)
    assert not set(train) & set(val)
    assert names(tmp_path, layout, "val", seed=3) != val or names(tmp_path, layout, "val", seed=4) != val


@pytest.mark.parametrize(("layout", "folder"), [("m3fd", "Ir"), ("tno", "ir"), ("flat", "."), ("flat", "infrared")])
def test_sets_without_splits(tmp_path: Path, layout: Layout, folder: str) -> None:
    for i in range(12):
        save(tmp_path / folder / f"{i:02d}.png", size=(8, 8))
    assert [len(names(tmp_path, layout, split)) for split in ("train", "val", "test")] == [10, 1, 1]


def test_validation_of_its_own(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("val", 2), ("test", 1)):
        for i in range(count):
            save(tmp_path / split / "HR" / f"{i}.png", size=(8, 8))
    assert [len(names(tmp_path, "pairs", split)) for split in ("train", "val", "test")] == [4, 2, 1]


def test_pairs_go_by_name(tmp_path: Path) -> None:
    pairs = published(tmp_path)
    assert [(pair.name, pair.lq) for pair in pairs] == [
        (f"{i:05d}", tmp_path / "LR" / f"{i:05d}x4.png") for i in range(3)
    ]
    (tmp_path / "LR/00001x4.png").rename(tmp_path / "LR/00001.png")  # without the ending it is the same frame
    assert find_pairs(tmp_path, "pairs", "test")[1].lq == tmp_path / "LR/00001.png"
    save(tmp_path / "LR/00001x4.png", size=(8, 12))
    with pytest.raises(UserError, match="belong to one frame"):
        find_pairs(tmp_path, "pairs", "test")
    (tmp_path / "LR/00001x4.png").unlink()
    (tmp_path / "LR/00002x4.png").unlink()
    with pytest.raises(UserError, match="has no partner"):
        find_pairs(tmp_path, "pairs", "test")


def test_what_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "one/HR/a.png")
    for root, layout, split, message in (
        (tmp_path / "none", "flat", "train", "no folder"),
        (tmp_path, "msrs", "train", "none of the folders of msrs"),
        (tmp_path / "one", "flat", "train", "too few"),
        (tmp_path, "coco", "train", "use one of"),
    ):
        with pytest.raises(UserError, match=message):
            find_pairs(root, layout, split)  # type: ignore[arg-type]
    save(tmp_path / "two/train/HR/a.png")
    with pytest.raises(UserError, match="one frame"):
        find_pairs(tmp_path / "two", "pairs", "train")
    save(tmp_path / "one/HR/a.bmp")
    with pytest.raises(UserError, match="have one name"):
        find_pairs(tmp_path / "one", "pairs", "test")


def test_items_of_pairs(tmp_path: Path) -> None:
    item = Frames(published(tmp_path))[1]
    assert set(item) == {"lq", "gt", "name", "index", "low", "high"}
    assert (item["name"], item["index"], item["low"], item["high"]) == ("00001", 1, 0, 255)
    assert (item["lq"].shape, item["gt"].shape, item["gt"].dtype) == ((1, 8, 12), (1, 32, 48), torch.float32)
    made = Bicubic()(item["gt"], torch.Generator()).image
    assert torch.equal(item["lq"], made)  # made and read are the same in every bit


def test_crops_match_and_draws_are_functions_of_seed_epoch_and_index(tmp_path: Path) -> None:
    pairs = published(tmp_path)
    options: dict[str, Any] = {"crop": 16, "augment": "flip_rotate", "length": 30, "seed": 3}
    data, again = Frames(pairs, **options), Frames(pairs, **options, in_memory=True)
    whole = {pair.name: Frames([pair])[0] for pair in pairs}
    seen = set()
    for i in (29, 3, 7):
        assert torch.equal(data[i]["gt"], again[i]["gt"])
        assert (data[i]["lq"].shape, data[i]["gt"].shape) == ((1, 4, 4), (1, 16, 16))
        item = data[i]
        large, small = whole[item["name"]]["gt"], whole[item["name"]]["lq"]
        places = [
            (top, left, turns, flip)
            for top in range(5)
            for left in range(9)
            for turns in range(4)
            for flip in (False, True)
            if torch.equal(_moved(small[:, top : top + 4, left : left + 4], turns, flip), item["lq"])
            and torch.equal(_moved(large[:, 4 * top :, 4 * left :][:, :16, :16], turns, flip), item["gt"])
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) == 3
    first = data[3]["gt"]
    data.set_epoch(1)
    assert not torch.equal(data[3]["gt"], first)
    fixed = Frames(pairs, **options, epochs=False)
    fixed.set_epoch(1)
    assert torch.equal(fixed[3]["gt"], first)


def _moved(signal: torch.Tensor, turns: int, flip: bool) -> torch.Tensor:
    return (signal.flip(-1) if flip else signal).rot90(turns, (-2, -1))


def test_degradation_on_the_fly(tmp_path: Path) -> None:
    save(tmp_path / "odd.png", size=(33, 50))
    pairs = [Pair("odd", tmp_path / "odd.png")]
    item = Frames(pairs, degradation=Thermal())[0]
    assert (item["lq"].shape, item["gt"].shape) == ((1, 8, 12), (1, 32, 48))
    centre = Frames(pairs, degradation=Bicubic(), crop=16, crop_at="centre")[0]["gt"]
    assert torch.equal(centre, item["gt"][:, 8:24, 16:32])


def test_temperatures_are_normalised_by_the_measured_frame(tmp_path: Path) -> None:
    large = np.random.default_rng(0).normal(20, 3, (32, 48)).astype(np.float32)
    small = shrink(large, 4)
    for name, values in (("HR/a.tif", large), ("LR/a.tif", small)):
        (tmp_path / name).parent.mkdir()
        tifffile.imwrite(tmp_path / name, values)
    pairs = find_pairs(tmp_path, "pairs", "test")
    item = Frames(pairs)[0]
    assert item["low"] == pytest.approx(np.percentile(small, 0.1))
    assert item["high"] == pytest.approx(np.percentile(small, 99.9))
    back = item["low"] + (item["high"] - item["low"]) * item["lq"][0].numpy()
    np.testing.assert_allclose(back, small, atol=1e-4)
    assert (float(item["gt"].min()), float(item["gt"].max())) == (-0.25, 1.25)  # what the network may see
    fixed = Frames(pairs, normalization=FixedRange(0, 50))[0]
    np.testing.assert_allclose(50 * fixed["gt"][0], large, atol=1e-4)


@pytest.mark.parametrize("degradation", [None, Bicubic(eight_bit=False), Thermal(), RealESRGAN()])
def test_validation_sees_what_an_evaluation_sees(tmp_path: Path, degradation: Degradation | None) -> None:
    """Counts without measured frames: one range, that of the degraded frame, which clean hot spots exceed."""
    rng = np.random.default_rng(0)
    for i in range(12):
        counts = 3000 + 40 * rng.random((33, 48)).cumsum(1)
        counts[::9, ::9] = 6000
        tifffile.imwrite(tmp_path / f"{i:02d}.tif", counts.astype(np.uint16))
    data = InfraredData(tmp_path, "flat", degradation, augment="none", seed=5)
    (batch,) = data.val_dataloader()
    low, high, lq, gt = (batch[name][0].numpy() for name in ("low", "high", "lq", "gt"))
    (pair,) = find_pairs(tmp_path, "flat", "val", seed=5)
    expected = FrameTrial([pair], degradation=degradation, seed=5).item(0)
    assert (low, high) == (expected.measured.low, expected.measured.high)
    np.testing.assert_allclose(lq[0], (expected.measured.z + 1) / 2, atol=1e-7)
    np.testing.assert_allclose(gt, expected.truth.clip(-0.25, 1.25), atol=1e-7)
    assert float(gt.max()) == 1.25


@pytest.mark.parametrize("degradation", [None, Bicubic(eight_bit=False)])
def test_crops_of_counts_keep_the_range_of_the_whole_frame_shrunk(
    tmp_path: Path, degradation: Degradation | None
) -> None:
    counts = (3000 + 40 * np.random.default_rng(0).random((32, 48)).cumsum(1)).astype(np.uint16)
    counts[3, 3] = 6000
    tifffile.imwrite(tmp_path / "a.tif", counts)
    item = Frames([Pair("a", tmp_path / "a.tif")], degradation=degradation, crop=32)[0]
    low, high = np.percentile(shrink(counts.astype(np.float32), 4), (0.1, 99.9))
    assert (item["low"], item["high"]) == pytest.approx((low, high))
    assert (item["lq"].shape, item["gt"].shape) == ((1, 8, 8), (1, 32, 32))
    assert float(item["lq"].max()) <= 1.25


def test_sizes_units_and_settings_that_do_not_fit(tmp_path: Path) -> None:
    pairs = published(tmp_path)
    assert pairs[0].lq is not None
    with pytest.raises(UserError, match="with scale 2 their sides"):
        Frames(pairs, scale=2)[0]
    with pytest.raises(UserError, match=r"less than the crop of 64; lower data\.crop"):
        Frames(pairs, crop=64)[0]
    tifffile.imwrite(tmp_path / "LR.tif", np.full((8, 12), 7000, np.uint16))
    with pytest.raises(UserError, match="holds counts and"):
        Frames([Pair("a", pairs[0].gt, tmp_path / "LR.tif")])[0]
    for options, message in (
        ({"crop": 18}, "a multiple"),
        ({"augment": "shear"}, "use one of"),
        ({"length": 0}, "at least 1"),
        ({"degradation": Bicubic(2)}, "shrinks 2 times"),
    ):
        with pytest.raises(UserError, match=message):
            Frames(pairs, **options)  # type: ignore[arg-type]
    with pytest.raises(IndexError):
        Frames(pairs)[3]


def test_simulated_set_with_hot_objects(tmp_path: Path) -> None:
    simulate(tmp_path / "set", scenes=3, height=64, width=64, quiet=True)
    pairs = find_pairs(tmp_path / "set", "pairs", "test")
    assert pairs[0].hot == tmp_path / "set/test/hot/scene00002.png"
    assert Frames(pairs)[0]["lq"].shape == (1, 16, 16)
