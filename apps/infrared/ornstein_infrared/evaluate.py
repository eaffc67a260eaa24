"""Scores of checkpoints, and of the bicubic enlargement, on frames whose clean versions are known."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ornstein.errors import UserError
from ornstein.pictures.evaluation import Evaluation, about_system, check_counts, choose_systems, common_scale
from ornstein.pictures.restorer import PrecisionName
from ornstein.pictures.results import VERSION
from ornstein.pictures.solvers import SamplerName
from ornstein.pictures.systems import System, load
from ornstein.scoring import begin, refuse_data_folder
from ornstein.spread import spread
from ornstein_infrared.guidance import GuidanceName
from ornstein_infrared.layouts import Layout, Split, find_pairs
from ornstein_infrared.upscaler import Infrared

if TYPE_CHECKING:
    from ornstein_infrared.degradations import Degradation
    from ornstein_infrared.trial import FrameTrial

DegradationName = Literal["bicubic", "real-esrgan", "thermal"]


def evaluate(
    data: Path,
    *,
    checkpoint: Path | list[Path] | None = None,
    output: Path | None = None,
    steps: int | list[int] | None = None,
    sampler: SamplerName | list[SamplerName] | None = None,
    guidance: GuidanceName | list[GuidanceName] = "off",
    guidance_scale: float | None = None,
    features: str | None = None,
    systems: list[str] | None = None,
    baseline: bool = True,
    layout: Layout = "pairs",
    degradation: DegradationName | None = None,
    scale: int | None = None,
    gain: float | None = None,
    offset: float | None = None,
    lpips: Path | None = None,
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
    """Score checkpoints, and the bicubic enlargement, on frames with a reference.

    Prints means with 95 % confidence intervals over frames, what each system adds to the enlargement, and the first
    system to the others, frame by frame. Systems are given the measured frame alone: nothing that they do, guidance
    included, can see the clean one. With --output every score is kept as soon as it is made: after an interruption the
    same command goes on. Started by torchrun or srun, the processes share the frames, and the first one writes the
    results. A frame that cannot be read or scored is left out for all systems and told of at the end, with code 2.

    Args:
        data: Folder of the test set, in one of the layouts.
        checkpoint: Weights to score, one or several.
        output: Folder for scores.csv (one line per frame and system), summary.json and report.html (crops, spectra).
        steps: Numbers of sampler steps to compare, for example 1 4 15. Default: the number stored in the checkpoint.
        sampler: One or several, see `upscale`; all checkpoints, samplers and steps are combined. Default: stored in the
            checkpoint.
        guidance: One or several of off, spectrum, perceptual and both; each for every system that is no regression.
        guidance_scale: See `upscale`.
        features: See `upscale`.
        systems: Instead of checkpoint, sampler and steps, a list of CHECKPOINT:SAMPLER:STEPS, for example
            a.safetensors:ode:5; empty parts are as stored.
        baseline: Score the enlargement, too.
        layout: pairs, flat, roadscene, m3fd, tno, fmb, msrs, llvip or flir_adas, see docs/infrared.md.
        degradation: Makes the measured frames where the set has none: bicubic, real-esrgan or thermal. Default:
            Pillow's bicubic filter on the stored values.
        scale: How many times larger the clean frames are. Default: that of the checkpoints, or 4.
        gain: What one count of the files means, see `upscale`; with it errors are also given in kelvin.
        offset: Temperature of the count 0.
        lpips: Weights of AlexNet for LPIPS, see docs/restoration-metrics.md.
        seeds: Of the noise of the systems; a frame's scores are means over them.
        data_seed: Of the degradation.
        limit: Use so many frames only, spread over the set.
        device: auto, cpu, cuda or cuda:N.
        tile: Side of the tiles of large frames, see `upscale`.
        overlap: Of neighbouring tiles, see `upscale`.
        batch: Tiles that go through a GPU at once.
        precision: Of the network, see `upscale`.
        compile: Compile the network first, see `upscale`.
        examples: Frames to show in the report, besides the worst, the median and the best one; 0 for none at all.
        workers: Processes for the scores beside the one that enlarges; 0 works in this one.
        overwrite: Replace the files of an earlier evaluation, finished or not.
        quiet: No progress bar and no table.

    Returns:
        What summary.json holds; nothing in the processes of torchrun or srun that do not write it.

    Raises:
        UserError: the data or an option cannot be used, or frames failed.
    """
    check_counts(limit, workers, examples, seeds, scale)
    chosen = choose_systems(systems, checkpoint, sampler, steps, baseline)
    output = None if output is None else Path(output)
    refuse_data_folder(output, Path(data))
    own = begin(output, overwrite)
    if own is None:
        return {}
    options: dict[str, Any] = {
        "device": own.device(device),
        "tile": tile,
        "overlap": overlap,
        "batch": batch,
        "precision": precision,
        "compile": compile,
    }
    guides: list[GuidanceName] = list(guidance) if isinstance(guidance, list) else [guidance]
    restorers, about = _load(chosen, guides, guidance_scale, features, options)
    scale = scale or common_scale(restorers, 4)
    trial = held_out(Path(data), layout, degradation, scale, limit, data_seed, gain, offset, lpips)
    from ornstein.pictures import lite0
    from ornstein_infrared import trial as trials

    if own.rank == 0 and not quiet:
        lite0.say_if_missing()
    settings = {
        "version": VERSION,
        "data": str(data),
        "names": [pair.name for pair in trial.pairs],
        "degradation": degradation,
        "scale": scale,
        "temperatures": [gain, offset],
        "lpips": None if lpips is None else str(lpips),
        "lite0": lite0.available(),
        "seeds": seeds,
        "data_seed": data_seed,
        "tiles": [tile, overlap],
        "precision": [next(iter(restorers.values())).precision if restorers else "", compile],
        "systems": about,
        "baseline": baseline,
        "examples": examples,
    }
    names = list(restorers)
    evaluation = Evaluation(
        restorers,
        about,
        trial,
        len(trial.pairs),
        baseline,
        trials.NAMES,
        settings,
        seeds,
        "Infrared super-resolution: evaluation",
        read=trials.read_png,
        truth=lambda index: trial.item(index).truth,
        more=trials.spectra_png,
        pairs=[(other, names[0]) for other in names[1:]],
    )
    summary = {
        "data": str(data),
        "degradation": degradation,
        "scale": scale,
        "checkpoint": ", ".join(dict.fromkeys(str(system.checkpoint) for system in chosen)) or "none",
        "data_seed": data_seed,
    }
    return evaluation.run(own, output, summary, workers=workers, examples=examples, quiet=quiet)


def _load(
    chosen: list[System],
    guides: list[GuidanceName],
    strength: float | None,
    features: str | None,
    options: dict[str, Any],
) -> tuple[dict[str, Infrared], dict[str, Any]]:
    """Every system with every guidance, by name, and what each of them is."""
    restorers: dict[str, Infrared] = {}
    about: dict[str, Any] = {}
    for name in dict.fromkeys(guides):
        how: dict[str, Any] = {"guidance": name}
        if name != "off":
            how |= {"guidance_scale": strength, "features": features if name != "spectrum" else None}
        found = load(chosen, partial(Infrared, **options, **how))
        for system, (title, one) in zip(chosen, found.items(), strict=True):
            if name != "off" and one.is_regression:
                if guides == [name]:
                    raise UserError(f"{system.checkpoint} is a regression model, which no guidance changes")
                continue
            key = title if name == "off" else f"{title}, {name}"
            restorers[key] = one
            guided = {} if one.guidance is None else {"guidance": one.guidance.described()}
            about[key] = about_system(system, one) | guided
    return restorers, about


def held_out(
    data: Path,
    layout: Layout = "pairs",
    degradation: DegradationName | None = None,
    scale: int = 4,
    limit: int | None = None,
    seed: int = 0,
    gain: float | None = None,
    offset: float | None = None,
    lpips: Path | None = None,
    split: Split = "test",
) -> "FrameTrial":
    """The frames of a split of `data`, see `evaluate`; the same measured ones for the same seed.

    Raises:
        UserError: the data are not of the layout, or the options do not go together.
    """
    from ornstein_infrared.trial import FrameTrial
    from ornstein_infrared.upscale import temperature_scale

    pairs = spread(find_pairs(data, layout, split, scale=scale, seed=seed), limit)
    if degradation is not None and any(pair.lq is not None for pair in pairs):
        raise UserError(f"{data} has measured frames of its own; leave --degradation out")
    if lpips is not None:
        from ornstein.pictures.lpips import Lpips

        Lpips(lpips)  # what is wrong with the file is said before the work
    made = None if degradation is None else _degradation(degradation, scale)
    return FrameTrial(pairs, scale, made, None, temperature_scale(gain, offset), lpips, seed)


def _degradation(name: DegradationName, scale: int) -> "Degradation":
    from ornstein_infrared import degradations

    match name:
        case "bicubic":
            return degradations.Bicubic(scale)
        case "real-esrgan":
            return degradations.RealESRGAN(scale)
        case "thermal":
            return degradations.Thermal(scale)
