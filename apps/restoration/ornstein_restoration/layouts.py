"""Where data sets keep their pictures: published layouts, folders of pairs or of clean pictures, lists of files."""

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from ornstein.errors import UserError
from ornstein.finding import by_name
from ornstein.training.seeds import derive_seed
from ornstein_restoration import images

Layout = Literal["istd", "lol", "lol_v2", "raindrop", "realsr", "div2k", "pairs", "flist", "clean"]
Split = Literal["train", "valid", "test"]

COUNTS: Mapping[str, tuple[int, int]] = {
    "istd": (1330, 540),
    "lol": (485, 15),
    "lol_v2 (real)": (689, 100),
    "lol_v2 (synthetic)": (900, 100),
    "raindrop": (861, 58),
    "div2k": (800, 100),
}
"""Pairs for training and for testing, as published."""

PAIR_FOLDERS = (("lq", "gt"), ("LR/4", "HR"), ("LR", "HR"), ("low", "high"), ("data", "gt"), ("input", "target"))
"""Names of the folders of degraded and clean pictures that `pairs` knows."""

DIV2K = {"train": "DIV2K_train_HR", "valid": "DIV2K_valid_HR"}


@dataclass(frozen=True)
class Pair:
    """The files of one item."""

    name: str
    lq: Path | None
    """The degraded picture; None where it is made of the clean one."""
    gt: Path | None = None
    """The clean picture; None where there is no reference."""
    mask: Path | None = None


def find_pairs(
    root: Path, layout: Layout, split: Split, *, scale: int = 1, share: float = 0.1, seed: int = 0
) -> list[Pair]:
    """The items of a split, sorted by name.

    Validation is never the test split: where a set has none, `share` of the training items is held out of training,
    those whose names (scenes, where a set has several pictures of one) have the smallest seeded hash. Numbers that
    differ from the published ones are warned of.

    Args:
        root: folder of the set.
        layout: `istd`: {train,test}/{s}_A, {s}_B and {s}_C with shadow, mask and clean; `lol`:
            {our485,eval15}/{low,high}; `lol_v2`: {Train,Test}/{Low,Normal}, in Real_captured or Synthetic; `raindrop`:
            {train,test_a}/{data,gt}; `realsr`: {Canon,Nikon}/{Train,Test}/SCALE with NAME_HR and NAME_LR4 (RealSR-V3);
            `div2k`: DIV2K_{train,valid}_HR and DIV2K_{train,valid}_LR_bicubic/X4, tested on valid; `pairs`: two
            folders such as lq and gt, or LR/4 and HR, or one folder with NAME_HR and NAME_LR4, below
            ROOT/{train,valid,test} or, as test set, in ROOT, perhaps with a folder mask, or lq alone; `flist`:
            {train,valid,test}_{lq,gt,mask}.flist, one path a line; `clean`: folders of clean pictures,
            ROOT/{train,valid,test}, the names of DIV2K, or one folder, of which `share` is held out for validation and
            as much as test set.
        split: train, valid or test.
        scale: clean sides over degraded ones, for `realsr` and `div2k`, which have folders for several.
        share: of the training items that is held out.
        seed: of the choice.

    Raises:
        UserError: a missing folder, picture, partner or mask, or too few pictures to hold any out.
    """
    root = Path(root)
    if layout not in get_args(Layout) or split not in get_args(Split):
        layouts, splits = ", ".join(get_args(Layout)), ", ".join(get_args(Split))
        raise UserError(f"layout is {layout!r} and split {split!r}; use one of {layouts}, and of {splits}")
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; give that of your data")
    if not 0 < share < 0.5:
        raise UserError(f"the share held out for validation is {share}; it must lie between 0 and 0.5")
    found = _finders(scale)[layout](root, split)
    if (known := found.counted or layout) in COUNTS:
        _warn_of_count(known, "test" if split == "test" else "train", len(found.pairs), root)
    pairs = found.pairs
    if found.whole:  # one folder of clean pictures for all three
        rest, test = _parted(pairs, share, seed, "test", root)
        pairs = test if split == "test" else rest
        share = share / (1 - share)
    if split != "test" and not found.own_validation:
        train, valid = _parted(pairs, share, seed, "valid", root)
        pairs = train if split == "train" else valid
    return pairs


@dataclass(frozen=True)
class _Found:
    pairs: list[Pair]
    own_validation: bool = False
    """Whether the set has a validation split, so that nothing is held out."""
    whole: bool = False
    """Whether the pictures are of no split."""
    counted: str = ""
    """Name in COUNTS, where it is not that of the layout."""


def _finders(scale: int) -> dict[str, Callable[[Path, Split], _Found]]:
    return {
        "istd": _istd,
        "lol": _lol,
        "lol_v2": _lol_v2,
        "raindrop": _raindrop,
        "realsr": partial(_realsr, scale=scale),
        "div2k": partial(_div2k, scale=scale),
        "pairs": _paired_folders,
        "flist": _lists,
        "clean": _clean,
    }


