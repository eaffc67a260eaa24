"""From a training checkpoint to a file for the other verbs, or to files in the published layout."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ornstein.errors import UserError
from ornstein.files import check_target

if TYPE_CHECKING:
    from torch import Tensor

    from ornstein.latent import LatentDenoiser
    from ornstein.samplers.base import Sampler


def export(
    checkpoint: Path,
    output: Path,
    *,
    layout: Literal["own", "published"] = "own",
    weights: Literal["ema", "raw"] = "ema",
    average: str | None = None,
    half: bool = True,
    autoencoder: Path | None = None,
    note: str = "",
    overwrite: bool = False,
) -> Path:
    """Turn a checkpoint of `fit` into a safetensors file with its configuration inside.

    With `--layout published` it becomes a .pth file as the code of ResShift and DifIISR reads it, in float32: the
    Swin-UNet under `state_dict`, the autoencoder a state dict. The options that such a file does not store, and that
    `import` needs, are printed.

    Args:
        checkpoint: The .ckpt file that fit wrote; for the published layout also one of our .safetensors files.
        output: The file to write: .safetensors, or .pth in the published layout.
        layout: own, or published.
        weights: The averaged weights (ema) or those of the last step (raw).
        average: Which average, where the run kept several. Default: the first.
        half: Store in float16, half the size; loaded as float32. Only in our own layout.
        autoencoder: In the published layout: the file to write the autoencoder of the latents to.
        note: A line about data and purpose, kept in the file. Only in our own layout.
        overwrite: Replace an existing file.

    Returns:
        The file written.

    Raises:
        UserError: not such a checkpoint, no averaged weights, something that the layout cannot say, or an unwritable
            target.
    """
    from ornstein.checkpoint import export as export_checkpoint

    if layout == "published":
        if note:
            raise UserError("--note is for our own layout; leave it out")
        for remark in publish(checkpoint, output, weights, average, autoencoder, overwrite):
            print(f"note: {remark}", file=sys.stderr)
    else:
        if autoencoder is not None:
            raise UserError("--autoencoder is for --layout published; our own files hold both networks")
        export_checkpoint(
            checkpoint,
            output,
            app="infrared",
            weights=weights,
            average=average,
            half=half,
            note=note,
            overwrite=overwrite,
        )
    print(output)
    return output


def publish(
    source: Path,
    target: Path,
    weights: str = "ema",
    average: str | None = None,
    autoencoder: Path | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Write `source`, a .ckpt of fit or one of our .safetensors files, in the published layout; return remarks.

    Whatever would come back different from `import` is refused.

    Raises:
        UserError: not our file, something that the published layout cannot say, or an unwritable target.
    """
    from ornstein.latent import LatentDenoiser
    from ornstein.networks.vq import VQAutoencoder
    from ornstein.published_files import plain_copy, write
    from ornstein.published_shift import computed
    from ornstein.trained import read

    check_target(target, overwrite)
    if target.suffix != ".pth":
        raise UserError(f"{target} is no name for it; published files end in .pth")
    model = read(source, "infrared", weights, average)
    denoiser = model.denoiser
    stored = model.raw if model.averaged is None else model.averaged

    def of(part: str) -> "dict[str, Tensor]":
        return {n.removeprefix(part): plain_copy(t) for n, t in stored.items() if n.startswith(part)}

    if isinstance(denoiser.network, VQAutoencoder):
        if autoencoder is not None:
            raise UserError(f"{source} is an autoencoder; leave --autoencoder out")
        write(target, of("network."), overwrite)
        return []
    if not isinstance(denoiser, LatentDenoiser):
        raise UserError(f"{source} works without an autoencoder, which no published code does; export it in our own")
    if autoencoder is not None:
        if autoencoder.resolve() == target.resolve():
            raise UserError(f"{autoencoder} would hold both networks; choose another name for --autoencoder")
        check_target(autoencoder, overwrite)
    tensors = of("network.") | computed(denoiser.network)
    remarks: list[str] = []
    options = _check(source, target, denoiser, tensors)
    options |= _steps(target, model.sampler, denoiser, remarks)
    if autoencoder is None:
        remarks.append("its autoencoder is left out; --autoencoder FILE writes it, too")
    else:
        write(autoencoder, of("autoencoder."), overwrite)
    write(target, {"state_dict": tensors}, overwrite)
    if options:
        said = " ".join(f"--{name} {value}" for name, value in options.items())
        remarks.append(f"it does not say all of this; import it with {said}")
    return remarks


def _steps(target: Path, sampler: "Sampler | None", denoiser: "LatentDenoiser", remarks: list[str]) -> dict[str, int]:
    """The option that brings the sampler back, if it takes one; a remark where none does."""
    from ornstein.process.residual_shift import ResidualShift
    from ornstein_infrared.published import sampler_of

    assert isinstance(denoiser.process, ResidualShift)
    levels = denoiser.process.steps
    if sampler is None or sampler == sampler_of(target, levels):
        return {}
    if sampler.steps is not None and sampler == sampler_of(target, levels, sampler.steps):
        return {"steps": sampler.steps}
    remarks.append(f"it does not say how to sample, {sampler}; import gives {sampler_of(target, levels)}")
    return {}


def _check(source: Path, target: Path, denoiser: object, tensors: "dict[str, Tensor]") -> dict[str, float]:
    """Make the model again from what is written; return the options that this takes.

    Raises:
        UserError: it names what comes back different.
    """
    from ornstein.config import describe
    from ornstein.latent import LatentDenoiser
    from ornstein.process.residual_shift import ResidualShift
    from ornstein.published_shapes import Shapes
    from ornstein.published_shift import residual_shift
    from ornstein.trained import difference
    from ornstein_infrared.published import components

    assert isinstance(denoiser, LatentDenoiser)
    process = denoiser.process
    if type(process) is not ResidualShift:
        raise UserError(f"{source}: the published layout has ResidualShift only, not {process}; export it in our own")
    named = residual_shift(target)
    options: dict[str, float] = {} if process.steps == named.steps else {"schedule_steps": process.steps}
    usual = residual_shift(target, process.steps)
    for name in ("noise_scale", "power", "min_noise"):
        if getattr(process, name) != getattr(usual, name):
            options[name] = getattr(process, name)
    settings: dict[str, float] = {n: v for n, v in options.items() if n != "schedule_steps"}
    again, _, _ = components(
        Shapes(tensors, target), tensors, denoiser.autoencoder, process.steps, None, None, **settings
    )
    free = ("dropout", "attention_resolutions")  # what no result depends on, and what names and shapes say
    ours, theirs = describe(denoiser), describe(again)
    for spec in (ours, theirs):
        network = spec["init_args"]["network"]
        network["init_args"] = {n: v for n, v in network["init_args"].items() if n not in free}
    if ours != theirs:
        raise UserError(
            f"{source}: the published layout cannot say all of it; it would come back with {difference(ours, theirs)}; "
            "export it in our own"
        )
    return options
