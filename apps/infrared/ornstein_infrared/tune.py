"""How strongly to guide a checkpoint, chosen on frames that no result is reported on."""

import copy
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ornstein.errors import UserError
from ornstein.pictures.restorer import PrecisionName
from ornstein.pictures.solvers import SamplerName
from ornstein_infrared.evaluate import DegradationName, held_out
from ornstein_infrared.guidance import STRENGTH, GuidanceName, guide
from ornstein_infrared.layouts import Layout, Split
from ornstein_infrared.upscaler import Infrared

if TYPE_CHECKING:
    from ornstein.analysis.strength import Choice
    from ornstein.pictures.results import Result
    from ornstein.pictures.scoring import Work

Guided = Literal["spectrum", "perceptual", "both"]
Target = Literal["spectrum", "spectrum_log", "lite0", "lpips", "ssim_gray", "ssim_y", "hot_iou", "hot_recall"]

HIGHER_IS_BETTER = ("ssim_gray", "ssim_y", "hot_iou", "hot_recall")
FILE = "guidance.json"


def tune_guidance(
    data: Path,
    *,
    checkpoint: Path | None = None,
    output: Path | None = None,
    guidance: Guided = "spectrum",
    guidance_scales: list[float] = [0.001, 0.003, STRENGTH, 0.03],  # noqa: B006  # read only, and shown by the help
    target: Target | None = None,
    largest_loss: float = 0.2,
    features: str | None = None,
    steps: int | None = None,
    sampler: SamplerName | None = None,
    split: Split = "val",
    layout: Layout = "pairs",
    degradation: DegradationName | None = None,
    gain: float | None = None,
    offset: float | None = None,
    lpips: Path | None = None,
    seeds: list[int] = [0],  # noqa: B006  # the same
    data_seed: int = 0,
    limit: int | None = None,
    device: str = "auto",
    tile: int | None = None,
    overlap: int | None = None,
    batch: int = 1,
    precision: PrecisionName = "auto",
    workers: int = 2,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Choose how strongly to guide a checkpoint, on validation frames.

    Tries scales, and takes the one that improves a score most among those that lose no more PSNR than is allowed; none
    where no scale helps. Prints every scale with its score, what it changes and what it loses, frame by frame with 95 %
    intervals, then the options to give to upscale and evaluate. With --output every score is kept as soon as it is
    made: after an interruption the same command goes on.

    Args:
        data: Folder of the set, in one of the layouts.
        checkpoint: Weights to guide. Default: the shipped ones.
        output: Folder for guidance.json.
        guidance: spectrum, perceptual or both.
        guidance_scales: What to try besides no guidance.
        target: The score to improve: spectrum, spectrum_log, lite0, lpips, ssim_gray, ssim_y, hot_iou or hot_recall.
            Default: spectrum; for perceptual guidance lpips where its weights are given, and lite0 otherwise.
        largest_loss: Of the mean PSNR, in dB.
        features: See `upscale`.
        steps: See `upscale`.
        sampler: See `upscale`.
        split: val, or train; test is for results, and choosing on it makes them better than they are.
        layout: See `evaluate`.
        degradation: See `evaluate`.
        gain: See `upscale`.
        offset: See `upscale`.
        lpips: Weights of AlexNet for LPIPS.
        seeds: Of the noise; a frame's scores are means over them.
        data_seed: Of the degradation.
        limit: Use so many frames only, spread over the set.
        device: auto, cpu, cuda or cuda:N.
        tile: See `upscale`.
        overlap: See `upscale`.
        batch: Tiles that go through a GPU at once.
        precision: Of the network, see `upscale`.
        workers: Processes for the scores beside the one that enlarges; 0 works in this one.
        overwrite: Replace an earlier choice, finished or not.
        quiet: No progress bar and no table.

    Returns:
        What guidance.json holds: `guidance_scale`, 0 for none, and the scales that were tried.

    Raises:
        UserError: the data or an option cannot be used, or frames failed.
    """
    from ornstein.analysis.strength import choose_strength
    from ornstein.journal import Journal, make_room
    from ornstein.pictures.evaluation import about_system, check_counts
    from ornstein.pictures.results import VERSION, Result
    from ornstein.pictures.scoring import Work
    from ornstein.pictures.systems import System
    from ornstein.report import write_json
    from ornstein.shards import shard
    from ornstein.workers import pool
    from ornstein_infrared import upscaler

    check_counts(limit, workers, 0, seeds)
    if split == "test":
        raise UserError("--split test is what results are reported on; choose on val, or on train")
    own = shard()
    if own.count > 1:
        raise UserError(f"{own.count} processes were started, and this command is one; start it without a launcher")
    scales = _scales(guidance_scales)
    target = _target(target, guidance, lpips)
    output = None if output is None else Path(output)
    if output is not None:
        make_room(output, [FILE], own, overwrite)
    checkpoint = upscaler.shipped() if checkpoint is None else Path(checkpoint)
    first = Infrared(
        checkpoint, steps=steps, sampler=sampler, guidance=guidance, guidance_scale=scales[0], features=features,
        device=device, tile=tile, overlap=overlap, batch=batch, precision=precision,
    )  # fmt: skip
    if first.is_regression:
        raise UserError(f"{checkpoint} is a regression model, which no guidance changes")
    trial = held_out(Path(data), layout, degradation, first.scale, limit, data_seed, gain, offset, lpips, split=split)
    if target.startswith("hot") and not all(pair.hot for pair in trial.pairs):
        raise UserError(f"{data} does not mark its hot objects; give another --target")
    restorers = {f"{scale:g}": _with(first, guidance, scale, features) for scale in [0.0, *scales]}
    settings = {
        "version": VERSION,
        "data": str(data),
        "split": split,
        "names": [pair.name for pair in trial.pairs],
        "degradation": degradation,
        "temperatures": [gain, offset],
        "lpips": None if lpips is None else str(lpips),
        "seeds": seeds,
        "data_seed": data_seed,
        "tiles": [tile, overlap],
        "precision": first.precision,
        "system": about_system(System(checkpoint), first),
        "guidance": {name: one.guidance.described() for name, one in restorers.items() if one.guidance is not None},
    }
    journal = Journal(Result, output, settings)
    with pool(workers) as executor:
        work = Work(restorers, False, trial, seeds, journal, keep=False)
        work.run(range(len(trial.pairs)), executor, 4 * max(workers, 1), quiet)
    good, failed = _sorted_out(journal.results, work, len(trial.pairs))
    choice = choose_strength(
        lambda strength: _scores([journal.results[index, f"{strength:g}"] for index in good]),
        scales,
        target,
        largest_loss=largest_loss,
        higher_is_better=target in HIGHER_IS_BETTER,
    )
    summary = _summary(choice, target, largest_loss) | {"guidance": guidance, "frames": len(good), **settings}
    if not quiet:
        _print(choice, guidance, target, features)
    if output is not None:
        write_json(output / FILE, summary, overwrite=True)
        journal.remove()
        if not quiet:
            print(output / FILE)
    if failed:
        raise UserError(f"{len(failed)} of {len(trial.pairs)} frames failed, see above; the others decided")
    return summary


def _scales(given: list[float]) -> list[float]:
    """In order, each once; two that print alike would be one row."""
    if not given or not all(0 < scale < math.inf for scale in given):
        raise UserError(f"--guidance_scales {' '.join(map(str, given))}: give positive numbers; none is tried as well")
    return sorted({float(f"{scale:g}") for scale in given})


def _target(target: Target | None, guidance: GuidanceName, lpips: Path | None) -> Target:
    """What was asked for or goes with the guidance, and can be measured here."""
    from ornstein.pictures import lite0

    if target is None:
        target = "spectrum" if guidance != "perceptual" else "lite0" if lpips is None else "lpips"
    if target == "lpips" and lpips is None:
        raise UserError("LPIPS needs the weights of AlexNet; give them with --lpips FILE, or another --target")
    if target == "lite0" and not lite0.available():
        raise UserError(f"the Lite0 distance needs {lite0.NEEDS}; install it, or give another --target")
    return target


def _with(infrared: Infrared, guidance: GuidanceName, scale: float, features: str | None) -> Infrared:
    """The same network, guided so strongly; 0 is not at all."""
    other = copy.copy(infrared)
    other.guidance = guide(guidance, other.scale, scale, features) if scale else None
    return other


def _sorted_out(
    results: "dict[tuple[int, str], Result]", work: "Work", frames: int
) -> tuple[list[int], dict[int, str]]:
    """The frames with all scores, and what is wrong with the others, which is printed."""
    failed = {
        index: f"{found.file}: {found.error}"
        for index in range(frames)
        for name in work.names
        if (found := results[index, name]).error
    }
    for message in failed.values():
        print(f"failed: {message}", file=sys.stderr)
    if len(failed) == frames:
        raise UserError(f"all {frames} frames failed, see above")
    return [index for index in range(frames) if index not in failed], failed


def _scores(results: "list[Result]") -> dict[str, list[float]]:
    names = [name for name in ("psnr_gray", *get_args(Target)) if all(name in result.scores for result in results)]
    return {name: [result.scores[name] for result in results] for name in names}


def _summary(choice: "Choice", target: Target, largest_loss: float) -> dict[str, Any]:
    tried = [
        {
            "guidance_scale": each.strength,
            "target": each.target._asdict(),
            "change": each.change._asdict(),
            "psnr_loss": each.loss._asdict(),
            "allowed": each.allowed,
        }
        for each in choice.candidates
    ]
    return {"guidance_scale": choice.strength, "target": target, "largest_loss": largest_loss, "tried": tried}


def _print(choice: "Choice", guidance: GuidanceName, target: Target, features: str | None) -> None:
    from ornstein.report import text_table
    from ornstein_infrared.trial import NAMES

    rows = [
        [
            f"{each.strength:g}",
            str(each.target),
            *([str(each.change), str(each.loss)] if each.strength else ["-", "-"]),
            "chosen" if each.strength == choice.strength else "" if each.allowed else "loses too much",
        ]
        for each in choice.candidates
    ]
    print(text_table(["scale", NAMES[target], "change", "PSNR lost (dB)", ""], rows))
    if choice.strength:
        more = "" if features is None else f" --features {features}"
        print(f"best: --guidance {guidance} --guidance_scale {choice.strength:g}{more}")
    else:
        print(f"best: --guidance off; no scale improves {NAMES[target]} at a PSNR that is allowed")
