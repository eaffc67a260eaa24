"""Enlarge infrared frames: from files to files."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ornstein import jobs
from ornstein.errors import UserError
from ornstein.files import check_target
from ornstein.pictures.restorer import BlendName, PrecisionName
from ornstein.pictures.solvers import SamplerName
from ornstein_infrared.guidance import GuidanceName
from ornstein_infrared.upscaler import Infrared

if TYPE_CHECKING:
    from ornstein_infrared.normalization import Normalization
    from ornstein_infrared.thermal import Scale


def upscale(
    inputs: Path | str | list[Path] | list[str],
    output: Path | str,
    *,
    checkpoint: Path | str | None = None,
    steps: int | None = None,
    sampler: SamplerName | None = None,
    guidance: GuidanceName = "off",
    guidance_scale: float | None = None,
    features: str | None = None,
    range: list[float] | None = None,
    page: int | None = None,
    gain: float | None = None,
    offset: float | None = None,
    counts: bool = False,
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
    """Enlarge infrared frames of any size, four times with the shipped weights.

    The result has the bit depth, the temperature scale and the metadata of the file. A folder is searched at any depth
    and its structure is kept; files that fail are reported, the others are done.

    Args:
        inputs: A frame (PNG, JPEG, TIFF, BMP, radiometric JPEG, FFF, SEQ), a folder, or a list of frames.
        output: File to write, or a folder when the input is a folder or a list. The suffix gives the format.
        checkpoint: Weights to use: a .safetensors file of this project. Default: the shipped ones.
        steps: Steps of the sampler; fewer are faster. Default: stored in the checkpoint.
        sampler: How to step: sde, ode (deterministic), 2m, heun, unipc or ghvb (second order and more). Default: stored
            in the checkpoint.
        guidance: Pull the result towards the spectrum or the features of the input: off, spectrum, perceptual or both.
        guidance_scale: How far each step is pulled, as a share of half the range. Default: 0.01.
        features: What perceptual guidance looks at: weights of a small encoder, or filters. Default: the shipped one.
        range: The lowest and the highest value that the network sees, in the unit of the file, for example 10 40: for
            videos, or to compare temperatures. Default: 0 255 for levels, percentiles of each frame for the rest.
        page: Of a file with several frames, from 0.
        gain: What one count of the file means, for example 0.04 (kelvin), where the file does not say it.
        offset: Temperature of the count 0, for example -273.15.
        counts: Leave radiometric files in raw counts.
        device: auto, cpu, cuda or cuda:N.
        seed: Of the random draws; the same seed gives the same result, whatever else is in the folder.
        tile: Side of the tiles of large frames, in pixels of the input; 0 for none. Default: results up to 1024
            pixels are made whole, larger ones in tiles of 512 pixels of the result.
        overlap: Of neighbouring tiles, in pixels of the input. Default: an eighth of a tile.
        blend: What of the tiles is blended: outputs, or the estimates in all steps (memory grows with the frame).
        batch: Tiles that go through a GPU at once.
        precision: Of the network: float32, bfloat16, float16, or auto: bfloat16 on a GPU, float32 on a CPU.
        compile: Compile the network first: a minute or more, then faster on a GPU; for many frames of one size.
        overwrite: Replace existing files.
        quiet: No progress bar, no list of written files and no notes.

    Returns:
        The files written.

    Raises:
        UserError: an input cannot be read, an output not be written, or options do not fit.
    """
    from ornstein_infrared import thermal

    work = jobs.find_jobs(inputs, Path(output), thermal.FRAMES)
    for _, target in work:  # before the work
        if target.suffix.lower() not in (*thermal.FRAMES.writable, ".jpg", ".jpeg"):
            raise UserError(f"{target} has no suffix of a frame; use one of {', '.join(thermal.FRAMES.writable)}")
    normalization = _range(range)
    scale = temperature_scale(gain, offset)
    infrared = Infrared(
        checkpoint,
        steps=steps,
        sampler=sampler,
        guidance=guidance,
        guidance_scale=guidance_scale,
        features=features,
        device=device,
        tile=tile,
        overlap=overlap,
        blend=blend,
        batch=batch,
        precision=precision,
        compile=compile,
    )

    def enlarge_file(source: Path, target: Path, on_progress: Callable[[float], None]) -> None:
        check_target(target, overwrite)
        frame = thermal.read(source, page, scale=scale, counts=counts)
        if target.suffix.lower() not in frame.suffixes and frame.unit != "levels":  # before the work
            raise UserError(f"{target}: a frame like its input goes into a file {' or '.join(frame.suffixes)}")
        values = infrared(frame, normalization, seed=seed, on_progress=on_progress)
        thermal.write(target, values, like=frame, overwrite=overwrite)
        for note in () if quiet else frame.notes:
            print(f"note: {source}: {note}", file=sys.stderr)

    return jobs.run_jobs(work, enlarge_file, "frames", quiet, jobs.unread(inputs, Path(output), thermal.FRAMES))


def _range(ends: list[float] | None) -> "Normalization | None":
    if ends is None:
        return None
    if len(ends) != 2:
        raise UserError(f"--range wants the lowest and the highest value, not {len(ends)}; write for example 10 40")
    from ornstein_infrared.normalization import FixedRange

    return FixedRange(*ends)


def temperature_scale(gain: float | None, offset: float | None) -> "Scale | None":
    """Degrees Celsius of counts; None where nothing is said."""
    if gain is None and offset is None:
        return None
    from ornstein_infrared.thermal import Scale

    return Scale(1.0 if gain is None else gain, 0.0 if offset is None else offset)
