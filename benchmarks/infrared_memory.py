"""Memory, time and seams of `ornstein infrared upscale` on frames up to 12 megapixels, which become 192.

A smooth scene of 16-bit counts is enlarged by the command in a process of its own. A seam is measured where tiles end:
the mean step of the result between neighbouring lines there, over that between the lines two further on; 1 is no seam.

    python benchmarks/infrared_memory.py                                a tiny network with random weights
    python benchmarks/infrared_memory.py --checkpoint mine.safetensors --device cuda
    python benchmarks/infrared_memory.py --table                        only make the table again

Writes benchmarks/results/infrared_memory.json, a row at a time, and the table of docs/infrared.md.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from command import measured, run
from timing import write_table

from ornstein import checkpoint
from ornstein.errors import UserError
from ornstein.hardware import machine
from ornstein.networks.unet import UNet
from ornstein.parameterization import Residual
from ornstein.pictures.restorer import TILE
from ornstein.process.residual_shift import ResidualShift
from ornstein.report import write_json
from ornstein.samplers.ancestral import Ancestral
from ornstein.tiles import Tiling
from ornstein.uncertainty import UncertaintyGuided
from ornstein.wrapped_parameterizations import HiddenObservation
from ornstein_infrared.representation import ThermalSpace

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "infrared_memory.json"
PAGE = ROOT / "docs" / "infrared.md"
SIZES = ((320, 240), (1024, 768), (4000, 3000))
"""Width and height."""
SCALE = 4


def scene(height: int, width: int) -> np.ndarray:
    """Counts (H, W) without an edge, in which a seam is seen."""
    rows, columns = np.arange(height)[:, None], np.arange(width)
    waves = np.sin(rows / 40) * np.cos(columns / 50) + np.sin((rows + 2 * columns) / 90)
    return (7000 + 200 * waves + 0.05 * rows).round().astype(np.uint16)


def tiny(path: Path) -> Path:
    """A network of one call on pixels, with random weights."""
    torch.manual_seed(0)
    process = ResidualShift(steps=4, noise_scale=0.01)
    denoiser = UncertaintyGuided(
        UNet(channels=1, width=8, levels=1), process, HiddenObservation(Residual()), None, SCALE, 1
    )
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.copy_(0.05 * torch.randn_like(parameter))
    space, sampler = ThermalSpace(scale=SCALE, multiple=4), Ancestral(steps=1, eta=0.0)
    checkpoint.save(path, denoiser, app="infrared", representation=space, sampler=sampler)
    return path


def upscale(source: Path, target: Path, weights: Path, device: str) -> dict[str, float]:
    """Seconds and the largest resident memory in MiB of one process."""
    words = ["infrared", "upscale", str(source), "-o", str(target), "--checkpoint", str(weights), "--quiet"]
    words += ["--device", device, "--tile", str(TILE // SCALE)]
    return measured(words, f"enlarging {source}")


def seams(path: Path, tiling: Tiling) -> float:
    """Steps at the ends of tiles over those beside them."""
    result = tifffile.imread(path)
    at, beside = [], []
    for axis, length in enumerate(result.shape):
        starts = tiling.starts(length)
        for line in {*starts[1:], *(start + tiling.size for start in starts[:-1])}:
            for one, kept in ((line - 1, at), (line - 3, beside), (line + 1, beside)):
                lines = np.take(result, (one, one + 1), axis).astype(np.float64)
                kept.append(np.abs(np.diff(lines, axis=axis)).mean())
    return float(np.mean(at) / np.mean(beside))


def markdown(results: dict[str, Any]) -> str:
    """The table of docs/infrared.md."""
    lines = ["| frame | result | tiles | s | memory of the process (MiB) | seams |", "| --- " * 6 + "|"]
    for row in results["rows"]:
        width, height = row["width"], row["height"]
        lines.append(
            f"| {width} x {height} | {SCALE * width} x {SCALE * height} | {row['tiles']} | {row['seconds']:.0f} | "
            f"{row['memory_mib']:.0f} | {row['seams']:.2f} |"
        )
    return "\n".join([*lines, "", f"{results['weights']}, on {results['machine']}.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true", help="only make the table again from the last results")
    options = parser.parse_args()
    if options.table:
        if not RESULT.exists():
            raise UserError(f"there is no {RESULT.name} yet; run this without --table")
        write_table("memory", markdown(json.loads(RESULT.read_text())), PAGE)
        return
    name = "A tiny network with random weights, 1 step" if options.checkpoint is None else options.checkpoint.name
    place = machine(torch.device(options.device))
    results: dict[str, Any] = {"weights": name, "machine": place, "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        weights = options.checkpoint or tiny(Path(folder) / "tiny.safetensors")
        for width, height in SIZES:
            source, target = Path(folder) / "small.tif", Path(folder) / f"large{width}.tif"
            tifffile.imwrite(source, scene(height, width))
            row: dict[str, Any] = {"width": width, "height": height} | upscale(source, target, weights, options.device)
            inside = Tiling(TILE // SCALE, TILE // SCALE // 8)
            row |= {"tiles": len(inside.places(height, width)), "seams": seams(target, Tiling(TILE, TILE // 8))}
            results["rows"].append(row)
            print(row, flush=True)
            write_json(options.output, results, overwrite=True)
    if options.output == RESULT:
        write_table("memory", markdown(results), PAGE)


if __name__ == "__main__":
    run(main)
