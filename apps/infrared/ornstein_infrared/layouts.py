"""Where sets of infrared frames keep them: the published layouts, and folders of one's own. Nothing is downloaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ornstein.errors import UserError
from ornstein.finding import by_name
from ornstein.training.seeds import derive_seed
from ornstein_infrared import thermal

Layout = Literal["pairs", "flat", "roadscene", "m3fd", "tno", "fmb", "msrs", "llvip", "flir_adas"]
Split = Literal["train", "val", "test"]

FLAT: Mapping[str, tuple[str, ...]] = {
    "flat": ("infrared", "Infrared", "ir", "Ir", "IR", "HR", "."),
    "roadscene": ("infrared", "cropinfrared", "."),
    "m3fd": ("ir", "Ir", "M3FD_Fusion/Ir", "M3FD_Detection/Ir"),
    "tno": ("ir", "IR", "infrared", "."),
}
"""Sets without splits, and the folders that they may have, the first one that is there."""

SPLIT: Mapping[str, Mapping[Split, tuple[str, ...]]] = {
    "pairs": {"train": ("train/HR",), "val": ("val/HR", "valid/HR"), "test": ("test/HR", "HR")},
    "fmb": {"train": ("train/Infrared",), "val": (), "test": ("test/Infrared",)},
    "msrs": {"train": ("train/ir",), "val": (), "test": ("test/ir",)},
    "llvip": {"train": ("infrared/train",), "val": (), "test": ("infrared/test",)},
    "flir_adas": {
        "train": ("images_thermal_train/data", "train/thermal_8_bit"),
        "val": (),
        "test": ("images_thermal_val/data", "val/thermal_8_bit"),
    },
}
"""Sets with splits. Without a validation split a share of the training frames is held out; FLIR ADAS is tested on what
it calls val, as its tables are."""

SMALL = ("LR", "ir_{scale}X", "LR_x{scale}")
"""Folders of measured frames beside that of the large ones."""

HELD_OUT = 20 / 221
"""Share of a set without splits that validation and test get each: 20 of the 221 frames of RoadScene."""


@dataclass(frozen=True)
class Pair:
    """The files of one item."""

    name: str
    gt: Path
    lq: Path | None = None
    """The measured frame; None where it is made of the large one."""
    hot: Path | None = None
    """Where the hot objects of a simulated scene are."""


def find_pairs(
    root: Path, layout: Layout, split: Split, *, scale: int = 4, share: float = 0.1, seed: int = 0
) -> list[Pair]:
    """The items of a split, sorted by name.

    Frames are paired by name, never by order: `00950.png` with `00950x4.png` or `00950.png` in LR. Sets without splits
    are cut by sorted name, RoadScene into 181 for training, 20 for validation, 20 for testing.

    Args:
        root: folder of the set.
        layout: `pairs`: ROOT/{train,val,test}/HR and, perhaps, LR beside, or HR and LR alone as test set; `flat`: one
            folder of frames; or the name of a public set.
        split: train, val or test.
        scale: large sides over small ones, for the names of the measured frames.
        share: of the training frames that are held out for validation where a set has no such split.
        seed: of that choice.

    Raises:
        UserError: no such folder, no frames in it, a frame without its partner, or too few to hold any out.
    """
    root = Path(root)
    if layout not in get_args(Layout) or split not in get_args(Split):
        layouts, splits = ", ".join(get_args(Layout)), ", ".join(get_args(Split))
        raise UserError(f"layout is {layout!r} and split {split!r}; use one of {layouts}, and of {splits}")
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; name that of your data with --data.root")
    if not 0 < share < 0.5:
        raise UserError(f"the share held out for validation is {share}; it must lie between 0 and 0.5")
    if layout in FLAT:
        return _cut(_pairs(_folder(root, FLAT[layout], layout), scale), split, root)
    folders = SPLIT[layout]
    own = any((root / name).is_dir() for name in folders["val"])
    if split == "val" and own:
        return _pairs(_folder(root, folders["val"], layout), scale)
    if split == "test":
        return _pairs(_folder(root, folders["test"], layout), scale)
    pairs = _pairs(_folder(root, folders["train"], layout), scale)
    if own:
        return pairs
    held = _held_out(pairs, share, seed, root)
    return [pair for pair in pairs if (pair.name in held) == (split == "val")]


def _folder(root: Path, names: Sequence[str], layout: str) -> Path:
    for name in names:
        if (root / name).is_dir() and (name != "." or _has_frames(root)):
            return root / name
    looked = ", ".join(names)
    raise UserError(f"{root} has none of the folders of {layout} ({looked}); check the layout or move the frames there")


def _has_frames(folder: Path) -> bool:
    return any(path.suffix.lower() in thermal.READABLE for path in folder.iterdir())


def _pairs(folder: Path, scale: int) -> list[Pair]:
    large = by_name(folder, thermal.find(folder))
    hot = folder.parent / "hot"
    marks = by_name(hot, thermal.find(hot)) if hot.is_dir() else {}
    names = [name.format(scale=scale) for name in SMALL]
    beside = next((folder.parent / name for name in names if (folder.parent / name).is_dir()), None)
    if beside is None or beside == folder:
        return [Pair(name, path, hot=marks.get(name)) for name, path in large.items()]
    small: dict[str, Path] = {}
    for name, path in by_name(beside, thermal.find(beside)).items():
        stem = name.removesuffix(f"x{scale}") if name.removesuffix(f"x{scale}") in large else name
        if stem in small:
            raise UserError(f"{small[stem]} and {path} belong to one frame; remove one of them")
        small[stem] = path
    for one, other, where in ((large, small, beside), (small, large, folder)):
        missing = sorted(one.keys() - other.keys())
        if missing:
            raise UserError(
                f"{one[missing[0]]} has no partner in {where} ({len(missing)} without); add it or remove it; "
                f"the small frame of NAME is NAME or NAMEx{scale}"
            )
    return [Pair(name, path, small[name], marks.get(name)) for name, path in large.items()]


def _cut(pairs: list[Pair], split: Split, root: Path) -> list[Pair]:
    count = max(1, round(HELD_OUT * len(pairs)))
    if len(pairs) < 3:
        raise UserError(f"{root} has {len(pairs)} frames, too few to split; add frames, or use the layout pairs")
    ends = {"train": (0, -2 * count), "val": (-2 * count, -count), "test": (-count, None)}
    begin, end = ends[split]
    return pairs[begin:end]


def _held_out(pairs: Sequence[Pair], share: float, seed: int, root: Path) -> set[str]:
    if len(pairs) < 2:
        raise UserError(f"{root} has one frame, of which none can be held out for validation; add frames")
    ranked = sorted((pair.name for pair in pairs), key=lambda name: derive_seed(seed, "val", name))
    return set(ranked[: max(1, int(share * len(pairs)))])
