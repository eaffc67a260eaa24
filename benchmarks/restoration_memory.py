"""Memory, time and seams of `ornstein restoration restore` on pictures up to 12 megapixels.

A held-out photograph is darkened and enlarged to every size, then restored by the command in a process of its own. A
seam is measured where tiles end: the mean step of the result's brightness between neighbouring lines there, over that
between the lines two further on; 1 is no seam. Needs the set of `ornstein restoration prepare .data/photos`.

    python benchmarks/restoration_memory.py
    python benchmarks/restoration_memory.py --steps 5 --device cuda

Writes benchmarks/results/restoration_memory.json, a row at a time, and the table of docs/restoration.md.
"""

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import measured, run
from PIL import Image

from ornstein.errors import UserError
from ornstein.files import atomic_path
from ornstein.hardware import machine
from ornstein.pictures.restorer import TILE, WHOLE
from ornstein.report import write_json
from ornstein.tiles import Tiling
from ornstein_restoration.degradations import LowLight

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "restoration_memory.json"
PAGE = ROOT / "docs" / "restoration.md"
SIZES = ((1000, 750), (2000, 1500), (4000, 3000))
"""Width and height."""


def enlarged(photograph: Path, size: tuple[int, int], target: Path) -> None:
    """A dark picture of `size` (width, height), the same for every run."""
    whole = Image.open(photograph).convert("RGB").resize(size, Image.Resampling.LANCZOS)
    clean = torch.from_numpy(np.array(whole)).permute(2, 0, 1).float() / 255
    dark = LowLight()(clean, torch.Generator().manual_seed(0)).image
    Image.fromarray(dark.permute(1, 2, 0).mul(255).round().byte().numpy()).save(target)


def restore(source: Path, target: Path, options: argparse.Namespace) -> dict[str, float]:
    """Seconds and the largest resident memory in MiB of one process."""
    words = ["restoration", "restore", str(source), "-o", str(target), "--task", "low-light", "--quiet"]
    words += ["--steps", str(options.steps), "--device", options.device, "--batch", str(options.batch)]
    return measured(words, f"restoring {source}")


def seams(picture: Path, tiling: Tiling) -> float:
    """Steps of brightness at the ends of tiles over those beside them; 1 without tiles."""
    grey = np.array(Image.open(picture).convert("L"), dtype=np.float64)
    at, beside = [], []
    for axis, length in enumerate(grey.shape):
        steps = np.abs(np.diff(grey, axis=axis)).mean(axis=1 - axis)
        starts = tiling.starts(length)
        ends = {*starts[1:], *(start + tiling.size for start in starts[:-1])} if len(starts) > 1 else set()
        for line in ends:
            at.append(steps[line - 1])
            beside += [steps[line - 3], steps[line + 1]]
    return float(np.mean(at) / np.mean(beside)) if at else 1.0


def markdown(results: dict[str, Any]) -> str:
    """The table of docs/restoration.md."""
    lines = ["| picture | tiles | s | memory of the process (MiB) | seams |", "| --- " * 5 + "|"]
    for row in results["rows"]:
        size = f"{row['width']} x {row['height']}"
        lines.append(
            f"| {size} | {row['tiles']} | {row['seconds']:.0f} | {row['memory_mib']:.0f} | {row['seams']:.2f} |"
        )
    calls = f"steps: {results['steps']}, tiles at once: {results['batch']}"
    return "\n".join([*lines, "", f"low-light.safetensors, {calls}, on {results['machine']}."])


def write_table(results: dict[str, Any]) -> None:
    table = f"<!-- memory -->\n{markdown(results)}\n<!-- /memory -->"
    text = re.sub(r"<!-- memory -->.*<!-- /memory -->", lambda _: table, PAGE.read_text(), flags=re.DOTALL)
    with atomic_path(PAGE, overwrite=True) as temporary:
        temporary.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / ".data" / "photos")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1, help="tiles at once")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true", help="only make the table again from the last results")
    options = parser.parse_args()
    if options.table:
        write_table(json.loads(RESULT.read_text()))
        return
    photographs = sorted((options.data / "test").glob("*"))
    if not photographs:
        raise UserError(f"no photographs in {options.data}; make them with `ornstein restoration prepare .data/photos`")
    place = machine(torch.device(options.device))
    results: dict[str, Any] = {"steps": options.steps, "batch": options.batch, "machine": place, "rows": []}
    for width, height in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "dark.png", Path(folder) / "light.png"
            enlarged(photographs[0], (width, height), source)
            row: dict[str, Any] = {"width": width, "height": height} | restore(source, target, options)
            tiling = Tiling(TILE, TILE // 8) if max(width, height) > WHOLE else Tiling(max(width, height))
            row |= {"tiles": len(tiling.places(height, width)), "seams": seams(target, tiling)}
        results["rows"].append(row)
        print(row, flush=True)
        write_json(options.output, results, overwrite=True)
    if options.output == RESULT:
        write_table(results)


if __name__ == "__main__":
    run(main)
