"""What the quality benchmarks share: rows that are measured one by one, kept in a file, merged, and made into tables.

A row is one system on one set: what tells it from the others, means with intervals, and the scores of every file.
"""

import argparse
import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, get_args

from ornstein.analysis.statistics import Difference, paired
from ornstein.errors import UserError
from ornstein.files import atomic_path
from ornstein.hardware import machine
from ornstein.journal import Journal
from ornstein.pictures.restorer import PictureRestorer, PrecisionName
from ornstein.pictures.results import Result, summarize
from ornstein.pictures.scoring import Trial, Work
from ornstein.report import write_json

ROOT = Path(__file__).parents[1]

Row = dict[str, Any]
Key = Callable[[Row], tuple[Any, ...]]
"""What makes two rows the same."""


def add_options(parser: argparse.ArgumentParser, name: str, verb: str) -> None:
    """Those of measuring pictures, and of the results; `verb` explains precision and compilation."""
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=get_args(PrecisionName), default="auto", help=f"see {verb}")
    parser.add_argument("--compile", action="store_true", help=f"see {verb}")
    parser.add_argument("--workers", type=int, default=0, help="for the metrics, see evaluate")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / name, help="what is half done")
    parser.add_argument("--result", type=Path, default=ROOT / "benchmarks" / "results" / f"{name}.json")
    parser.add_argument("--merge", type=Path, nargs="+", default=[], help="take in the rows of other results, and stop")
    parser.add_argument("--without_speed", action="store_true", help="of --merge: the machine had other work meanwhile")
    parser.add_argument("--again", action="store_true", help="measure rows again that are there")
    parser.add_argument("--table", action="store_true", help="only make the tables again from the last results")


# -- the file of results -----------------------------------------------------------------------------------------------


def load(path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """The results in `path`, which have to be of the same data; an empty set if there is no file."""
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {**about, "rows": []}
    different = [name for name in about if results.get(name) != about[name]]
    if different:
        raise UserError(f"{path} holds another {', '.join(different)}; give another --result, or remove it")
    return results


def merged(results: dict[str, Any], rows: Sequence[Row], key: Key, order: Callable[[Row], Any]) -> dict[str, Any]:
    """`results` with `rows`, which replace those of the same key."""
    found = {key(row): row for row in [*results["rows"], *rows]}
    return results | {"rows": sorted(found.values(), key=order)}


def taken(path: Path, about: Mapping[str, Any], without_speed: bool) -> list[Row]:
    """The rows of another file of results, for `--merge`."""
    rows: list[Row] = load(path, about)["rows"]
    return [row | {"seconds": 0.0} for row in rows] if without_speed else rows


def close(results: dict[str, Any], path: Path, readme: Path | None, markdown: Callable[[dict[str, Any]], str]) -> None:
    """Write the results, and the tables into `readme` where there is one.

    Raises:
        UserError: there are no rows.
    """
    if not results["rows"]:
        raise UserError("there are no results yet; measure some first")
    write_json(path, results, overwrite=True)
    print(path)
    if readme is not None:
        write_table(markdown(results), readme)
        print(readme)


# -- measuring pictures ------------------------------------------------------------------------------------------------


def place(restorer: PictureRestorer[Any], compiled: bool) -> str:
    """Machine, and how it computes there where it is not in plain float32."""
    precision = "" if restorer.precision == "float32" else f", {restorer.precision}"
    return machine(restorer.device) + precision + (", compiled" if compiled else "")


def measured(
    row: Row,
    restorer: Any,
    trial: Trial,
    settings: Mapping[str, Any],
    total: int,
    seeds: Sequence[int],
    metrics: Sequence[str],
    executor: Executor,
    options: argparse.Namespace,
    title: str,
) -> Iterator[Row]:
    """The row with its scores; none, and a line that says why, where something cannot be measured.

    Args:
        row: what tells it from the others.
        restorer: None for the input.
        trial: the set, of `total` items.
        settings: what the scores depend on; half done ones are kept by them.
        total: number of items.
        seeds: of the noise.
        metrics: those to keep, as far as they are measured.
        executor: scores.
        options: of the command.
        title: for messages.
    """
    name = row["system"]
    folder = hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()[:12]
    journal = Journal(Result, options.work / folder, settings)
    work = Work({} if restorer is None else {name: restorer}, restorer is None, trial, seeds, journal, keep=False)
    try:
        work.run(range(total), executor, 4 * max(options.workers, 1), not sys.stderr.isatty())
    except UserError as error:
        print(f"left out: {title}: {error}", file=sys.stderr)
        return
    results = [journal.results[index, name] for index in range(total)]
    bad = [result.error for result in results if result.error]
    if bad:
        print(f"left out: {title}: {bad[0]}", file=sys.stderr)
        return
    own = [metric for metric in metrics if metric in results[0].scores]
    found = summarize(results, own)["systems"][name]
    row |= {"metrics": found["metrics"], "seconds": found["seconds"]}
    yield row | {"scores": {metric: [result.scores[metric] for result in results] for metric in own}}
    journal.remove()  # after the row is written


# -- tables ------------------------------------------------------------------------------------------------------------


def mean(row: Row, metric: str) -> float:
    """Over files; NaN where it is not defined."""
    found = row["metrics"][metric]["mean"]
    return math.nan if found is None else float(found)


def cell(row: Row, metric: str) -> str:
    """Mean and interval."""
    half = row["metrics"][metric]["ci95"]
    return f"{mean(row, metric):.4g} ± {math.nan if half is None else half:.2g}"


def difference(row: Row, other: Row, metric: str) -> Difference:
    """What `row` is above `other`, over the same files; null stands for a score that is not defined."""
    first, second = ([math.nan if s is None else s for s in one["scores"][metric]] for one in (row, other))
    return paired(first, second)


def by_steps(rows: Sequence[Row], cell: Callable[[Row], str]) -> list[str]:
    """A table of one system: samplers down, steps across."""
    steps = sorted({row["asked"] for row in rows})
    lines = ["| sampler | " + " | ".join(map(str, steps)) + " |", "| --- " * (1 + len(steps)) + "|"]
    for sampler in dict.fromkeys(row["sampler"] for row in rows):
        own = {row["asked"]: row for row in rows if row["sampler"] == sampler}
        lines.append(f"| {sampler} | " + " | ".join(cell(own[n]) if n in own else "-" for n in steps) + " |")
    return lines


def write_table(table: str, readme: Path) -> None:
    """Put the tables between the markers of the README."""
    table = f"<!-- results -->\n{table}\n<!-- /results -->"
    text = re.sub(r"<!-- results -->.*<!-- /results -->", lambda _: table, readme.read_text(), flags=re.DOTALL)
    with atomic_path(readme, overwrite=True) as temporary:
        temporary.write_text(text)
