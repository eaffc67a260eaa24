"""Scores of checkpoints, and of the input as it is, on degraded pictures whose clean versions are known."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ornstein.errors import UserError
from ornstein.pictures.evaluation import Evaluation, about_system, check_counts, choose_systems, common_scale
from ornstein.pictures.restorer import PrecisionName
from ornstein.pictures.results import VERSION
from ornstein.pictures.solvers import SamplerName
from ornstein.pictures.systems import load
from ornstein.scoring import begin, refuse_data_folder
from ornstein.spread import spread
from ornstein_restoration.benchmarks import NAMES, Protocol
from ornstein_restoration.layouts import Layout, find_pairs

if TYPE_CHECKING:
    from ornstein_restoration.datasets import Degradation, Pictures

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
        layout: pairs, clean, flist, istd, lol, lol_v2, raindrop, realsr or div2k, see docs/restoration.md. Default:
            clean with --degradation, else pairs.
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
    check_counts(limit, workers, examples, seeds, scale)
    chosen = choose_systems(systems, checkpoint, sampler, steps, baseline)
    output = None if output is None else Path(output)
    refuse_data_folder(output, Path(data))
    own = begin(output, overwrite)
    if own is None:
        return {}
    from ornstein_restoration.generate import generates
    from ornstein_restoration.restorer import Restorer

    options: dict[str, Any] = {
        "device": own.device(device),
        "tile": tile,
        "overlap": overlap,
        "batch": batch,
        "precision": precision,
        "compile": compile,
    }
    restorers = load(chosen, partial(Restorer, **options))
    if any(generates(restorer.model.denoiser) for restorer in restorers.values()):
        raise UserError("a model of generation restores nothing that could be compared; leave its checkpoint out")
    scale = scale or common_scale(restorers)
    pictures = held_out(Path(data), layout, degradation, scale, resize, limit, data_seed)
    if degradation is None and not any(pair.gt for pair in pictures.pairs):
        raise UserError(
            f"{data} has no clean partners of its pictures; name a --degradation to make them of clean ones"
        )
    if lpips is not None:
        from ornstein.pictures.lpips import Lpips

        Lpips(lpips)  # what is wrong with the file is said before the work
    from ornstein.pictures import lite0
    from ornstein_restoration import images
    from ornstein_restoration.trial import PictureTrial

    about = {name: about_system(system, restorers[name]) for system, name in zip(chosen, restorers, strict=True)}
    if own.rank == 0 and not quiet and protocol == "default":
        lite0.say_if_missing()
    settings = {
        "version": VERSION,
        "data": str(data),
        "names": [pair.name for pair in pictures.pairs],
        "degradation": degradation,
        "scale": scale,
        "protocol": protocol,
        "lpips": None if lpips is None else str(lpips),
        "lite0": lite0.available(),
        "resize": resize,
        "seeds": seeds,
        "data_seed": data_seed,
        "tiles": [tile, overlap],
        "precision": [next(iter(restorers.values())).precision if restorers else "", compile],
        "systems": about,
        "baseline": baseline,
        "examples": examples,
    }
    evaluation = Evaluation(
        restorers,
        about,
        PictureTrial(pictures, protocol, lpips),
        len(pictures),
        baseline,
        NAMES,
        settings,
        seeds,
        "Image restoration: evaluation",
        read=lambda path: images.read(path).pixels,
        truth=lambda index: pictures[index]["gt"].numpy(),
    )
    summary = {
        "data": str(data),
        "degradation": degradation,
        "scale": scale,
        "protocol": protocol,
        "checkpoint": ", ".join(dict.fromkeys(str(system.checkpoint) for system in chosen)) or "none",
        "data_seed": data_seed,
    }
    return evaluation.run(own, output, summary, workers=workers, examples=examples, quiet=quiet)


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

    layout = layout or ("pairs" if degradation is None else "clean")
    pairs = spread(find_pairs(data, layout, "test", scale=scale, seed=seed), limit)
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
