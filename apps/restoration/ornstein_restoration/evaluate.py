"""Scores of checkpoints, and of the input as it is, on degraded pictures whose clean versions are known."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ornstein.errors import UserError
from ornstein.journal import FOLDER, Journal, holds_any, make_room
from ornstein.report import text_table, write_json
from ornstein.shards import shard
from ornstein.workers import pool
from ornstein_restoration.benchmarks import NAMES, Protocol
from ornstein_restoration.layouts import Layout, find_pairs
from ornstein_restoration.restorer import PrecisionName
from ornstein_restoration.results import (
    INPUT,
    VERSION,
    Result,
    differences,
    main_table,
    notes,
    pooled_table,
    summarize,
    write_csv,
)
from ornstein_restoration.solvers import SamplerName
from ornstein_restoration.systems import System, combine, load

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ornstein_restoration.datasets import Degradation, Pictures
    from ornstein_restoration.restorer import Restorer

FILES = ("scores.csv", "summary.json", "report.html")

DegradationName = Literal["bicubic", "real-esrgan", "low-light", "rain", "shadow"]


def evaluate(
    data: Path,
    *,
    checkpoint: Path | list[Path] | None = None,
    output: Path | None = None,
    steps: int | list[int] | None = None,
    sampler: SamplerName | list[SamplerName] | None = None,
    systems: list[str] | None = None,
    baseline: bool = True,
    layout: Layout | None = None,
    degradation: DegradationName | None = None,
    scale: int | None = None,
    protocol: Protocol = "default",
    lpips: Path | None = None,
    resize: int | None = None,
    seeds: list[int] = [0],  # noqa: B006  # read only, and shown by the help
    data_seed: int = 0,
    limit: int | None = None,
    device: str = "auto",
    tile: int | None = None,
    overlap: int | None = None,
    batch: int = 1,
    precision: PrecisionName = "auto",
    compile: bool = False,
    examples: int = 4,
    workers: int = 2,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Score checkpoints, and the input as it is (enlarged by MATLAB's bicubic kernel), on pictures with a reference.

    Prints means with 95 % confidence intervals over pictures, and what each system adds to the input, picture by
    picture. With --output every score is kept as soon as it is made: after an interruption the same command goes on.
    Started by torchrun or srun, the processes share the pictures, and the first one writes the results. A picture that
    cannot be read or scored is left out for all systems and told of at the end, with code 2.

    Args:
        data: Folder of the test set: pairs, a published layout, or clean pictures with --degradation.
        checkpoint: Weights to score, one or several.
        output: Folder for scores.csv (one line per picture and system), summary.json and report.html (before and
            after).
        steps: Numbers of sampler steps to compare, for example 1 2 5. Default: the number stored in the checkpoint.
        sampler: One or several, see `restore`; all checkpoints, samplers and steps are combined. Default: stored in the
            checkpoint.
        systems: Instead of these three, a list of CHECKPOINT:SAMPLER:STEPS, for example a.safetensors:2m:5;
            empty parts are as stored.
        baseline: Score the input, too.
        layout: pairs, clean, flist, istd, lol or raindrop, see docs/restoration.md. Default: clean with --degradation,
            else pairs.
        degradation: Makes the degraded pictures of clean ones: bicubic, real-esrgan, low-light, rain or shadow.
        scale: How many times larger the clean pictures are. Default: that of the checkpoints.
        protocol: Which scores, taken as which publication takes them: default, upsr, lol, lol-256, raindrop,
            raindrop-256, rddm-256, istd or istd-256; see docs/restoration-metrics.md.
        lpips: Weights of AlexNet for LPIPS, see docs/restoration-metrics.md.
        resize: Make all pictures squares of this side first (RDDM as published: 256).
        seeds: Of the noise of the systems; a picture's scores are means over them.
        data_seed: Of the degradation.
        limit: Use so many pictures only, spread over the set.
        device: auto, cpu, cuda or cuda:N.
        tile: Side of the tiles of large pictures, see `restore`.
        overlap: Of neighbouring tiles, see `restore`.
        batch: Tiles that go through a GPU at once.
        precision: Of the network, see `restore`.
        compile: Compile the network first, see `restore`.
        examples: Pictures to show in the report, besides the worst, the median and the best one; 0 for none at all.
        workers: Processes for the scores beside the one that restores; 0 works in this one, one thing after another,
            which measures the speed on a CPU undisturbed.
        overwrite: Replace the files of an earlier evaluation, finished or not.
        quiet: No progress bar and no table.

    Returns:
        What summary.json holds; nothing in the processes of torchrun or srun that do not write it.

    Raises:
        UserError: the data or an option cannot be used, or pictures failed.
    """
    if min(1 if limit is None else limit, 1 + workers, 1 + examples, len(set(seeds))) < 1 or min(seeds) < 0:
        raise UserError(
            "--limit must be at least 1, --workers, --examples and --seeds at least 0, with one seed or more"
        )
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {' '.join(map(str, seeds))} names one twice; a seed gives the same result again")
    if systems is not None and (checkpoint, steps, sampler) != (None, None, None):
        raise UserError("--systems names checkpoints, samplers and steps by itself; leave the other options out")
    chosen = combine(checkpoint, sampler, steps) if systems is None else [System.parse(text) for text in systems]
    if not chosen and not baseline:
        raise UserError("there is nothing to score; name weights with --checkpoint FILE")
    own = shard()
    output = None if output is None else Path(output)
    if output is None and own.count > 1:
        raise UserError(f"{own.count} processes share this evaluation; give them one folder with -o")
    if output is not None:
        if own.rank > 0 and holds_any(output, FILES) and not (output / FOLDER).is_dir():
            return {}  # the first process says what is to be said
        make_room(output, FILES, own, overwrite)
    restorers = load(
        chosen,
        device=own.device(device),
        tile=tile,
        overlap=overlap,
        batch=batch,
        precision=precision,
        compile=compile,
    )
    scale = scale or common_scale(restorers)
    pictures = held_out(Path(data), layout, degradation, scale, resize, limit, data_seed)
    total = len(pictures)
    if lpips is not None:
        from ornstein.pictures.lpips import Lpips

        Lpips(lpips)  # what is wrong with the file is said before the work
    about = {name: about_system(system, restorers[name]) for system, name in zip(chosen, restorers, strict=True)}
    settings = {
        "version": VERSION,
        "data": str(data),
        "names": [pair.name for pair in pictures.pairs],
        "degradation": degradation,
        "scale": scale,
        "protocol": protocol,
        "lpips": None if lpips is None else str(lpips),
        "resize": resize,
        "seeds": seeds,
        "data_seed": data_seed,
        "tiles": [tile, overlap],
        "precision": [next(iter(restorers.values())).precision if restorers else "", compile],
        "systems": about,
        "baseline": baseline,
        "examples": examples,
    }
    from ornstein_restoration.scoring import Work

    journal = Journal(Result, output, settings, own)
    work = Work(restorers, baseline, protocol, lpips, seeds, journal, keep=output is not None and examples > 0)
    try:
        with pool(workers) as executor:
            work.run(pictures, range(own.rank, total, own.count), executor, 4 * max(workers, 1), quiet)
    except KeyboardInterrupt:
        if output is not None and not quiet:
            print(f"what is scored is kept in {output / FOLDER}; the same command goes on", file=sys.stderr)
        raise
    if own.rank > 0:
        return {}
    expected = [(index, name) for index in range(total) for name in work.names]
    journal.wait(expected, lambda text: None if quiet else print(text, file=sys.stderr))

    found = [journal.results[key] for key in expected]
    failed = {result.index: f"{result.file}: {result.error}" for result in found if result.error}
    results = [result for result in found if result.index not in failed]
    if not results:
        for message in failed.values():
            print(f"failed: {message}", file=sys.stderr)
        raise UserError(f"all {total} pictures failed, see above")
    names = {name: text for name, text in NAMES.items() if name in results[0].scores}
    summary = summarize(results, list(names))
    summary["systems"] = {name: system | about.get(name, {}) for name, system in summary["systems"].items()}
    summary |= {
        "data": str(data),
        "degradation": degradation,
        "scale": scale,
        "protocol": protocol,
        "checkpoint": ", ".join(dict.fromkeys(str(system.checkpoint) for system in chosen)) or "none",
        "seeds": seeds,
        "data_seed": data_seed,
        "workers": workers,
        "failed": list(failed.values()),
        "gains": _gains(results, list(restorers), list(names)) if baseline else {},
    }
    told = [*notes(summary, names), *([f"{len(failed)} pictures failed, and are left out"] if failed else [])]
    if not quiet:
        _print(summary, names, told)
    if output is not None:
        from ornstein_restoration.evaluation_report import write_report

        write_csv(output / "scores.csv", results, list(names), overwrite=True)
        write_json(output / "summary.json", summary, overwrite=True)
        show = _shown(pictures, journal, work.names)
        write_report(output / "report.html", summary, names, told, results, show, examples, metric=next(iter(names)))
        journal.remove()
        if not quiet:
            print(*(output / name for name in FILES), sep="\n")
    if failed:
        for message in failed.values():
            print(f"failed: {message}", file=sys.stderr)
        raise UserError(f"{len(failed)} of {total} pictures failed, see above; the others are scored")
    return summary


