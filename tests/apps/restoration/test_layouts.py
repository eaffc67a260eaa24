"""Where the pictures of published sets are found, and what is held out."""

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ornstein.errors import UserError
from ornstein_restoration import layouts
from ornstein_restoration.layouts import Pair, find_pairs

Save = Callable[[Path, np.ndarray], Path]
GREY = np.full((8, 8, 3), 99, np.uint8)


@pytest.fixture
def make(tmp_path: Path, save: Save) -> Callable[..., Path]:
    """make("a/b.png", ...): a set with these files."""

    def files(*names: str) -> Path:
        for name in names:
            save(tmp_path / name, GREY)
        return tmp_path

    return files


def names(pairs: list[Pair]) -> list[str]:
    return [pair.name for pair in pairs]


def istd(part: str, *stems: str) -> list[str]:
    return [f"{part}/{part}_{kind}/{stem}.png" for kind in "ABC" for stem in stems]


def test_istd_holds_out_whole_scenes(make: Callable[..., Path]) -> None:
    stems = [f"{scene}-{shot}" for scene in range(10) for shot in range(3)]
    root = make(*istd("train", *stems), *istd("test", "90-1", "90-2"))
    with pytest.warns(UserWarning, match=r"30 pairs to train, the published istd has 1330"):
        train = find_pairs(root, "istd", "train")
    with pytest.warns(UserWarning, match="30 pairs"):
        valid = find_pairs(root, "istd", "valid")
    with pytest.warns(UserWarning, match="540"):
        test = find_pairs(root, "istd", "test")
    assert len(train) == 27
    assert len(valid) == 3
    assert names(test) == ["90-1", "90-2"]
    scenes = [{name.split("-")[0] for name in names(pairs)} for pairs in (train, valid)]
    assert not scenes[0] & scenes[1]
    first = train[0]
    assert first.lq is not None
    assert first.gt is not None
    assert first.mask is not None
    assert [path.parent.name for path in (first.lq, first.mask, first.gt)] == ["train_A", "train_B", "train_C"]
    assert {path.stem for path in (first.lq, first.mask, first.gt)} == {first.name}


