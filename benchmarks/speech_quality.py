"""Quality and speed of speech checkpoints on held-out real mixes, over samplers and numbers of steps.

Needs the set of `ornstein speech prepare .data/prompts-16k --minutes 15 --noise_minutes 7` (or --data). A row
goes into benchmarks/results/speech_quality.json as soon as it is measured; rows that are there already, from the
same weights on the same machine, are left out, and every score is kept meanwhile, so the command can be stopped and
started again at will. The tables of apps/speech/README.md are made from that file alone.

    python benchmarks/speech_quality.py                                  a few rows on a CPU, all of them on a GPU
    python benchmarks/speech_quality.py --steps 1 3 5 --samplers ode 2m  other rows
    python benchmarks/speech_quality.py --rows shipped:2m:5:karras       exactly these
    python benchmarks/speech_quality.py --result gpu.json                into a file of its own, and on another machine
    python benchmarks/speech_quality.py --merge gpu.json                 take its rows in
"""

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import quality_rows
import torch
from command import run
from quality_rows import Row, close, difference, load

from ornstein.errors import UserError
from ornstein.hardware import machine
from ornstein.journal import Journal
from ornstein.report import write_json
from ornstein.workers import pool
from ornstein_speech.enhance import SHIPPED, Enhancer, PrecisionName
from ornstein_speech.evaluate import about_system, classical, held_out
from ornstein_speech.metrics import PAIRED
from ornstein_speech.results import Result, summarize
from ornstein_speech.scoring import Work
from ornstein_speech.systems import System, digest
from ornstein_speech.systems import load as load_systems

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "speech_quality.json"
README = ROOT / "apps" / "speech" / "README.md"
NAMES = {"pesq": "PESQ", "estoi": "ESTOI", "si_sdr": "SI-SDR (dB)"}

STEPS = (1, 3, 5, 10, 15, 30)
FROM_NOISE, BRIDGE = ("pc", "2m", "heun", "ode"), ("sde", "ode", "2m", "heun", "published")
"""Samplers by kind of process."""

REFERENCE = ("pc", 30)
"""The published sampler of SGMSE+, 60 network calls."""


def wanted(options: argparse.Namespace) -> Iterator[System]:
    """The systems to measure."""
    if options.rows:
        for text in options.rows:
            system = System.parse(text)
            yield dataclasses.replace(system, checkpoint=system.checkpoint or SHIPPED)
        return
    everything = options.steps or options.samplers or torch.cuda.is_available()
    for path in options.checkpoints:
        enhancer = Enhancer(path, device="cpu")
        known = FROM_NOISE if enhancer.from_noise else BRIDGE
        for sampler in [name for name in options.samplers or known if name in known] if everything else [None]:
            for steps in options.steps or (STEPS if everything else (1, 5)):
                yield System(path, sampler, steps)


def place(options: argparse.Namespace) -> str:
    """Machine, and how it computes there where it is not in plain float32."""
    device = Enhancer(options.checkpoints[0], device=options.device).device
    automatic = "bfloat16" if device.type == "cuda" else "float32"
    precision = automatic if options.precision == "auto" else options.precision
    text = machine(device) if precision == "float32" else f"{machine(device)}, {precision}"
    return f"{text}, compiled" if options.compile else text


def measure(systems: Sequence[System], options: argparse.Namespace, baselines: bool) -> Iterator[Row]:
    """The rows of a checkpoint's systems, each as soon as it is measured, before them those that need no network.

    The checkpoint is loaded, and compiled, once, and the processes that score are started once.
    """
    enhancers = load_systems(
        systems, device=options.device, precision=options.precision, compile=options.compile, batch=None
    )
    rate = next(iter(enhancers.values())).sample_rate
    items = held_out(options.data, options.mixes, rate)
    total: int = len(items)  # type: ignore[arg-type]
    groups: list[tuple[System | None, dict[str, Any], dict[str, Enhancer]]] = [
        (system, {}, {name: enhancer}) for system, (name, enhancer) in zip(systems, enhancers.items(), strict=True)
    ]
    if baselines:
        groups.insert(0, (None, classical(True), {}))
    with pool(options.workers) as executor:
        for system, methods, own in groups:
            about = {name: about_system(system, one) for name, one in own.items() if system is not None}
            settings = {"place": options.place, "mixes": options.mixes, "systems": about, "baselines": list(methods)}
            name = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]
            journal = Journal(Result, options.work / name, settings)
            work = Work(items, own, methods, rate, 0, False, journal, sounds=False)
            work.run(range(total), executor, 8 * max(options.workers, 1), not sys.stderr.isatty())
            results = [journal.results[index, method] for method in [*methods, *own] for index in range(total)]
            yield from rows_of(results, system, about, options.place)
            journal.remove()  # after the rows are written