def held_out(
    data: Path,
    layout: Layout | None = None,
    degradation: DegradationName | None = None,
    scale: int = 1,
    resize: int | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> "Pictures":
    """The test pictures in `data`, see `evaluate`; the same degraded ones for the same seed.

    Raises:
        UserError: the data are not of the layout, or the options do not go together.
    """
    from ornstein_restoration.datasets import Pictures

    pairs = find_pairs(data, layout or ("pairs" if degradation is None else "clean"), "test", seed=seed)
    if limit is not None and limit < len(pairs):
        pairs = [pairs[i * len(pairs) // limit] for i in range(limit)]
    made = None if degradation is None else _degradation(degradation, scale)
    return Pictures(pairs, degradation=made, scale=scale, resize=resize, epochs=False, seed=seed)


def _degradation(name: DegradationName, scale: int) -> "Degradation":
    from ornstein_restoration import degradations

    match name:
        case "bicubic":
            return degradations.Bicubic(scale=scale)
        case "real-esrgan":
            return degradations.RealESRGAN(scale=scale)
        case "low-light":
            return degradations.LowLight()
        case "rain":
            return degradations.Rain()
        case "shadow":
            return degradations.Shadow()


def common_scale(restorers: "Mapping[str, Restorer]") -> int:
    """How many times all of them enlarge.

    Raises:
        UserError: they differ.
    """
    scales = {restorer.scale for restorer in restorers.values()} or {1}
    if len(scales) > 1:
        listed = " and ".join(map(str, sorted(scales)))
        raise UserError(f"the checkpoints enlarge {listed} times; score those of one scale at a time")
    return scales.pop()


def about_system(system: System, restorer: "Restorer") -> dict[str, Any]:
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


def _gains(results: Sequence[Result], systems: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    """What each system adds to the input over the same pictures, with the ends of the 95 % interval."""
    return {
        system: {metric: found._asdict() for metric, found in differences(results, system, INPUT, metrics).items()}
        for system in systems
    }


def _shown(pictures: "Pictures", journal: Journal[Result], systems: Sequence[str]) -> Any:
    """The pictures of the report by index: every system's result, then the truth."""
    from ornstein_restoration import images
    from ornstein_restoration.evaluation_report import TRUTH

    def show(index: int) -> "dict[str, npt.NDArray[np.floating]]":
        found = {}
        for number, name in enumerate(systems):
            path = journal.estimate(index, number, ".png")
            if path is not None and path.is_file():
                found[name] = images.read(path).pixels
        return found | {TRUTH: pictures[index]["gt"].numpy()}

    return show


def _print(summary: Mapping[str, Any], names: Mapping[str, str], told: Sequence[str]) -> None:
    from ornstein.analysis.statistics import Difference

    print(text_table(*main_table(summary, names)), *told, sep="\n")
    pooled = pooled_table(summary, names)
    if pooled is not None:
        print("\nmeans over the pixels of all pictures (PP)", text_table(*pooled), sep="\n")
    if summary["gains"]:
        rows = [
            [system, *(str(Difference(**found[metric])) for metric in names)]
            for system, found in summary["gains"].items()
        ]
        print(
            "\nabove the input, picture by picture [95 % interval]", text_table(["", *names.values()], rows), sep="\n"
        )
