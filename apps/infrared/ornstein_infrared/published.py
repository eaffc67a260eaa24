"""Published checkpoints of DifIISR, ResShift and SinSR and of their autoencoder, read into our components."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ornstein.errors import UserError
from ornstein.files import check_target
from ornstein.published_shapes import Shapes

if TYPE_CHECKING:
    from ornstein.denoiser import Denoiser
    from ornstein.samplers.base import Sampler
    from ornstein_infrared.representation import ThermalSpace

MULTIPLE = 64
"""Sides of the measured frame are padded to a multiple of this, as published."""


def import_checkpoint(
    checkpoint: Path,
    output: Path,
    *,
    autoencoder: Path | None = None,
    schedule_steps: int | None = None,
    noise_scale: float | None = None,
    power: float | None = None,
    min_noise: float | None = None,
    image_size: int | None = None,
    steps: int | None = None,
    half: bool = False,
    overwrite: bool = False,
) -> Path:
    """Convert a published checkpoint into a safetensors file.

    The architecture is read from the tensors. What a file does not store is an option, as published by default. The
    autoencoder alone (autoencoder_vq_f4.pth) becomes a file that is given as the autoencoder elsewhere.

    Args:
        checkpoint: DifIISR.pth, a ResShift or SinSR .pth, or an autoencoder. It is read without running anything in it.
        output: The .safetensors file to write.
        autoencoder: The autoencoder of the latents, autoencoder_vq_f4.pth or one of our files.
        schedule_steps: T, steps of the training schedule. Default: as in the name (_s4), or 15.
        noise_scale: kappa. Default: 2.
        power: Exponent of the schedule. Default: 0.3.
        min_noise: Noise of the first step. Default: 0.2 with 4 steps, else 0.04.
        image_size: The option of that name, for a file without masks. Default: 64.
        steps: Steps of the sampler to keep in the file. Default: 1 for DifIISR and SinSR, as published, else T.
        half: Store in float16, half the size; loaded as float32.
        overwrite: Replace an existing file.

    Returns:
        The file written.

    Raises:
        UserError: not such a checkpoint, weights of another shape, no autoencoder, or an unwritable target.
    """
    import torch

    from ornstein.checkpoint import save
    from ornstein.published_files import read_weights
    from ornstein.published_shift import read_autoencoder, reconstruction, vq_autoencoder

    check_target(output, overwrite)
    tensors = read_weights(checkpoint)
    shapes = Shapes(tensors, checkpoint)
    settings = {"noise_scale": noise_scale, "power": power, "min_noise": min_noise}
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    info = {"source": checkpoint.name}
    representation: ThermalSpace | None = None
    sampler: Sampler | None = None
    if "quantize.embedding.weight" in shapes:
        if autoencoder is not None or schedule_steps is not None or steps is not None or given:
            raise UserError(f"{checkpoint} is an autoencoder, which has no schedule; leave the options out")
        denoiser: Denoiser = reconstruction(vq_autoencoder(tensors, checkpoint))
    elif "input_blocks.0.0.weight" in shapes:
        if autoencoder is None:
            raise UserError(f"{checkpoint} works on latents; add --autoencoder autoencoder_vq_f4.pth")
        denoiser, representation, sampler = components(
            shapes, tensors, read_autoencoder(autoencoder, "infrared"), schedule_steps, steps, image_size, **given
        )
        info["autoencoder"] = autoencoder.name
    else:
        some = ", ".join(list(tensors)[:3])
        raise UserError(f"{checkpoint} holds neither a Swin-UNet nor an autoencoder ({some}, ...); give another file")
    save(
        output,
        denoiser.eval(),
        app="infrared",
        representation=representation,
        sampler=sampler,
        info=info,
        dtype=torch.float16 if half else None,
        weights="raw",
        overwrite=overwrite,
    )
    if representation is None:
        print("note: it is an autoencoder; give it to import, encode and recipes", file=sys.stderr)
    print(output)
    return output


def components(
    shapes: Shapes,
    tensors: Any,
    autoencoder: Any,
    schedule_steps: int | None = None,
    steps: int | None = None,
    image_size: int | None = None,
    **settings: Any,
) -> "tuple[Denoiser, ThermalSpace, Sampler]":
    """Denoiser, representation and sampler of a published file.

    Args:
        shapes: of its tensors.
        tensors: its weights by their published names, without prefixes.
        autoencoder: of the latents.
        schedule_steps: T.
        steps: of the sampler.
        image_size: for a file without masks.
        settings: other arguments of the process.

    Raises:
        UserError: weights of another network, or settings that do not fit it.
    """
    from ornstein.published_shift import on_latents, residual_shift
    from ornstein_infrared.representation import ThermalSpace

    path = shapes.path
    process = residual_shift(path, schedule_steps, **settings)
    denoiser = on_latents(shapes, tensors, process, autoencoder, image_size)
    if autoencoder.in_channels not in (1, 3):
        raise UserError(f"{path}: its autoencoder takes {autoencoder.in_channels} channels; give one of 1 or 3")
    if steps is not None and not 1 <= steps <= process.steps:
        raise UserError(f"--steps {steps} must be at least 1 and at most {process.steps}, the levels of the file")
    space = ThermalSpace(
        scale=4, channels=autoencoder.in_channels, factor=autoencoder.factor, multiple=MULTIPLE, bound=1.0
    )
    return denoiser, space, sampler_of(path, process.steps, steps)


def sampler_of(path: Path, levels: int, steps: int | None = None) -> "Sampler":
    """How a published file of this name samples: DifIISR and SinSR in one step, others in as many as there are levels.

    The one step is that of the deterministic sampler: x0 at the last level.
    """
    from ornstein.samplers.ancestral import Ancestral

    one = path.stem.lower().startswith(("difiisr", "sinsr"))
    count = (1 if one else levels) if steps is None else steps
    return Ancestral(count, eta=0.0 if count == 1 else 1.0)
