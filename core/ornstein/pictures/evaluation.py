"""What the evaluations of the apps of pictures share: who does what, and the files and tables that come of it."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ornstein.errors import UserError
from ornstein.journal import Journal
from ornstein.pictures.results import (
    INPUT,
    Result,
    differences,
    main_table,
    notes,
    pooled_table,
    summarize,
    write_csv,
)
from ornstein.pictures.systems import System, combine
from ornstein.report import text_table, write_json
from ornstein.scoring import FILES, refuse_two_ways
from ornstein.shards import Shard

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ornstein.pictures.restorer import PictureRestorer
    from ornstein.pictures.scoring import Trial


def check_counts(
    limit: int | None, workers: int, examples: int, seeds: Sequence[int], scale: int | None = None
) -> None:
    """Raises UserError for numbers that make no evaluation."""
    if scale is not None and scale < 1:
        raise UserError(f"--scale {scale} must be at least 1, or left out for that of the checkpoints")
    if min(1 if limit is None else limit, 1 + workers, 1 + examples, len(set(seeds))) < 1 or min(seeds) < 0:
        raise UserError(
            "--limit must be at least 1, --workers, --examples and --seeds at least 0, with one seed or more"
        )
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {' '.join(map(str, seeds))} names one twice; a seed gives the same result again")


def choose_systems(
    systems: Sequence[str] | None, checkpoint: Any, sampler: Any, steps: Any, baseline: bool
) -> list[System]:
    """What --systems names, or every checkpoint with every sampler and number of steps.

    Raises:
        UserError: both were given, or nothing is left to score.
    """
    refuse_two_ways(systems, checkpoint, steps, sampler)
    chosen = combine(checkpoint, sampler, steps) if systems is None else [System.parse(text) for text in systems]
    if not chosen and not baseline:
        raise UserError("there is nothing to score; name weights with --checkpoint FILE")
    return chosen


def common_scale(restorers: "Mapping[str, PictureRestorer[Any]]", default: int = 1) -> int:
    """How many times all of them enlarge; `default` where there are none.

    Raises:
        UserError: they differ.
    """
    scales = {restorer.scale for restorer in restorers.values()} or {default}
    if len(scales) > 1:
        listed = " and ".join(map(str, sorted(scales)))
        raise UserError(f"the checkpoints enlarge {listed} times; score those of one scale at a time")
    return scales.pop()


def about_system(system: System, restorer: "PictureRestorer[Any]") -> dict[str, Any]:
    """What the results of a system depend on, as plain JSON."""
    from ornstein.config import describe
    from ornstein.manifest import checksum

    sampler = restorer.model.sampler
    return {
        "checkpoint": system.checkpoint.stem,
        "sha256": checksum(system.checkpoint)[:16],
        "nfe": restorer.model.evaluations,
        "steps": sampler.steps,
        "sampler": type(sampler).__name__,
        "settings": describe(sampler)["init_args"],
    }


@dataclass(frozen=True)
class Evaluation:
    """One evaluation, from the first picture to the report.

    Args:
        restorers: by name of the system.
        about: what each of them is.
        trial: the set and its scores.
        total: number of its items.
        baseline: whether the input is scored, too.
        names: metrics and their names to print, of which the first one orders the examples.
        settings: what the results depend on.
        seeds: of the noise.
        title: of the report.
        read: an estimate that was kept as PNG, as (C, H, W) in [0, 1].
        truth: the same of the truth of an item.
        more: a plot below every example, see `write_report`.
        pairs: systems to compare besides each with the input: (first, second).
    """

    restorers: "Mapping[str, Any]"
    about: Mapping[str, Mapping[str, Any]]
    trial: "Trial"
    total: int
    baseline: bool
    names: Mapping[str, str]
    settings: Mapping[str, Any]
    seeds: Sequence[int]
    title: str
    read: "Callable[[Path], npt.NDArray[np.floating[Any]]]"
    truth: "Callable[[int], npt.NDArray[np.floating[Any]]]"
    more: Callable[[Mapping[str, Any]], tuple[str, bytes]] | None = None
    pairs: Sequence[tuple[str, str]] = ()

    def run(
        self,
        own: Shard,
        output: Path | None,
        summary: Mapping[str, Any],
        *,
        workers: int,
        examples: int,
        quiet: bool,
    ) -> dict[str, Any]:
        """Score what is left, then print the tables and write the files; `summary` goes into summary.json.

        Returns:
            What summary.json holds; nothing in processes that do not write it.

        Raises:
            UserError: pictures failed.
        """
        from ornstein.pictures.scoring import Work

        journal = Journal(Result, output, self.settings, own)
        keep = output is not None and examples > 0
        work = Work(self.restorers, self.baseline, self.trial, self.seeds, journal, keep)
        found = work.complete(self.total, own, output, workers, 4 * max(workers, 1), quiet)
        if found is None:
            return {}
        failed = {result.index: f"{result.file}: {result.error}" for result in found if result.error}
        results = [result for result in found if result.index not in failed]
        if not results:
            for message in failed.values():
                print(f"failed: {message}", file=sys.stderr)
            raise UserError(f"all {self.total} pictures failed, see above")
        names = {name: text for name, text in self.names.items() if any(name in r.scores for r in results)}
        whole = self._summary(results, names) | dict(summary) | {"workers": workers, "failed": list(failed.values())}
        told = [*notes(whole, names), *([f"{len(failed)} pictures failed, and are left out"] if failed else [])]
        if not quiet:
            _print(whole, names, told)
        if output is not None:
            self._write(output, journal, work.names, results, names, whole, told, examples)
            journal.remove()
            if not quiet:
                print(*(output / name for name in FILES), sep="\n")
        if failed:
            for message in failed.values():
                print(f"failed: {message}", file=sys.stderr)
            raise UserError(f"{len(failed)} of {self.total} pictures failed, see above; the others are scored")
        return whole

    def _summary(self, results: Sequence[Result], names: Mapping[str, str]) -> dict[str, Any]:
        summary = summarize(results, list(names))
        summary["systems"] = {
            name: system | dict(self.about.get(name, {})) for name, system in summary["systems"].items()
        }
        compared = [(name, INPUT) for name in self.restorers] if self.baseline else []
        gained = {
            pair: {metric: one._asdict() for metric, one in differences(results, *pair, list(names)).items()}
            for pair in [*compared, *self.pairs]
        }
        summary["gains"] = {first: found for (first, second), found in gained.items() if second == INPUT}
        if self.pairs:
            summary["differences"] = {
                f"{first} - {second}": found for (first, second), found in gained.items() if second != INPUT
            }
        return summary | {"seeds": list(self.seeds)}

    def _write(
        self,
        output: Path,
        journal: Journal[Result],
        systems: Sequence[str],
        results: Sequence[Result],
        names: Mapping[str, str],
        summary: Mapping[str, Any],
        told: Sequence[str],
        examples: int,
    ) -> None:
        from ornstein.pictures.evaluation_report import TRUTH, write_report

        def show(index: int) -> "dict[str, npt.NDArray[np.floating[Any]]]":
            """Every system's result, then the truth."""
            found = {}
            for number, name in enumerate(systems):
                path = journal.estimate(index, number, ".png")
                if path is not None and path.is_file():
                    found[name] = self.read(path)
            return found | {TRUTH: self.truth(index)}

        write_csv(output / "scores.csv", results, list(names), overwrite=True)
        write_json(output / "summary.json", summary, overwrite=True)
        write_report(
            output / "report.html",
            summary,
            names,
            told,
            results,
            show,
            examples,
            metric=next(iter(names)),
            title=self.title,
            more=self.more,
        )


def _print(summary: Mapping[str, Any], names: Mapping[str, str], told: Sequence[str]) -> None:
    from ornstein.analysis.statistics import Difference

    print(text_table(*main_table(summary, names)), *told, sep="\n")
    pooled = pooled_table(summary, names)
    if pooled is not None:
        print("\nmeans over the pixels of all pictures (PP)", text_table(*pooled), sep="\n")
    for title, found in (
        ("above the input, picture by picture [95 % interval]", summary["gains"]),
        ("one system above another, picture by picture [95 % interval]", summary.get("differences", {})),
    ):
        if found:
            rows = [[name, *(str(Difference(**one[metric])) for metric in names)] for name, one in found.items()]
            print(f"\n{title}", text_table(["", *names.values()], rows), sep="\n")