def rows_of(results: Sequence[Result], system: System | None, about: dict[str, Any], place: str) -> Iterator[Row]:
    """What is stored of `results`, those of `system` or, without one, of what needs no network."""
    for name, found in summarize(results, list(results[0].scores))["systems"].items():
        own = [result for result in results if result.system == name]
        row: Row = {"system": name, "checkpoint": None, "sha256": None, "sampler": None, "steps": None, "nfe": None}
        row |= {key: found[key] for key in ("metrics", "rtf", "machine", "by_snr", "by_noise")}
        row |= {"grid": None, "scores": {metric: [result.scores[metric] for result in own] for metric in NAMES}}
        if system is not None:
            row |= {"system": system.model, "checkpoint": system.model, "sampler": system.sampler or "stored"}
            row |= {key: about[name][key] for key in ("sha256", "steps", "nfe", "settings")}
            row |= {"grid": system.grid, "machine": place}
        yield row


def key(row: Row) -> tuple[Any, ...]:
    """What makes two rows the same."""
    return tuple(row[name] for name in ("system", "sha256", "sampler", "grid", "steps", "machine"))


def merged(results: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """`results` with `rows`, which replace those of the same key."""
    return quality_rows.merged(results, rows, key, lambda row: row["checkpoint"] or "")


# -- tables ------------------------------------------------------------------------------------------------------------


def title(row: Row) -> str:
    grid = f", {row['grid']} grid" if row["grid"] else ""
    return row["system"] + (f", {row['sampler']}{grid}" if row["sampler"] else "")


def markdown(results: dict[str, Any]) -> str:
    """The tables of the README: every system once, with its speed on every machine; then the main ones by SNR."""
    rows: list[Row] = results["rows"]
    machines = list(dict.fromkeys(row["machine"] for row in rows if row["nfe"] and row["rtf"]))
    speeds = [f"RTF {chr(ord('A') + i)}" for i in range(len(machines))]
    lines = [f"| | steps | calls | {' | '.join([*NAMES.values(), *speeds])} |"]
    lines += ["| --- " * (3 + len(NAMES) + len(speeds)) + "|"]
    once: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        once.setdefault(key(row)[:-1], row)
    for row in once.values():
        cells = [f"{row['metrics'][m]['mean']:.3g} ± {row['metrics'][m]['ci95']:.2g}" for m in NAMES]
        for place in machines:
            same = [r for r in rows if key(r)[:-1] == key(row)[:-1] and r["machine"] == place]
            cells.append(f"{same[0]['rtf']:.2g}" if same and same[0]["rtf"] else "-")
        lines.append(f"| {title(row)} | {row['steps'] or '-'} | {row['nfe'] or '-'} | {' | '.join(cells)} |")
    lines += ["", *(f"RTF {chr(ord('A') + i)}: {name}." for i, name in enumerate(machines))]
    others = dict.fromkeys(row["machine"] for row in rows if row["nfe"] and row["machine"] not in machines)
    lines += [f"Scored, but not timed, on {name}." for name in others]
    lines += ["", *by_snr(list(once.values())), *statement(list(once.values()))]
    note = f"{results['data']}; {results['mixes']} mixes; mean ± 95 % interval over files; seed {results['seed']}."
    return "\n".join([*lines, "", note])


def by_snr(rows: Sequence[Row]) -> list[str]:
    """Of what needs no network, and of the stored samplers."""
    rows = [row for row in rows if row["sampler"] in (None, "stored")]
    if not rows:
        return []
    snrs = list(rows[0]["by_snr"])
    lines = [f"| PESQ / ESTOI / SI-SDR | {' | '.join(f'{s} dB' for s in snrs)} |", "| --- " * (len(snrs) + 1) + "|"]
    for row in rows:
        cells = [f"{s['pesq']:.2f} / {s['estoi']:.2f} / {s['si_sdr']:.1f}" for s in (row["by_snr"][n] for n in snrs)]
        calls = "" if row["nfe"] is None else f", {row['nfe']} call{'s' * (row['nfe'] > 1)}"
        lines.append(f"| {row['system']}{calls} | {' | '.join(cells)} |")
    return lines


def reaches(row: Row, reference: Row) -> bool:
    """Whether PESQ and SI-SDR are those of `reference` or better: the mean not below its 95 % interval, and the paired
    difference over files not wholly below zero."""
    for metric in PAIRED:
        expected = reference["metrics"][metric]
        low_mean = row["metrics"][metric]["mean"] < expected["mean"] - expected["ci95"]
        if low_mean or not difference(row, reference, metric).high >= 0:
            return False
    return True


def statement(rows: Sequence[Row]) -> list[str]:
    """Which solvers reach the quality of the predictor-corrector with 30 steps, and with how many network calls."""
    scored = [row for row in rows if row["nfe"] and row.get("scores")]
    references = [row for row in scored if (row["sampler"], row["steps"]) == REFERENCE]
    lines: list[str] = []
    for reference in references:
        best: dict[str, Row] = {}
        for row in scored:
            if row is not reference and reaches(row, reference) and row["nfe"] < best.get(title(row), reference)["nfe"]:
                best[title(row)] = row
        lines += ["", f"Fewest calls that reach {title(reference)}, {reference['nfe']} calls:", ""]
        if not best:
            lines += ["no solver does with fewer."]
            continue
        lines += ["| | steps | calls | PESQ, difference | SI-SDR, difference (dB) |", "| --- " * 5 + "|"]
        for name, row in sorted(best.items(), key=lambda item: item[1]["nfe"]):
            lines.append(f"| {name} | {row['steps']} | {row['nfe']} | {_above(row, reference)} |")
        for name in dict.fromkeys(title(row) for row in scored if title(row) not in {*best, title(reference)}):
            row = max((row for row in scored if title(row) == name), key=lambda row: row["metrics"]["pesq"]["mean"])
            lines.append(f"| {name} | none; PESQ is best at {row['steps']} | {row['nfe']} | {_above(row, reference)} |")
        lines += [
            "",
            "Reached: PESQ and SI-SDR not below the interval of the reference, nor is the 95 % interval of the ",
        ]
        lines[-1] += "difference over files (in brackets, BCa bootstrap) wholly below zero."
    return lines


def _above(row: Row, reference: Row) -> str:
    return " | ".join(str(difference(row, reference, metric)) for metric in PAIRED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / ".data" / "prompts-16k")
    parser.add_argument("--mixes", type=int, default=24, help="24 are every SNR with every kind of noise once")
    shipped = sorted(SHIPPED.parent.glob("*.safetensors"))
    parser.add_argument("--checkpoints", type=Path, nargs="+", default=shipped, help="default: all shipped ones")
    parser.add_argument("--samplers", nargs="+", choices=sorted({*FROM_NOISE, *BRIDGE}))
    parser.add_argument("--steps", type=int, nargs="+")
    parser.add_argument("--rows", nargs="+", metavar="CHECKPOINT:SAMPLER:STEPS:GRID", help="exactly these")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=get_args(PrecisionName), default="auto", help="see enhance")
    parser.add_argument("--compile", action="store_true", help="see enhance")
    parser.add_argument("--workers", type=int, help="for the metrics; default: 2 with a GPU, 0 on a CPU, see evaluate")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "speech_quality", help="what is half done")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--merge", type=Path, nargs="+", default=[], help="take in the rows of other results, and stop")
    parser.add_argument("--without_speed", action="store_true", help="of --merge: the machine had other work meanwhile")
    parser.add_argument("--again", action="store_true", help="measure rows again that are there")
    parser.add_argument("--table", action="store_true", help="only make the tables again from the last results")
    options = parser.parse_args()
    about = {
        "version": 2,
        "data": f"{options.data.name}, test split, 4 s at 0, 5, 10 and 15 dB",
        "mixes": options.mixes,
    }
    results = load(options.result, about | {"seed": 0})
    if options.table or options.merge:
        for path in options.merge:
            rows = load(path, about | {"seed": 0})["rows"]
            results = merged(results, [row | {"rtf": None} if options.without_speed else row for row in rows])
    else:
        if not options.data.is_dir():
            raise UserError(
                f"there is no folder {options.data}; make it with "
                "`ornstein speech prepare .data/prompts-16k --minutes 15 --noise_minutes 7`"
            )
        options.place = here = place(options)
        if options.workers is None:
            options.workers = 2 if options.device != "cpu" and torch.cuda.is_available() else 0
        there = {key(row)[:-1] for row in results["rows"] if row["machine"] == here and row.get("scores")}
        pending: dict[Path | None, list[System]] = {}
        for system in wanted(options):
            own = (system.model, digest(system.checkpoint), system.sampler or "stored", system.grid, system.steps)
            if own not in there or options.again:
                pending.setdefault(system.checkpoint, []).append(system)
        for systems in pending.values():  # a checkpoint at a time: it is loaded, and compiled, once
            baselines = not any(row["nfe"] is None and row.get("scores") for row in results["rows"])
            for row in measure(systems, options, baselines):
                results = merged(results, [row])
                write_json(options.result, results, overwrite=True)
                pesq = row["metrics"]["pesq"]["mean"]
                print(f"{title(row)}, {row['steps'] or '-'} steps: PESQ {pesq:.3f}, RTF {row['rtf']:.3g}", flush=True)
    close(results, options.result, README if options.result == RESULT else None, markdown)


if __name__ == "__main__":
    run(main)
