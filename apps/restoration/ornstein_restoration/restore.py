"""Restore and enlarge pictures: from files to files."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ornstein import jobs
from ornstein.errors import UserError
from ornstein.files import check_target
from ornstein.pictures.restorer import BlendName, PrecisionName
from ornstein.pictures.solvers import SamplerName
from ornstein_restoration.restorer import Restorer

TaskName = Literal["low-light", "rain", "shadow"]

WEIGHTS = Path(__file__).parent / "weights"
UPSCALE = "upscale"
"""Name of the shipped weights of `upscale`; those of `restore` are called like its tasks."""


def restore(
    inputs: Path | str | list[Path] | list[str],
    output: Path | str,
    *,
    task: TaskName | None = None,
    checkpoint: Path | str | None = None,
    mask: Path | str | None = None,
    steps: int | None = None,
    sampler: SamplerName | None = None,
    device: str = "auto",
    seed: int = 0,
    tile: int | None = None,
    overlap: int | None = None,
    blend: BlendName = "outputs",
    batch: int = 1,
    precision: PrecisionName = "auto",
    compile: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> list[Path]:
    """Take darkness, rain or a shadow out of pictures of any size.

    A folder is searched at any depth and its structure is kept; files that fail are reported, the others are done.

    Args:
        inputs: A picture, a folder, or a list of pictures.
        output: File to write, or a folder when the input is a folder or a list. The suffix gives the format.
        task: Which shipped weights to use: low-light, rain or shadow.
        checkpoint: Weights to use instead: a .safetensors file of this project.
        mask: For models that want the degraded region: a picture that is white there, or a folder with one of the same
            name for every input.
        steps: Steps of the sampler; fewer are faster. Default: stored in the checkpoint.
        sampler: How to step: sde, ode (deterministic), 2m, heun, unipc or ghvb (second order and more). Default: stored
            in the checkpoint.
        device: auto, cpu, cuda or cuda:N.
        seed: Of the random draws; the same seed gives the same result, whatever else is in the folder.
        tile: Side of the tiles of large pictures, in pixels of the input; 0 for none. Default: pictures up to 1024
            pixels are done whole, larger ones in tiles of 512.
        overlap: Of neighbouring tiles, in pixels of the input. Default: an eighth of a tile.
        blend: What of the tiles is blended: outputs, or the estimates in all steps (memory grows with the picture).
        batch: Tiles that go through a GPU at once.
        precision: Of the network: float32, bfloat16, float16, or auto: bfloat16 on a GPU, float32 on a CPU.
        compile: Compile the network first: a minute or more, then faster on a GPU; for many pictures of one size.
        overwrite: Replace existing files.
        quiet: No progress bar and no list of written files.

    Returns:
        The files written.

    Raises:
        UserError: an input cannot be read, an output not be written, or options do not fit.
    """
    if task is None and checkpoint is None:
        raise UserError("say what to take out with --task low-light, rain or shadow, or name a --checkpoint FILE")
    if task is not None and checkpoint is not None:
        raise UserError("--task chooses the shipped weights; leave it or --checkpoint out")
    work, others = _find_jobs(inputs, Path(output))
    restorer = Restorer(
        checkpoint if checkpoint is not None else shipped(str(task)),
        steps=steps,
        sampler=sampler,
        device=device,
        tile=tile,
        overlap=overlap,
        blend=blend,
        batch=batch,
        precision=precision,
        compile=compile,
    )
    if restorer.scale != 1:
        raise UserError(f"this checkpoint enlarges pictures {restorer.scale} times; use `ornstein restoration upscale`")
    return _run(restorer, work, others, None if mask is None else Path(mask), seed, overwrite, quiet)


def upscale(
    inputs: Path | str | list[Path] | list[str],
    output: Path | str,
    *,
    checkpoint: Path | str | None = None,
    steps: int | None = None,
    sampler: SamplerName | None = None,
    device: str = "auto",
    seed: int = 0,
    tile: int | None = None,
    overlap: int | None = None,
    blend: BlendName = "outputs",
    batch: int = 1,
    precision: PrecisionName = "auto",
    compile: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> list[Path]:
    """Enlarge pictures of any size, four times with the shipped weights.

    A folder is searched at any depth and its structure is kept; files that fail are reported, the others are done.

    Args:
        inputs: A picture, a folder, or a list of pictures.
        output: File to write, or a folder when the input is a folder or a list. The suffix gives the format.
        checkpoint: Weights to use: a .safetensors file of this project. Default: the shipped ones.
        steps: Steps of the sampler; fewer are faster. Default: stored in the checkpoint.
        sampler: How to step: sde, ode (deterministic), 2m, heun, unipc or ghvb (second order and more). Default: stored
            in the checkpoint.
        device: auto, cpu, cuda or cuda:N.
        seed: Of the random draws; the same seed gives the same result, whatever else is in the folder.
        tile: Side of the tiles of large pictures, in pixels of the input; 0 for none. Default: results up to 1024
            pixels are made whole, larger ones in tiles of 512 pixels of the result.
        overlap: Of neighbouring tiles, in pixels of the input. Default: an eighth of a tile.
        blend: What of the tiles is blended: outputs, or the estimates in all steps (memory grows with the picture).
        batch: Tiles that go through a GPU at once.
        precision: Of the network: float32, bfloat16, float16, or auto: bfloat16 on a GPU, float32 on a CPU.
        compile: Compile the network first: a minute or more, then faster on a GPU; for many pictures of one size.
        overwrite: Replace existing files.
        quiet: No progress bar and no list of written files.

    Returns:
        The files written.

    Raises:
        UserError: an input cannot be read, an output not be written, or options do not fit.
    """
    work, others = _find_jobs(inputs, Path(output))
    restorer = Restorer(
        checkpoint if checkpoint is not None else shipped(UPSCALE),
        steps=steps,
        sampler=sampler,
        device=device,
        tile=tile,
        overlap=overlap,
        blend=blend,
        batch=batch,
        precision=precision,
        compile=compile,
    )
    if restorer.scale == 1:
        raise UserError("this checkpoint keeps the size of pictures; use `ornstein restoration restore`")
    return _run(restorer, work, others, None, seed, overwrite, quiet)


def shipped(name: str) -> Path:
    """The weights of this installation called `name`.

    Raises:
        UserError: there are none.
    """
    path = WEIGHTS / f"{name}.safetensors"
    if not path.is_file():
        raise UserError(f"this installation has no shipped weights for {name}; name some with --checkpoint FILE")
    return path


def _find_jobs(inputs: Path | str | list[Path] | list[str], output: Path) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Source and target of every picture, and the files of other kinds beside them."""
    from ornstein_restoration import images

    formats = tuple(images.FORMATS)
    kind = jobs.FileKind("picture", images.find, formats, formats, ".png")
    work = jobs.find_jobs(inputs, output, kind)
    for _, target in work:  # before the work
        if target.suffix.lower() not in formats:
            raise UserError(f"{target} has no suffix of a picture; use one of {', '.join(formats)}")
    return work, jobs.unread(inputs, output, kind)


