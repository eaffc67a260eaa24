"""Scores by picture and system, and what is made of them: means with intervals, tables, the CSV file."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ornstein.analysis.statistics import Difference, Interval, finite_gains, interval, paired
from ornstein.files import atomic_path

VERSION = 1
"""Of the layout of summary.json and scores.csv."""

INPUT = "input"
"""The system that returns its input, in super-resolution the input upscaled."""


@dataclass(frozen=True)
class Result:
    """One picture through one system.

    Attributes:
        index: of the picture in its set.
        file, system: names.
        scores: metrics by name, NaN where one is not defined, infinite for the PSNR of equal pictures.
        pixels: number of pixels of the metrics that are means over a region.
        seconds: of work, 0 where there is none to do.
        machine: what did the work.
        first: the first picture of a run, whose time also holds what is done once.
        seeds: the same scores for every seed of the noise, where there are several; `scores` are their means.
        error: why there are no scores.
    """

    index: int
    file: str
    system: str
    scores: dict[str, float]
    pixels: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    machine: str = ""
    first: bool = False
    seeds: dict[str, list[float]] = field(default_factory=dict)
    error: str = ""


def summarize(results: Sequence[Result], metrics: Sequence[str]) -> dict[str, Any]:
    """Means with 95 % intervals and seconds a picture by system.

    A mean is that of the finite values; how many are infinite (equal pictures) and undefined stands beside it. A metric
    over a region also has the mean over all pixels of the set, "pooled" ("PP" of the tables; the mean is "PI").
    """
    systems: dict[str, Any] = {}
    for name in dict.fromkeys(result.system for result in results):
        own = [result for result in results if result.system == name]
        steady = [result for result in own if not result.first] or own
        systems[name] = {
            "metrics": {metric: _metric(own, metric) for metric in metrics if any(metric in r.scores for r in own)},
            "seconds": sum(result.seconds for result in steady) / len(steady),
            "machine": " and ".join(dict.fromkeys(result.machine for result in own)),
        }
    return {"version": VERSION, "files": len({result.file for result in results}), "systems": systems}


def _metric(results: Sequence[Result], metric: str) -> dict[str, Any]:
    values = [result.scores.get(metric, math.nan) for result in results]
    found = interval(value for value in values if math.isfinite(value))
    infinite = sum(math.isinf(value) for value in values)
    summary = {
        "mean": found.mean,
        "ci95": found.half_width,
        "std": found.std,
        "files": found.files,
        "infinite": infinite,
        "undefined": len(values) - found.files - infinite,
    }
    several = [result.seeds[metric] for result in results if metric in result.seeds]
    by_seed = [
        interval(value for value in values if math.isfinite(value)).mean for values in zip(*several, strict=True)
    ]
    weighted = [(r.scores[metric], r.pixels[metric]) for r in results if r.pixels.get(metric)]
    if weighted:
        summary["pooled"] = sum(value * count for value, count in weighted) / sum(count for _, count in weighted)
    return summary | ({"by_seed": by_seed} if by_seed else {})


def gains(results: Sequence[Result], system: str, metric: str) -> dict[int, float]:
    """What `system` adds to the input by index; pictures where one of the two has no finite score are left out."""
    own = {r.index: r.scores[metric] for r in results if r.system == system and metric in r.scores}
    start = {r.index: r.scores[metric] for r in results if r.system == INPUT and metric in r.scores}
    return finite_gains(own, start)


def differences(results: Sequence[Result], first: str, second: str, metrics: Sequence[str]) -> dict[str, Difference]:
    """Mean of system `first` - `second` over the pictures that both have, with its 95 % interval, by metric."""
    found = {}
    for metric in metrics:
        a = {r.index: r.scores.get(metric, math.nan) for r in results if r.system == first}
        b = {r.index: r.scores.get(metric, math.nan) for r in results if r.system == second}
        both = sorted(a.keys() & b.keys())
        found[metric] = paired([a[index] for index in both], [b[index] for index in both])
    return found


Table = tuple[list[str], list[list[str]]]
"""Header and rows."""


def main_table(summary: Mapping[str, Any], names: Mapping[str, str]) -> Table:
    """Every system with its means and intervals, and seconds a picture; a metric without a value is n/a."""
    rows = []
    for name, system in summary["systems"].items():
        cells = [_cell(system["metrics"].get(metric)) for metric in names]
        rows.append([name, *cells, f"{system['seconds']:.3g}" if system["seconds"] > 0 else "-"])
    return ["", *names.values(), "s"], rows


def _cell(metric: Mapping[str, Any] | None) -> str:
    if metric is None:
        return "n/a"
    files, infinite = int(metric["files"]), int(metric["infinite"])
    if files == 0 and infinite:
        return "inf"
    return str(Interval(metric["mean"], metric["ci95"], metric["std"], files))


def pooled_table(summary: Mapping[str, Any], names: Mapping[str, str]) -> Table | None:
    """The metrics over regions, by the mean over all pixels of the set ("PP"); None if there are none."""
    systems = summary["systems"]
    own = [name for name in names if any("pooled" in s["metrics"].get(name, {}) for s in systems.values())]
    if not own:
        return None
    rows = [
        [
            name,
            *(f"{value:.3f}" if (value := s["metrics"].get(m, {}).get("pooled")) is not None else "n/a" for m in own),
        ]
        for name, s in systems.items()
    ]
    return ["", *(names[metric] for metric in own)], rows


def notes(summary: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """What a reader of the tables has to know: the intervals, and what the means leave out."""
    found = [f"{summary['files']} pictures, mean ± 95 % interval over them; s is seconds of computing a picture"]
    for metric, name in names.items():
        counts = [system["metrics"].get(metric, {}) for system in summary["systems"].values()]
        if equal := max((int(count.get("infinite", 0)) for count in counts), default=0):
            found.append(f"{name} is infinite, and left out, for up to {equal} pictures that are equal to the truth")
        if undefined := max((int(count.get("undefined", 0)) for count in counts), default=0):
            found.append(f"{name} is not defined, and left out, for up to {undefined} pictures")
    return found


def write_csv(path: Path, results: Sequence[Result], metrics: Sequence[str], overwrite: bool) -> None:
    """One line per picture and system; undefined scores are `nan`, infinite ones `inf`."""
    regions = [metric for metric in metrics if any(metric in result.pixels for result in results)]
    with atomic_path(path, overwrite=overwrite) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "system", *metrics, *(f"pixels_{metric}" for metric in regions), "seconds"])
        for r in results:
            scores = [f"{r.scores.get(metric, math.nan):.5f}" for metric in metrics]
            pixels = [r.pixels.get(metric, "") for metric in regions]
            writer.writerow([r.file, r.system, *scores, *pixels, f"{r.seconds:.4f}"])


def caption(scores: Mapping[str, float] | None, names: Mapping[str, str]) -> str:
    """The first three scores in a line, nothing for the truth."""
    if scores is None:
        return ""
    return ", ".join(f"{names[metric]} {scores[metric]:.4g}" for metric in list(names)[:3] if metric in scores)