def _istd(root: Path, split: Split) -> _Found:
    part = "test" if split == "test" else "train"
    folders = [root / part / f"{part}_{kind}" for kind in "ABC"]
    if not folders[0].is_dir():
        raise UserError(f"there is no folder {root / part / f'{part}_A'}; ISTD has train and test with _A, _B and _C")
    return _Found(_matched(folders[0], folders[2], mask=folders[1]))


def _lol(root: Path, split: Split) -> _Found:
    base = root / ("eval15" if split == "test" else "our485")
    return _Found(_matched(base / "low", base / "high"))


def _raindrop(root: Path, split: Split) -> _Found:
    base = root / ("test_a" if split == "test" else "train")
    return _Found(_matched(base / "data", base / "gt"))


def _lol_v2(root: Path, split: Split) -> _Found:
    sets = [root / name for name in ("Real_captured", "Synthetic") if (root / name).is_dir()]
    if sets:
        raise UserError(f"{root} holds two sets, of which this layout takes one; give {' or '.join(map(str, sets))}")
    base = root / ("Test" if split == "test" else "Train")
    pairs = _matched(base / "Low", base / "Normal", key=lambda name: re.sub(r"^(low|normal)(?=\d)", "", name))
    real = all(pair.name.isdigit() for pair in pairs)  # low00001.png and normal00001.png
    return _Found(pairs, counted=f"lol_v2 ({'real' if real else 'synthetic'})")


def _realsr(root: Path, split: Split, scale: int) -> _Found:
    cameras = [root / name for name in ("Canon", "Nikon") if (root / name).is_dir()]
    if not cameras:
        raise UserError(f"{root} has no folder Canon or Nikon; give the unpacked folder of RealSR-V3, or use pairs")
    if scale not in (2, 3, 4):
        raise UserError(f"RealSR has pairs of scale 2, 3 and 4 and the scale is {scale}; set it to one of them")
    part = "Test" if split == "test" else "Train"
    return _Found([pair for camera in cameras for pair in _side_by_side(camera / part / str(scale))])


def _div2k(root: Path, split: Split, scale: int) -> _Found:
    part = "valid" if split == "test" else "train"  # the published test pictures have no references
    small, large = root / f"DIV2K_{part}_LR_bicubic" / f"X{scale}", root / f"DIV2K_{part}_HR"
    return _Found(_matched(small, large, key=lambda name: re.sub(rf"x{scale}$", "", name)))


def _side_by_side(folder: Path) -> list[Pair]:
    """Pairs NAME_HR and NAME_LR4 (or another number) of one folder."""
    sides: dict[bool, dict[str, Path]] = {True: {}, False: {}}
    for name, path in _pictures(folder).items():
        stem, _, ending = name.rpartition("_")
        if not stem or not re.fullmatch(r"HR|LR\d*", ending):
            raise UserError(f"{path} lies among pairs _HR and _LR4 and has another name; take it out of there")
        if stem in sides[ending == "HR"]:
            raise UserError(f"{path} and {sides[ending == 'HR'][stem]} are one picture of two scales; keep one of them")
        sides[ending == "HR"][stem] = path
    clean, degraded = sides[True], sides[False]
    alone = sorted(clean.keys() ^ degraded.keys())
    if alone:
        path = clean.get(alone[0]) or degraded[alone[0]]
        raise UserError(f"{path} has no partner in its folder ({len(alone)} without); add it or remove it")
    return [Pair(name, path, clean[name]) for name, path in degraded.items()]


def _paired_folders(root: Path, split: Split) -> _Found:
    has_splits = any((root / name).is_dir() for name in get_args(Split))
    own = (root / "valid").is_dir()
    if has_splits:
        base = root / ("train" if split == "valid" and not own else split)
    elif split == "test":
        base = root
    else:
        raise UserError(f"{root} has no folder train; it can serve as a test set only")
    for lq, gt in PAIR_FOLDERS:
        if (base / lq).is_dir() and (base / gt).is_dir():
            mask = base / "mask"
            return _Found(_matched(base / lq, base / gt, mask=mask if mask.is_dir() else None), own_validation=own)
    if base.is_dir() and {"HR", "LR"} <= {re.sub(r"\d*$", "", p.stem.rpartition("_")[2]) for p in base.iterdir()}:
        return _Found(_side_by_side(base), own_validation=own)
    if split == "test":  # without references, such as RealSet65
        folder = next((base / lq for lq, _ in PAIR_FOLDERS if (base / lq).is_dir()), base)
        found = _pictures(folder)
        deep = next((name for name in found if "/" in name), None)
        if deep is not None:  # clean ones may be among them
            raise UserError(
                f"{found[deep]} lies in folders that are no pairs of this layout; choose another one, as realsr, "
                "lol_v2 or div2k, or give the folder that holds the pictures themselves"
            )
        return _Found([Pair(name, path) for name, path in found.items()])
    known = ", ".join(f"{lq} and {gt}" for lq, gt in PAIR_FOLDERS)
    raise UserError(f"{base} holds no pairs; name its two folders {known}")


