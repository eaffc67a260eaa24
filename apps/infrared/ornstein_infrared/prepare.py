"""A set in one compact folder, its frames cut into training, validation and test as recipes cut them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ornstein.errors import UserError
from ornstein.files import require_apart
from ornstein.manifest import announce, checksum, close_folder, open_folder
from ornstein.workers import bar
from ornstein_infrared.layouts import Layout, Split, find_pairs

if TYPE_CHECKING:
    from ornstein_infrared.layouts import Pair

SET = "infrared frames"


def prepare(
    source: Path,
    target: Path,
    *,
    layout: Layout = "roadscene",
    splits: list[Split] = ["train", "val", "test"],  # noqa: B006  # read only, and shown by the help
    scale: int = 4,
    held_out: float = 0.1,
    seed: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Copy the frames of a set without loss, three equal channels as one, into TARGET/{train,val,test}/HR and LR.

    Levels and counts become PNG, everything else TIFF; LR/NAMEx4 are the measured frames of a set that has them. The
    result has the layout pairs and can travel to another machine. A stopped run goes on; a finished one is left as it
    is.

    Args:
        source: folder of the set.
        target: new folder, or one that this command made.
        layout: of the source: pairs, flat, roadscene, m3fd, tno, fmb, msrs, llvip or flir_adas.
        splits: which parts to copy.
        scale: large sides over small ones, for the names of the measured frames.
        held_out: share of the training frames that become validation where a set has no such split.
        seed: of that choice.
        overwrite: replace a set with other options.
        quiet: show no progress.

    Returns:
        What was copied, as in TARGET/manifest.json.

    Raises:
        UserError: a source that is not of the layout, or a target inside it or with other files.
    """
    if not splits:
        raise UserError("--splits names nothing to copy; write for example --splits train val test")
    require_apart(source, target)
    parts = {
        split: find_pairs(source, layout, split, scale=scale, share=held_out, seed=seed)
        for split in dict.fromkeys(splits)
    }
    settings = {"set": SET, "format": 1, "layout": layout, "scale": scale, "seed": seed, "held_out": held_out}
    settings |= {"frames": {split: [pair.name for pair in pairs] for split, pairs in parts.items()}}
    target = Path(target)
    found = open_folder(target, settings, list(parts), overwrite)
    if found is not None:
        print(target)
        return found
    files: dict[str, Any] = {}
    with bar(sum(len(pairs) for pairs in parts.values()), quiet, "frame") as advance:
        for split, pairs in parts.items():
            for pair in pairs:
                for name in _copy(pair, target, split, scale):
                    files[name] = {"sha256": checksum(target / name)}
                advance()
    counts = {split: len(pairs) for split, pairs in parts.items()}
    manifest = close_folder(target, {**settings, "counts": counts, "files": files})
    print(target)
    return manifest


def _copy(pair: "Pair", target: Path, split: str, scale: int) -> list[str]:
    """Write the files of a pair, if they are not there already; return their names."""
    from ornstein_infrared import thermal

    places = {"HR": (pair.gt, pair.name), "LR": (pair.lq, f"{pair.name}x{scale}"), "hot": (pair.hot, pair.name)}
    names = []
    for folder, (path, stem) in places.items():
        if path is None:
            continue
        frame = thermal.read(path, counts=True, dead=False)
        name = f"{split}/{folder}/{stem}{'.png' if frame.dtype in ('uint8', 'uint16') else '.tif'}"
        if not (target / name).exists():
            announce(target, [name])
            thermal.write(target / name, frame.values, frame, overwrite=True)
        names.append(name)
    return names
