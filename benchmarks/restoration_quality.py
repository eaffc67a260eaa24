"""Quality and speed of restoration checkpoints on held-out photographs: beside the input, beside the equally large
regression without diffusion, and over samplers and numbers of steps.

Needs the set of `ornstein restoration prepare .data/photos` (or --data). A checkpoint is scored on what its name begins
with: low-light, rain, shadow or upscale; a regression of the same beginning is its control. A row goes into the file of
results, benchmarks/results/restoration_quality.json, as soon as it is measured; rows that are there already, from the
same weights on the same machine, are left out, and every score is kept meanwhile, so the command can be stopped and
started again at will. The tables of apps/restoration/README.md are made from that file alone.

    python benchmarks/restoration_quality.py                               all shipped checkpoints
    python benchmarks/restoration_quality.py --checkpoints rain-mine.safetensors --steps 1 5 --samplers native unipc
    python benchmarks/restoration_quality.py --result gpu.json             into a file of its own
    python benchmarks/restoration_quality.py --merge gpu.json              take its rows in
    python benchmarks/restoration_quality.py --table                       only make the tables again
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import quality_rows
from command import run
from quality_rows import Row, add_options, by_steps, cell, close, difference, load, measured, place, taken

from ornstein.errors import UserError
from ornstein.pictures import lite0
from ornstein.pictures.evaluation import about_system
from ornstein.pictures.results import INPUT
from ornstein.pictures.systems import System
from ornstein.process.prediction import Prediction
from ornstein.report import write_json
from ornstein.samplers.base import Sampler
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.lml import DDIMBase
from ornstein.samplers.momentum import GHVB
from ornstein.samplers.unipc import UniPC
from ornstein.workers import pool
from ornstein_restoration.evaluate import DegradationName, held_out
from ornstein_restoration.restorer import Restorer
from ornstein_restoration.trial import PictureTrial

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "restoration_quality.json"
README = ROOT / "apps" / "restoration" / "README.md"
WEIGHTS = ROOT / "apps" / "restoration" / "ornstein_restoration" / "weights"

NAMES = {"psnr_rgb": "PSNR (dB)", "ssim_y": "SSIM Y", "haarpsi": "HaarPSI", "lite0": "Lite0 distance"}
STEPS = (1, 2, 3, 5, 10)
NATIVE = "native"
SAMPLERS: dict[str, Callable[[int], Sampler] | None] = {
    NATIVE: None,
    "ddim": lambda steps: DDIMBase(steps=steps),
    "dpm++2m": lambda steps: DPMSolverPP(steps=steps),
    "unipc": lambda steps: UniPC(steps=steps),
    "ghvb": lambda steps: GHVB(steps=steps),
}
"""By name; `native` is the stored one."""

TASKS: dict[str, DegradationName] = {
    "low-light": "low-light",
    "rain": "rain",
    "shadow": "shadow",
    "upscale": "real-esrgan",
}
"""What the name of a checkpoint begins with, and what it is scored on."""


def task_of(checkpoint: Path) -> str:
    """The task of a checkpoint by its name; raises UserError if it has none."""
    for task in TASKS:
        if checkpoint.stem.replace("_", "-").startswith(task):
            return task
    raise UserError(
        f"{checkpoint.name} begins with none of {', '.join(TASKS)}; rename it, which says what to score it on"
    )


def wanted(restorer: Restorer, options: argparse.Namespace) -> Iterator[tuple[str, int | None, Restorer]]:
    """Name of the sampler, steps (None: as stored) and the restorer of every row of a checkpoint."""
    yield "stored", None, restorer
    process = restorer.model.denoiser.process
    if isinstance(process, Prediction):
        return
    levels = getattr(process, "levels", None)
    for name in options.samplers:
        for steps in options.steps:
            if levels is not None and steps > levels:
                continue
            make = SAMPLERS[name]
            try:
                yield name, steps, restorer.having(steps=steps, sampler=None if make is None else make(steps))
            except UserError as error:
                print(f"left out: {name}, {steps} steps: {error}", file=sys.stderr)


def measure(checkpoint: Path, options: argparse.Namespace, there: set[tuple[Any, ...]]) -> Iterator[Row]:
    """The rows of a checkpoint that are not in `there`, each as soon as it is measured, before them that of the input.

    The checkpoint is loaded, and compiled, once, and the processes that score are started once.
    """
    task = task_of(checkpoint)
    restorer = Restorer(checkpoint, device=options.device, precision=options.precision, compile=options.compile)
    where = place(restorer, options.compile)
    pictures = held_out(options.data, "clean", TASKS[task], restorer.scale, None, options.pictures)
    groups: list[tuple[Row, Restorer | None]] = [
        ({"system": INPUT, "sampler": None, "asked": None, "sha256": None}, None)
    ]
    for sampler, steps, own in wanted(restorer, options):
        about = about_system(System(checkpoint), own)
        regression = isinstance(own.model.denoiser.process, Prediction)
        groups.append(
            (about | {"system": checkpoint.stem, "sampler": sampler, "asked": steps, "control": regression}, own)
        )
    with pool(options.workers) as executor:
        for about, one in groups:
            row: Row = {"task": task, "scale": restorer.scale, "machine": where if one else None} | about
            if key(row) in there and not options.again:
                continue
            settings = {"row": row, "pictures": [pair.name for pair in pictures.pairs], "place": where}
            title = f"{row['system']}, {row['sampler']}, {row['asked']} steps"
            trial, total = PictureTrial(pictures), len(pictures)
            yield from measured(row, one, trial, settings, total, [0], list(NAMES), executor, options, title)


def key(row: Row) -> tuple[Any, ...]:
    """What makes two rows the same."""
    return tuple(row[name] for name in ("task", "scale", "system", "sha256", "sampler", "asked", "machine"))


def merged(results: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """`results` with `rows`, which replace those of the same key."""
    return quality_rows.merged(results, rows, key, lambda row: (row["task"], row["sha256"] is not None, row["system"]))


# -- tables ------------------------------------------------------------------------------------------------------------


def markdown(results: dict[str, Any]) -> str:
    """The tables of the README: every checkpoint beside the input and its control, then quality over steps."""
    rows: list[Row] = results["rows"]
    lines = ["| task | | calls | " + " | ".join(NAMES.values()) + " | above the control, PSNR | s |"]
    lines += ["| --- " * (5 + len(NAMES)) + "|"]
    for row in (row for row in rows if row["sampler"] in (None, "stored")):
        title = row["system"] + (" (regression)" if row.get("control") else "")
        cells = [row["task"], title, str(row.get("nfe") or "-"), *(cell(row, metric) for metric in NAMES)]
        cells += [_above_control(row, rows), f"{row['seconds']:.3g}" if row["seconds"] else "-"]
        lines.append("| " + " | ".join(cells) + " |")
    for checkpoint in dict.fromkeys((row["task"], row["system"]) for row in rows if row["asked"]):
        own = [row for row in rows if (row["task"], row["system"]) == checkpoint and row["asked"]]
        lines += ["", f"PSNR (dB) of {checkpoint[1]} by steps:", ""]
        lines += by_steps(own, lambda row: cell(row, "psnr_rgb"))
    places = dict.fromkeys(row["machine"] for row in rows if row["machine"])
    lines += ["", f"{results['data']}; mean ± 95 % interval over pictures; in brackets the 95 % interval of the "]
    lines[-1] += f"difference picture by picture. s: seconds a picture; scored on {'; '.join(places)}."
    return "\n".join(lines)


def _above_control(row: Row, rows: Sequence[Row]) -> str:
    """PSNR above that of the regression of the same task over the same pictures."""
    controls = [other for other in rows if other.get("control") and key(other)[:2] == key(row)[:2]]
    if not controls or row.get("control") or row["sampler"] is None:
        return "-"
    return str(difference(row, controls[0], "psnr_rgb"))


def write_table(results: dict[str, Any], readme: Path = README) -> None:
    """Put the tables between the markers of the README."""
    quality_rows.write_table(markdown(results), readme)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / ".data" / "photos")
    parser.add_argument("--pictures", type=int, default=16, help="how many of the test pictures")
    shipped = sorted(WEIGHTS.glob("*.safetensors"))
    parser.add_argument("--checkpoints", type=Path, nargs="+", default=shipped, help="default: all shipped ones")
    parser.add_argument("--samplers", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS))
    parser.add_argument("--steps", type=int, nargs="*", default=list(STEPS), help="besides those stored")
    add_options(parser, "restoration_quality", "restore")
    options = parser.parse_args()
    about = {"version": 1, "data": f"{options.data.name}, test split, {options.pictures} pictures, seed 0"}
    results = load(options.result, about)
    if options.table or options.merge:
        for path in options.merge:
            results = merged(results, taken(path, about, options.without_speed))
    else:
        if not options.checkpoints:
            raise UserError("there are no shipped weights yet; train some and name them with --checkpoints")
        if not lite0.available():
            raise UserError(f"the Lite0 distance needs {lite0.NEEDS}")
        if not options.data.is_dir():
            raise UserError(
                f"there is no folder {options.data}; make it with `ornstein restoration prepare .data/photos`"
            )
        for checkpoint in options.checkpoints:
            for row in measure(checkpoint, options, {key(row) for row in results["rows"]}):
                results = merged(results, [row])
                write_json(options.result, results, overwrite=True)
                psnr = row["metrics"]["psnr_rgb"]["mean"]
                steps = f", {row['sampler']}, {row['steps']} steps" if row["sampler"] else ""
                print(f"{row['task']}, {row['system']}{steps}: PSNR {psnr:.2f}, {row['seconds']:.3g} s", flush=True)
    close(results, options.result, README if options.result == RESULT else None, markdown)


if __name__ == "__main__":
    run(main)