def _lists(root: Path, split: Split) -> _Found:
    own = (root / "valid_gt.flist").is_file()
    part = "train" if split == "valid" and not own else split
    gt = _list(root / f"{part}_gt.flist")
    listed = {}
    for kind in ("lq", "mask"):
        path = root / f"{part}_{kind}.flist"
        if path.is_file():
            listed[kind] = _list(path)
            if len(listed[kind]) != len(gt):
                raise UserError(f"{path} has {len(listed[kind])} lines and {part}_gt.flist {len(gt)}; make them equal")
    nothing = [None] * len(gt)
    rows = zip(gt, listed.get("lq", nothing), listed.get("mask", nothing), strict=True)
    pairs = [Pair(f"{i:05d}-{clean.stem}", lq, clean, mask) for i, (clean, lq, mask) in enumerate(rows)]
    return _Found(pairs, own_validation=own)


def _list(path: Path) -> list[Path]:
    if not path.is_file():
        raise UserError(f"there is no list {path}; it holds the path of a picture in every line")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text; write one path a line, in UTF-8") from None
    if not lines:
        raise UserError(f"{path} is empty; write the path of a picture in every line")
    found = [path.parent / line for line in lines]  # an absolute line stays as it is
    for file in found:
        if not file.is_file():
            raise UserError(f"{path} names {file}, which does not exist; mend the list")
    return found


def _clean(root: Path, split: Split) -> _Found:
    def all_in(folder: Path) -> list[Pair]:
        return [Pair(name, None, path) for name, path in _pictures(folder).items()]

    if all((root / name).is_dir() for name in DIV2K.values()):
        # its published test pictures have no references: the 100 of validation are the test set everywhere
        return _Found(all_in(root / DIV2K["valid" if split == "test" else "train"]))
    if (root / "train").is_dir():
        own = next((name for name in ("valid", "val") if (root / name).is_dir()), None)
        if split == "test" and not (root / "test").is_dir():
            raise UserError(
                f"{root} has no folder test; make one, or put all pictures into one folder, which is then split"
            )
        folder = {"train": "train", "valid": own or "train", "test": "test"}[split]
        return _Found(all_in(root / folder), own_validation=own is not None)
    return _Found(all_in(root), whole=True)


def _pictures(folder: Path) -> dict[str, Path]:
    """Name -> file of all pictures below `folder`; the name is the path in it without suffix.

    Raises:
        UserError: no such folder, none in it, or two of one name.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; check the layout of the data set")
    return by_name(folder, images.find(folder))


def _key(name: str) -> str:
    return re.sub(r"_(rain|clean|HR|LR\d*)$", "", name)


def _matched(lq: Path, gt: Path, mask: Path | None = None, key: Callable[[str], str] = _key) -> list[Pair]:
    """The pictures of two or three folders with the same names, but for what `key` takes off: endings such as _rain,
    _clean, _HR or _LR4."""
    sides = {folder: _keyed(folder, key) for folder in (lq, gt)}
    for one, other in ((lq, gt), (gt, lq)):
        missing = sorted(sides[one].keys() - sides[other].keys())
        if missing:
            raise UserError(
                f"{sides[one][missing[0]]} has no partner in {other} ({len(missing)} without); add it or remove it"
            )
    masks: dict[str, Path] = {}
    if mask is not None:
        masks = _keyed(mask, key)
        missing = sorted(sides[lq].keys() - masks.keys())
        if missing:
            raise UserError(f"{sides[lq][missing[0]]} has no mask in {mask} ({len(missing)} without); add it")
    return [Pair(name, path, sides[gt][name], masks.get(name)) for name, path in sides[lq].items()]


def _keyed(folder: Path, key: Callable[[str], str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name, path in _pictures(folder).items():
        if key(name) in found:
            raise UserError(f"{found[key(name)]} and {path} would have one partner; remove one of them")
        found[key(name)] = path
    return found


def _scene(name: str) -> str:
    """Pictures of one scene share it: 12-3 and 12-4 in ISTD."""
    return re.sub(r"^(\d+)-\d+$", r"\1", name)


def _parted(pairs: Sequence[Pair], share: float, seed: int, use: str, root: Path) -> tuple[list[Pair], list[Pair]]:
    """What stays, and the `share` of all scenes that is held out for `use`, at least one."""
    scenes = sorted({_scene(pair.name) for pair in pairs}, key=lambda scene: derive_seed(seed, use, scene))
    if len(scenes) < 2:
        raise UserError(f"{root} holds {len(scenes)} scene, of which none can be held out ({use}); add pictures")
    held = set(scenes[: max(1, math.floor(share * len(scenes)))])
    return [p for p in pairs if _scene(p.name) not in held], [p for p in pairs if _scene(p.name) in held]


def _warn_of_count(layout: str, part: str, count: int, root: Path) -> None:
    published = COUNTS[layout][0 if part == "train" else 1]
    if count != published:
        warnings.warn(
            f"{root} has {count} pairs to {part}, the published {layout} has {published}; "
            "scores do not compare with published ones",
            stacklevel=3,
        )