def test_published_numbers_are_not_warned_of(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "COUNTS", {"lol": (2, 1)})
    root = make(
        *(f"our485/{side}/{i}.png" for side in ("low", "high") for i in range(2)),
        "eval15/low/9.png",
        "eval15/high/9.png",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(find_pairs(root, "lol", "train") + find_pairs(root, "lol", "valid")) == 2
        assert names(find_pairs(root, "lol", "test")) == ["9"]


@pytest.mark.filterwarnings("ignore:.*published")
def test_raindrop_partners_have_other_names(make: Callable[..., Path]) -> None:
    root = make(
        *(f"train/{folder}/{i}_{end}.png" for folder, end in (("data", "rain"), ("gt", "clean")) for i in range(3)),
        "test_a/data/7_rain.png",
        "test_a/gt/7_clean.png",
    )
    (pair,) = find_pairs(root, "raindrop", "test")
    assert pair.lq is not None
    assert pair.gt is not None
    assert (pair.name, pair.lq.name, pair.gt.name) == ("7", "7_rain.png", "7_clean.png")
    assert len(find_pairs(root, "raindrop", "train")) == 2


@pytest.mark.parametrize(
    ("files", "referenced"),
    [
        (["gt/a.png", "lq/a.jpg"], True),
        (["HR/Canon_001_HR.png", "LR/4/Canon_001_LR4.png"], True),
        (["test/low/a.png", "test/high/a.png"], True),
        (["Canon_001_HR.png", "Canon_001_LR4.png"], True),
        (["lq/a.png"], False),
        (["a.png"], False),
    ],
)
def test_test_sets_of_pairs_and_without_references(
    files: list[str], referenced: bool, make: Callable[..., Path]
) -> None:
    (pair,) = find_pairs(make(*files), "pairs", "test")
    assert pair.lq is not None
    assert (pair.gt is not None) == referenced


def sides(pairs: list[Pair]) -> list[tuple[str, str, str]]:
    return [(pair.name, pair.lq.name, pair.gt.name) for pair in pairs if pair.lq and pair.gt]


def test_realsr_as_distributed(make: Callable[..., Path]) -> None:
    root = make(
        *(
            f"{camera}/{part}/{scale}/{camera}_00{i}_{side}.png"
            for camera in ("Canon", "Nikon")
            for part, numbers in (("Train", (1, 2, 3)), ("Test", (4,)))
            for scale in (2, 4)
            for i in numbers
            for side in ("HR", f"LR{scale}")
        )
    )
    assert sides(find_pairs(root, "realsr", "test", scale=4)) == [
        (f"{camera}_004", f"{camera}_004_LR4.png", f"{camera}_004_HR.png") for camera in ("Canon", "Nikon")
    ]
    (first, *_) = find_pairs(root, "realsr", "test", scale=2)
    assert first.lq == root / "Canon/Test/2/Canon_004_LR2.png"
    parts = [names(find_pairs(root, "realsr", split, scale=4)) for split in ("train", "valid")]  # type: ignore[arg-type]
    assert [len(part) for part in parts] == [5, 1]
    assert len({*parts[0], *parts[1]}) == 6


@pytest.mark.filterwarnings("ignore:.*published")
def test_lol_v2_as_distributed(make: Callable[..., Path]) -> None:
    root = make(
        *(f"Real_captured/Train/{side}/{side.lower()}0000{i}.png" for side in ("Low", "Normal") for i in range(4)),
        *(f"Real_captured/Test/{side}/{side.lower()}00690.png" for side in ("Low", "Normal")),
        *(f"Synthetic/Test/{side}/r000da54ft.png" for side in ("Low", "Normal")),
    )
    assert sides(find_pairs(root / "Real_captured", "lol_v2", "test")) == [("00690", "low00690.png", "normal00690.png")]
    assert len(find_pairs(root / "Real_captured", "lol_v2", "train")) == 3
    with pytest.warns(UserWarning, match=r"1 pairs to test, the published lol_v2 \(synthetic\) has 100"):
        assert names(find_pairs(root / "Synthetic", "lol_v2", "test")) == ["r000da54ft"]
    with pytest.raises(UserError, match=r"Real_captured or .*Synthetic"):
        find_pairs(root, "lol_v2", "test")


@pytest.mark.filterwarnings("ignore:.*published")
def test_div2k_as_distributed(make: Callable[..., Path]) -> None:
    root = make(
        *(f"DIV2K_train_HR/000{i}.png" for i in range(1, 6)),
        *(f"DIV2K_train_LR_bicubic/X{scale}/000{i}x{scale}.png" for i in range(1, 6) for scale in (2, 4)),
        "DIV2K_valid_HR/0801.png",
        "DIV2K_valid_LR_bicubic/X4/0801x4.png",
    )
    assert sides(find_pairs(root, "div2k", "test", scale=4)) == [("0801", "0801x4.png", "0801.png")]
    (first, *_) = find_pairs(root, "div2k", "train", scale=2)
    assert first.lq is not None
    assert first.lq.parent.name == "X2"
    with pytest.raises(UserError, match=r"there is no folder .*X8"):
        find_pairs(root, "div2k", "test", scale=8)


def test_own_validation_split_is_used(make: Callable[..., Path]) -> None:
    root = make(*(f"{split}/{side}/{split}.png" for split in ("train", "valid", "test") for side in ("lq", "gt")))
    for split in ("train", "valid", "test"):
        assert names(find_pairs(root, "pairs", split)) == [split]  # type: ignore[arg-type]


def test_lists_of_files(make: Callable[..., Path]) -> None:
    root = make(*(f"somewhere/{side}{i}.png" for side in ("x", "y") for i in range(4)))
    (root / "train_lq.flist").write_text("".join(f"somewhere/x{i}.png\n" for i in range(4)))
    (root / "train_gt.flist").write_text("".join(f"{root}/somewhere/y{i}.png\n" for i in (3, 2, 1, 0)) + "\n")
    pairs = find_pairs(root, "flist", "train") + find_pairs(root, "flist", "valid")
    together = {(pair.lq.name, pair.gt.name) for pair in pairs if pair.lq and pair.gt}
    assert together == {("x0.png", "y3.png"), ("x1.png", "y2.png"), ("x2.png", "y1.png"), ("x3.png", "y0.png")}
    (root / "train_lq.flist").write_text("somewhere/x0.png\n")
    with pytest.raises(UserError, match=r"1 lines and train_gt\.flist 4"):
        find_pairs(root, "flist", "train")
    (root / "train_gt.flist").write_text("gone.png\n")
    with pytest.raises(UserError, match="which does not exist"):
        find_pairs(root, "flist", "train")


def test_clean_pictures_in_one_folder_and_in_three(make: Callable[..., Path]) -> None:
    root = make(*(f"photos/{i}.png" for i in range(20)), "a/train/n01/x.png", "a/val/n01/y.png", "a/test/z.png")
    parts = [names(find_pairs(root / "photos", "clean", split)) for split in ("train", "valid", "test")]  # type: ignore[arg-type]
    assert [len(part) for part in parts] == [16, 2, 2]
    assert sorted(itertools.chain(*parts)) == sorted(str(i) for i in range(20))
    assert [names(find_pairs(root / "a", "clean", split)) for split in ("train", "valid", "test")] == [  # type: ignore[arg-type]
        ["n01/x"],
        ["n01/y"],
        ["z"],
    ]


def test_div2k_is_tested_on_its_validation_pictures(make: Callable[..., Path]) -> None:
    root = make(*(f"DIV2K_train_HR/{i:04d}.png" for i in range(1, 6)), "DIV2K_valid_HR/0801.png")
    assert names(find_pairs(root, "clean", "test")) == ["0801"]
    assert len(find_pairs(root, "clean", "train") + find_pairs(root, "clean", "valid")) == 5


@given(st.integers(0, 5), st.floats(0.01, 0.4), st.integers(2, 60))
def test_held_out_pictures_stay_held_out_in_a_larger_set(seed: int, share: float, count: int) -> None:
    def held(size: int) -> list[str]:
        pairs = [Pair(f"p{i}", None) for i in range(size)]
        kept, out = layouts._parted(pairs, share, seed, "valid", Path("x"))
        assert not set(names(kept)) & set(names(out))
        assert len(kept) + len(out) == size
        assert len(out) == max(1, int(share * size))
        return names(out)

    before, after = held(count), held(count + 1)
    assert len(set(before) - set(after)) <= 1  # one new picture displaces one at most


@pytest.mark.filterwarnings("ignore:.*published")
@pytest.mark.parametrize(
    ("layout", "files", "split", "message"),
    [
        ("istd", ["train/x.png"], "train", "ISTD has train and test"),
        ("istd", [*istd("train", "1-1"), "train/train_A/2-1.png"], "train", "no partner"),
        ("istd", [*istd("train", "1-1"), "train/train_C/2-1.png"], "train", "no partner"),
        (
            "istd",
            [*istd("train", "1-1"), "train/train_A/2-1.png", "train/train_C/2-1.png"],
            "train",
            "2-1.png has no mask",
        ),
        ("lol", ["our485/low/1.png"], "train", "there is no folder"),
        ("lol", ["our485/low/1.png", "our485/high/1.png"], "train", "none can be held out"),
        ("pairs", ["lq/a.png", "gt/a.png"], "train", "no folder train"),
        ("pairs", ["train/x/a.png"], "train", "holds no pairs"),
        ("pairs", ["Canon/Test/4/a_HR.png", "Canon/Test/4/a_LR4.png"], "test", "no pairs of this layout"),
        ("pairs", ["Test/Low/low1.png", "Test/Normal/normal1.png"], "test", "no pairs of this layout"),
        ("pairs", ["DIV2K_valid_HR/1.png", "DIV2K_valid_LR_bicubic/X4/1x4.png"], "test", "no pairs of this layout"),
        ("pairs", ["a_HR.png", "a_LR4.png", "b_HR.png"], "test", "b_HR.png has no partner"),
        ("pairs", ["a_HR.png", "a_LR4.png", "b.png"], "test", "b.png lies among pairs"),
        ("pairs", ["a_HR.png", "a_LR4.png", "a_LR2.png"], "test", "one picture of two scales"),
        ("pairs", ["lq/a_rain.png", "lq/a.png", "gt/a.png"], "test", "would have one partner"),
        ("realsr", ["a/x.png"], "test", "no folder Canon or Nikon"),
        ("realsr", ["Canon/Test/4/a_HR.png"], "test", "scale 2, 3 and 4"),
        ("flist", ["a.png"], "test", "there is no list"),
        ("clean", ["train/a.png"], "test", "no folder test"),
        ("clean", ["a.png", "a.jpg"], "train", "have one name"),
        ("clean", ["readme/x.txt.png.txt"], "train", "holds no pictures"),
        ("other", ["a.png"], "train", "layout is 'other'"),
    ],
)
def test_sets_that_cannot_be_used(
    layout: str, files: list[str], split: str, message: str, make: Callable[..., Path], tmp_path: Path
) -> None:
    for name in files:
        if name.endswith(".txt"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_text("no picture")
        else:
            make(name)
    with pytest.raises(UserError, match=message):
        find_pairs(tmp_path, layout, split)  # type: ignore[arg-type]


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        find_pairs(tmp_path / "gone", "lol", "train")
    with pytest.raises(UserError, match="between 0 and"):
        find_pairs(tmp_path, "lol", "train", share=0.7)
