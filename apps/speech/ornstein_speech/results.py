"""Scores by file and system, and what is made of them: means with intervals, tables, the CSV file."""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ornstein.analysis.statistics import Interval, finite_gains, interval
from ornstein.files import atomic_path

VERSION = 2
"""Of the layout of summary.json and scores.csv."""

NOISY = "noisy"
"""The system that returns its input."""

_SOUND = (".wav", ".flac", ".ogg", ".mp3", ".g722")


@dataclass(frozen=True)
class Result:
    """One file through one system.

    Attributes:
        index: of the file in its set.
        file, system: names.
        scores: metrics by name, NaN where one is not defined.
        rtf: seconds of work per second of sound, 0 where there is none to do.
        seconds: length of the file.
        machine: what did the work.
        first: the first file of a run, whose time also holds what is done once.
        peak: largest magnitude of the estimate.
        error: why there are no scores.
    """

    index: int
    file: str
    system: str
    scores: dict[str, float]
    rtf: float
    seconds: float = 1.0
    machine: str = ""
    first: bool = False
    peak: float = 1.0
    error: str = ""

    @property
    def snr(self) -> float | None:
        """SNR in dB that the file name tells, as in `03-en-pink-5dB`."""
        found = _condition(self.file)
        return float(found.group(2)) if found else None

    @property
    def noise(self) -> str | None:
        """Kind of noise that the file name tells, the word before the SNR."""
        found = _condition(self.file)
        return found.group(1) if found else None


def _condition(file: str) -> re.Match[str] | None:
    stem = str(Path(file).with_suffix("")) if file.endswith(_SOUND) else file
    return re.search(r"(?:([A-Za-z]+)|(?:^|\d))[-_](-?\d+(?:\.\d+)?)dB$", stem)


def summarize(results: Sequence[Result], metrics: Sequence[str]) -> dict[str, Any]:
    """Means, 95 % intervals and real-time factors by system, and means by SNR and by kind of noise."""
    systems: dict[str, Any] = {}
    for name in dict.fromkeys(result.system for result in results):
        own = [result for result in results if result.system == name]
        found = {metric: interval(result.scores[metric] for result in own) for metric in metrics}
        steady = [result for result in own if not result.first] or own
        systems[name] = {
            "metrics": {
                metric: {
                    "mean": f.mean,
                    "ci95": f.half_width,
                    "std": f.std,
                    "files": f.files,
                    "undefined": len(own) - f.files,
                }
                for metric, f in found.items()
            },
            "rtf": sum(r.rtf * r.seconds for r in steady) / sum(r.seconds for r in steady),
            "machine": " and ".join(dict.fromkeys(result.machine for result in own)),
            "by_snr": _by(own, metrics, lambda r: None if r.snr is None else f"{r.snr:g}", key=float),
            "by_noise": _by(own, metrics, lambda r: r.noise, key=str),
        }
    return {"version": VERSION, "files": len({result.file for result in results}), "systems": systems}


def _by(
    results: Sequence[Result],
    metrics: Sequence[str],
    group: Callable[[Result], str | None],
    key: Callable[[str], Any],
) -> dict[str, dict[str, float]]:
    """Means of the results in every group; those without a group are left out."""
    names = sorted({name for r in results if (name := group(r)) is not None}, key=key)
    return {
        name: {metric: interval(r.scores[metric] for r in results if group(r) == name).mean for metric in metrics}
        for name in names
    }


def gains(results: Sequence[Result], system: str, metric: str = "pesq") -> dict[int, float]:
    """What `system` adds to the noisy input by file index; files where one of the two has no score are left out."""
    noisy = {r.index: r.scores[metric] for r in results if r.system == NOISY}
    own = {r.index: r.scores[metric] for r in results if r.system == system}
    return finite_gains(own, noisy)


Table = tuple[list[str], list[list[str]]]
"""Header and rows."""


def main_table(summary: Mapping[str, Any], names: Mapping[str, str], missing: Sequence[str] = ()) -> Table:
    """Every system with its means and intervals; `missing` systems and metrics without a value are n/a."""
    rows = []
    for name, system in summary["systems"].items():
        cells = []
        for metric in names:
            m = system["metrics"].get(metric)
            cells.append("n/a" if m is None else str(Interval(m["mean"], m["ci95"], m["std"], m["files"])))
        rows.append([name, *cells, f"{system['rtf']:.3g}" if system["rtf"] > 0 else "-"])
    rows += [[name, *["n/a"] * (len(names) + 1)] for name in missing]
    return ["", *names.values(), "RTF"], rows


def condition_tables(summary: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[str, Table]]:
    """Title, header and rows of the three main metrics by SNR and by kind of noise, where the file names tell them."""
    systems = summary["systems"]
    tables: list[tuple[str, Table]] = []
    for key, title, unit in (("by_snr", "SNR", " dB"), ("by_noise", "noise", "")):
        groups = list(next(iter(systems.values()))[key])
        for metric in ("pesq", "estoi", "si_sdr") if groups else ():
            rows = [[name, *(f"{system[key][g][metric]:.3f}" for g in groups)] for name, system in systems.items()]
            tables.append((f"{names[metric]} by {title}", (["", *(f"{g}{unit}" for g in groups)], rows)))
    return tables


def write_csv(path: Path, results: Sequence[Result], metrics: Sequence[str], overwrite: bool) -> None:
    """One line per file and system; undefined scores are `nan`."""
    with atomic_path(path, overwrite=overwrite) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "snr_db", "noise", "seconds", "system", *metrics, "rtf"])
        for r in results:
            snr = "" if r.snr is None else f"{r.snr:g}"
            scores = [f"{r.scores[m]:.5f}" for m in metrics]
            writer.writerow([r.file, snr, r.noise or "", f"{r.seconds:.3f}", r.system, *scores, f"{r.rtf:.4f}"])


def caption(scores: Mapping[str, float] | None) -> str:
    """The three main scores in a line, nothing for the clean recording."""
    if scores is None:
        return ""
    return f"PESQ {scores['pesq']:.2f}, ESTOI {scores['estoi']:.3f}, SI-SDR {scores['si_sdr']:.1f} dB"
