"""Quality and speed of infrared checkpoints on frames that they were not trained on: RoadScene's 20 of its test split
and the 10 public pairs of M3FD; beside the bicubic enlargement, beside the equally large regression, with and without
guidance at sampling, and over samplers and numbers of steps.

Needs the folder of RoadScene, and that of the pairs (HR and LR), as they are or after `ornstein infrared prepare`. A
row goes into the file of results, benchmarks/results/infrared_quality.json, as soon as it is measured; rows that are
there already, from the same weights on the same machine, are left out, and every score is kept meanwhile, so the
command can be stopped and started again at will. The tables of apps/infrared/README.md are made from that file alone. A
frame's score is its mean over the seeds, and intervals are over frames; guidance is by the measured frame alone.

    python benchmarks/infrared_quality.py                                  all shipped checkpoints
    python benchmarks/infrared_quality.py --checkpoints a.safetensors regression.safetensors --steps 1 15
    python benchmarks/infrared_quality.py --guidance spectrum --strengths 0.003 0.01 0.03
    python benchmarks/infrared_quality.py --result gpu.json                into a file of its own
    python benchmarks/infrared_quality.py --merge gpu.json                 take its rows in
    python benchmarks/infrared_quality.py --table                          only make the tables again
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import quality_rows
from command import run
from quality_rows import Row, add_options, by_steps, cell, close, difference, load, mean, measured, place, taken

from ornstein.errors import UserError
from ornstein.pictures import lite0
from ornstein.pictures.evaluation import about_system
from ornstein.pictures.results import INPUT
from ornstein.pictures.systems import System
from ornstein.report import write_json
from ornstein.samplers.ancestral import Ancestral
from ornstein.samplers.base import Sampler
from ornstein.samplers.dpm_multistep import DPMSolverPP
from ornstein.samplers.evodiff import EVODiff
from ornstein.samplers.lml import LML
from ornstein.samplers.momentum import GHVB
from ornstein.samplers.ode_solvers import Heun
from ornstein.samplers.unipc import UniPC
from ornstein.spread import spread
from ornstein.workers import pool
from ornstein_infrared.guidance import STRENGTH, GuidanceName
from ornstein_infrared.layouts import Layout, find_pairs
from ornstein_infrared.trial import FrameTrial
from ornstein_infrared.upscaler import WEIGHTS, Infrared

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "infrared_quality.json"
README = ROOT / "apps" / "infrared" / "README.md"

NAMES = {
    "psnr_gray": "PSNR (dB)",
    "psnr_y": "PSNR Y",
    "ssim_gray": "SSIM",
    "ssim_y": "SSIM Y",
    "spectrum": "spectrum",
    "spectrum_log": "spectrum (log)",
    "slope_error": "slope",
    "lite0": "Lite0 distance",
}
STEPS = (1, 4, 15)
SEEDS = (0, 1, 2)
SAMPLERS: dict[str, Callable[[int], Sampler]] = {
    "sde": lambda steps: Ancestral(steps=steps, eta=1.0),
    "ode": lambda steps: Ancestral(steps=steps, eta=0.0),
    "dpm++2m": lambda steps: DPMSolverPP(steps=steps),
    "unipc": lambda steps: UniPC(steps=steps),
    "heun": lambda steps: Heun(steps=steps),
    "ghvb": lambda steps: GHVB(steps=steps),
    "evodiff": lambda steps: EVODiff(steps=steps),
    "lml": lambda steps: LML(steps=steps),
}


def sets(options: argparse.Namespace) -> Iterator[tuple[str, FrameTrial]]:
    """The frames to score on, by name; a folder that is missing is left out with a word."""
    folders: tuple[tuple[str, Path, Layout], ...] = (
        ("RoadScene", options.roadscene, "pairs" if (options.roadscene / "test").is_dir() else "roadscene"),
        ("M3FD", options.m3fd, "pairs"),
    )
    for name, folder, layout in folders:
        if not folder.is_dir():
            print(f"left out: {name}, there is no folder {folder}", file=sys.stderr)
            continue
        yield name, FrameTrial(spread(find_pairs(folder, layout, "test"), options.frames))


def wanted(
    checkpoint: Path, options: argparse.Namespace, load: Callable[..., Infrared]
) -> Iterator[tuple[dict[str, Any], Infrared]]:
    """What tells a row of a checkpoint from the others, and its restorer."""
    plain = load(checkpoint)
    about = {"sampler": "stored", "asked": None, "guidance": "off", "strength": None}
    yield about, plain
    if plain.is_regression:
        return
    levels = getattr(plain.model.denoiser.process, "levels", None)
    for name in options.samplers:
        for steps in options.steps:
            if levels is None or steps <= levels:
                try:
                    yield about | {"sampler": name, "asked": steps}, plain.having(sampler=SAMPLERS[name](steps))
                except UserError as error:
                    print(f"left out: {name}, {steps} steps: {error}", file=sys.stderr)
    for guidance in options.guidance:
        for strength in options.strengths:
            try:
                features = None if guidance == "spectrum" else options.features
                guided = load(checkpoint, guidance=guidance, guidance_scale=strength, features=features)
            except UserError as error:
                print(f"left out: guidance by {guidance}: {error}", file=sys.stderr)
                break
            yield about | {"guidance": guidance, "strength": strength}, guided


def measure(checkpoint: Path, options: argparse.Namespace, there: set[tuple[Any, ...]]) -> Iterator[Row]:
    """The rows of a checkpoint that are not in `there`, each as soon as it is measured, before them those of the
    enlargement."""

    def loaded(path: Path, **how: Any) -> Infrared:
        compile = options.compile and not how
        return Infrared(path, device=options.device, precision=options.precision, compile=compile, **how)

    nothing = {"system": INPUT, "sha256": None, "sampler": None, "asked": None, "guidance": None, "strength": None}
    with pool(options.workers) as executor:
        for data, frames in sets(options):
            yield from _row(nothing | {"data": data, "machine": None}, None, frames, executor, options, there)
        for about, restorer in wanted(checkpoint, options, loaded):
            where = place(restorer, options.compile and about["guidance"] == "off")
            row = about_system(System(checkpoint), restorer) | {"system": checkpoint.stem, "machine": where} | about
            row["control"] = restorer.is_regression
            for data, frames in sets(options):
                yield from _row(row | {"data": data}, restorer, frames, executor, options, there)


def _row(
    row: Row,
    restorer: Infrared | None,
    frames: FrameTrial,
    executor: Any,
    options: argparse.Namespace,
    there: set[tuple[Any, ...]],
) -> Iterator[Row]:
    """One row of one set, unless it is there or cannot be measured."""
    if key(row) in there and not options.again:
        return
    name = row["system"]
    settings = {"row": row, "frames": [pair.name for pair in frames.pairs], "seeds": list(SEEDS)}
    seeds = SEEDS if row["sampler"] and not row.get("control") else SEEDS[:1]
    title = f"{row['data']}, {name}, {row['sampler']}, {row['asked']} steps, {row['guidance']}"
    total = len(frames.pairs)
    yield from measured(row, restorer, frames, settings, total, seeds, list(NAMES), executor, options, title)


def key(row: Row) -> tuple[Any, ...]:
    """What makes two rows the same."""
    names = ("data", "system", "sha256", "sampler", "asked", "guidance", "strength", "machine")
    return tuple(row[name] for name in names)


def merged(results: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """`results` with `rows`, which replace those of the same key."""
    return quality_rows.merged(results, rows, key, lambda row: (row["data"] != "RoadScene", row["sha256"] is not None))


# -- tables ------------------------------------------------------------------------------------------------------------


def markdown(results: dict[str, Any]) -> str:
    """The tables of the README: by set the enlargement, the controls, every checkpoint as stored and guided; then
    quality over steps."""
    rows: list[Row] = results["rows"]
    lines: list[str] = []
    shown = {name: text for name, text in NAMES.items() if any(name in row["metrics"] for row in rows)}
    compared = [name for name in ("psnr_gray", "spectrum") if name in shown]
    for data in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == data]
        heads = [data, "calls", *shown.values(), *(f"{shown[name]} above bicubic" for name in compared), "s"]
        lines += ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
        for row in (row for row in own if row["sampler"] in (None, "stored")):
            cells = [_title(row), str(row.get("nfe") or "-"), *(_cell(row, metric) for metric in shown)]
            cells += [_above(row, own, metric) for metric in compared]
            lines.append("| " + " | ".join([*cells, f"{row['seconds']:.3g}" if row["seconds"] else "-"]) + " |")
        lines.append("")
        lines += _guided(own, compared)
        lines += _by_steps(data, own)
    places = dict.fromkeys(row["machine"] for row in rows if row["machine"])
    lines.append(
        f"{results['about']}; mean ± 95 % interval over frames; in brackets the 95 % interval of the difference frame "
        f"by frame. Spectrum: distance of amplitudes, less is better. s: seconds a frame on {'; '.join(places)}."
    )
    return "\n".join(lines)


def _title(row: Row) -> str:
    if row["sampler"] is None:
        return "bicubic"
    if row["guidance"] == "off":
        return row["system"] + (" (regression)" if row.get("control") else "")
    return f"{row['system']}, {row['guidance']} {row['strength']:g}"


def _guided(rows: Sequence[Row], compared: Sequence[str]) -> list[str]:
    """What guidance changes, frame by frame."""
    guided = [row for row in rows if row["guidance"] not in (None, "off")]
    if not guided:
        return []
    lines = ["Guided less unguided, frame by frame:", ""]
    lines += ["| | " + " | ".join(NAMES[name] for name in compared) + " |", "| --- " * (1 + len(compared)) + "|"]
    for row in guided:
        plain = [
            other
            for other in rows
            if (other["sha256"], other["sampler"], other["guidance"]) == (row["sha256"], "stored", "off")
        ]
        if plain:
            differences = [str(difference(row, plain[0], metric)) for metric in compared]
            lines.append("| " + " | ".join([_title(row), *differences]) + " |")
    return [*lines, ""]


def _by_steps(data: str, rows: Sequence[Row]) -> list[str]:
    lines: list[str] = []
    for system in dict.fromkeys(row["system"] for row in rows if row["asked"]):
        own = [row for row in rows if row["system"] == system and row["asked"]]
        lines += [f"PSNR (dB) / spectrum of {system} on {data} by steps:", "", *by_steps(own, _both), ""]
    return lines


def _both(row: Row) -> str:
    return f"{mean(row, 'psnr_gray'):.2f} / {mean(row, 'spectrum'):.3g}"


def _cell(row: Row, metric: str) -> str:
    return cell(row, metric) if metric in row["metrics"] else "n/a"


def _above(row: Row, rows: Sequence[Row], metric: str) -> str:
    starts = [other for other in rows if other["sampler"] is None]
    return str(difference(row, starts[0], metric)) if starts and row["sampler"] is not None else "-"


def write_table(results: dict[str, Any], readme: Path = README) -> None:
    """Put the tables between the markers of the README."""
    quality_rows.write_table(markdown(results), readme)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--roadscene", type=Path, default=ROOT / ".data" / "roadscene")
    parser.add_argument("--m3fd", type=Path, default=ROOT / ".data" / "m3fd10", help="folder with HR and LR")
    parser.add_argument("--frames", type=int, default=1000, help="so many of each set only")
    shipped = [path for path in sorted(WEIGHTS.glob("*.safetensors")) if not path.stem.startswith(("features", "vq"))]
    parser.add_argument("--checkpoints", type=Path, nargs="+", default=shipped, help="default: all shipped ones")
    parser.add_argument("--samplers", nargs="*", choices=list(SAMPLERS), default=list(SAMPLERS))
    parser.add_argument("--steps", type=int, nargs="*", default=list(STEPS), help="besides those stored")
    modes = [name for name in get_args(GuidanceName) if name != "off"]
    parser.add_argument("--guidance", nargs="*", choices=modes, default=modes)
    parser.add_argument("--strengths", type=float, nargs="+", default=[STRENGTH], help="of guidance")
    parser.add_argument("--features", default=None, help="see upscale")
    add_options(parser, "infrared_quality", "upscale")
    options = parser.parse_args()
    few = "" if options.frames >= 1000 else f" ({options.frames} of each)"
    about = {"version": 1, "about": f"Frames of RoadScene's test split and pairs of M3FD{few}, seeds 0, 1 and 2"}
    results = load(options.result, about)
    if options.table or options.merge:
        for path in options.merge:
            results = merged(results, taken(path, about, options.without_speed))
    else:
        if not options.checkpoints:
            raise UserError("there are no shipped weights yet; train some and name them with --checkpoints")
        lite0.say_if_missing()
        for checkpoint in options.checkpoints:
            for row in measure(checkpoint, options, {key(row) for row in results["rows"]}):
                results = merged(results, [row])
                write_json(options.result, results, overwrite=True)
                found = f"PSNR {mean(row, 'psnr_gray'):.2f}, spectrum {mean(row, 'spectrum'):.3g}"
                how = f", {row['sampler']}, {row['steps']} steps" if row["sampler"] else ""
                print(f"{row['data']}, {_title(row)}{how}: {found}, {row['seconds']:.3g} s", flush=True)
    close(results, options.result, README if options.result == RESULT else None, markdown)


if __name__ == "__main__":
    run(main)