def _run(
    restorer: Restorer,
    work: list[tuple[Path, Path]],
    others: list[Path],
    mask: Path | None,
    seed: int,
    overwrite: bool,
    quiet: bool,
) -> list[Path]:
    from ornstein_restoration.generate import generates

    if generates(restorer.model.denoiser):
        raise UserError("this checkpoint makes pictures out of nothing; use `ornstein restoration generate`")

    def restore_file(source: Path, target: Path, on_progress: Callable[[float], None]) -> None:
        _restore_file(restorer, source, target, mask, seed, overwrite, on_progress)

    return jobs.run_jobs(work, restore_file, "pictures", quiet, others)


def _restore_file(
    restorer: Restorer,
    source: Path,
    target: Path,
    mask: Path | None,
    seed: int,
    overwrite: bool,
    on_progress: Callable[[float], None],
) -> None:
    from ornstein_restoration import images
    from ornstein_restoration.datasets import read_mask

    check_target(target, overwrite)
    picture = images.read(source)
    height, width = picture.pixels.shape[1:]
    images.check(target, picture, (restorer.scale * height, restorer.scale * width))  # before the work, not after it
    marked = None if mask is None else read_mask(_mask_of(source, mask))
    result = restorer(picture.pixels, marked, seed=seed, on_progress=on_progress)
    images.write(target, result, like=picture, overwrite=overwrite)


def _mask_of(source: Path, mask: Path) -> Path:
    """The mask of a picture: the file given, or the one of the same name in the folder given.

    Raises:
        UserError: there is none, or several.
    """
    if not mask.is_dir():
        return mask
    found = sorted(path for path in mask.iterdir() if path.stem == source.stem)
    if len(found) != 1:
        raise UserError(f"{mask} holds {len(found)} masks called {source.stem}; one is needed")
    return found[0]
