"""A folder of simulated scenes in the layout that `ornstein_infrared.layouts` reads."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ornstein.errors import UserError
from ornstein.manifest import announce, checksum, close_folder, open_folder
from ornstein.training.seeds import derive_seed
from ornstein.workers import bar

if TYPE_CHECKING:
    from ornstein_infrared.simulator import Simulator

SET = "infrared-simulation"
GAIN = 0.01
"""Kelvin of one count of the files with 16 bits."""


def simulate(
    target: Path,
    scenes: int = 40,
    height: int = 512,
    width: int = 640,
    scale: int = 4,
    depth: Literal[8, 16] = 8,
    seed: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Make scenes with known temperatures and hot objects, a tenth of them for validation and a tenth for testing.

    TARGET/{train,val,test}/HR/NAME.png and LR/NAMEx4.png, shrunk by Pillow's bicubic filter, and hot/NAME.png, where
    the hot objects are. A stopped run goes on; a finished one is left as it is.

    Args:
        target: new folder, or one that this command made.
        scenes: how many, at least 3.
        height: of a scene, a multiple of the scale.
        width: of a scene, a multiple of the scale.
        scale: how many times smaller the measured frames are.
        depth: 8, pictures as cameras show them; 16, TIFF in counts of 0.01 K.
        seed: of all draws.
        overwrite: replace a set with other options.
        quiet: show no progress.

    Returns:
        What was made, as in TARGET/manifest.json.

    Raises:
        UserError: options that do not go together, or a folder with other files.
    """
    if scenes < 3:
        raise UserError(f"{scenes} scenes cannot be split into training, validation and test; make at least 3")
    if scale < 1 or height % scale or width % scale or min(height, width) < 8 * scale:
        raise UserError(f"{width} x {height} pixels do not go with scale {scale}; take multiples, at least 8 times it")
    if depth not in (8, 16):
        raise UserError(f"{depth} bits cannot be written; choose 8 or 16")
    from ornstein_infrared.simulator import Simulator

    draw = Simulator(height, width)
    settings = {"set": SET, "format": 2, "scenes": scenes, "height": height, "width": width}
    settings |= {"scale": scale, "depth": depth, "seed": seed}
    splits = _splits(scenes)
    target = Path(target)
    found = open_folder(target, settings, sorted(set(splits)), overwrite)
    if found is not None:
        return found
    files: dict[str, Any] = {}
    with bar(scenes, quiet, "scene") as advance:
        for index, split in enumerate(splits):
            names = _names(f"{split}/", f"scene{index:05d}", scale, depth)
            _make(target, names, draw, derive_seed(seed, "scene", index), scale, depth)
            files |= {name: {"sha256": checksum(target / name)} for name in names}
            advance()
    counts = {split: splits.count(split) for split in ("train", "val", "test")}
    return close_folder(target, settings | {"counts": counts, "files": files})


def _splits(scenes: int) -> list[str]:
    held = max(1, scenes // 10)
    return ["train"] * (scenes - 2 * held) + ["val"] * held + ["test"] * held


def _names(split: str, name: str, scale: int, depth: int) -> list[str]:
    """Large frame, small frame and hot objects."""
    suffix = ".png" if depth == 8 else ".tif"
    return [f"{split}HR/{name}{suffix}", f"{split}LR/{name}x{scale}{suffix}", f"{split}hot/{name}.png"]


def _make(target: Path, names: list[str], draw: "Simulator", seed: int, scale: int, depth: int) -> None:
    """Write the files of one scene, if they are not there already."""
    import numpy as np
    import torch

    from ornstein_infrared import thermal
    from ornstein_infrared.degradations.bicubic import shrink

    paths = [target / name for name in names]
    if all(path.exists() for path in paths):
        return
    announce(target, names)
    scene = draw(torch.Generator().manual_seed(seed))
    levels = thermal.Frame(np.zeros((1, 1), np.float32), np.dtype(np.uint8), thermal.Scale(unit="levels"))
    if depth == 8:
        like = levels
        large = np.rint(255 * scene.picture()[0].numpy()).astype(np.uint8)
        frames = [large, shrink(large, scale)]
    else:
        like = thermal.Frame(levels.values, np.dtype(np.uint16), thermal.Scale(GAIN, -273.15, "degC"))
        counts = scene.counts(GAIN).numpy()
        frames = [GAIN * np.rint(shrink(counts, size)) - 273.15 for size in (1, scale)]
    for path, frame in zip(paths[:2], frames, strict=True):
        thermal.write(path, frame, like, overwrite=True)
    thermal.write(paths[2], 255 * scene.hot.numpy().astype(np.uint8), levels, overwrite=True)
