"""Pictures out of nothing, by a model of residual diffusion that is shown no degraded picture (y = 0, R = -x0)."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ornstein.errors import UserError
from ornstein.files import check_target
from ornstein.pictures.restorer import PrecisionName
from ornstein.pictures.solvers import SamplerName
from ornstein.training.seeds import derive_seed

if TYPE_CHECKING:
    from torch import Tensor

    from ornstein.denoiser import Denoiser
    from ornstein_restoration.restorer import Restorer

SIDE = 32
"""Of a picture, where neither the user nor the network says it: that of CIFAR-10."""


def generate(
    checkpoint: Path | str,
    output: Path | str,
    *,
    count: int = 16,
    first: int = 0,
    size: int | None = None,
    steps: int | None = None,
    sampler: SamplerName | None = None,
    device: str = "auto",
    seed: int = 0,
    batch: int = 16,
    precision: PrecisionName = "auto",
    compile: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> list[Path]:
    """Draw pictures from a model of generation into a folder: 00000.png, 00001.png, ...

    Picture i is the same for the same seed, whatever the count and the batch.

    Args:
        checkpoint: Weights: a .safetensors file of this project.
        output: Folder for the pictures.
        count: How many.
        first: Number of the first one; an interrupted run goes on from there.
        size: Side of the squares. Default: that of the network, or 32.
        steps: Steps of the sampler; fewer are faster. Default: stored in the checkpoint.
        sampler: How to step, see `restore`. Default: stored in the checkpoint.
        device: auto, cpu, cuda or cuda:N.
        seed: Of the random draws.
        batch: Pictures that are drawn at once.
        precision: Of the network, see `restore`.
        compile: Compile the network first, see `restore`.
        overwrite: Replace existing files.
        quiet: No progress bar and no list of written files.

    Returns:
        The files written.

    Raises:
        UserError: the checkpoint restores, an option cannot be used, or a file exists.
    """
    from tqdm import tqdm

    from ornstein_restoration import images
    from ornstein_restoration.restorer import Restorer

    if count < 1 or batch < 1 or first < 0 or (size is not None and size < 1):
        raise UserError(f"count {count}, batch {batch} and size {size} must be at least 1, first {first} at least 0")
    restorer = Restorer(checkpoint, steps=steps, sampler=sampler, device=device, precision=precision, compile=compile)
    if not generates(restorer.model.denoiser):
        raise UserError(f"{checkpoint} restores pictures; use `ornstein restoration restore` or upscale")
    side = _side(restorer.model.denoiser) if size is None else size
    numbers = range(first, first + count)
    targets = [check_target(Path(output) / f"{number:05d}.png", overwrite) for number in numbers]
    shown = "{l_bar}{bar}| {n:.1f}/{total} pictures [{elapsed}<{remaining}]"
    with tqdm(total=count, disable=True if quiet else None, bar_format=shown) as bar:
        for start in range(0, count, batch):
            seeds = [derive_seed(seed, "sample", i) for i in numbers[start : start + batch]]

            def on_step(done: int, steps: int, share: int = len(seeds)) -> None:
                bar.update(min(share / steps, bar.total - bar.n))

            pictures = draw(restorer, seeds, side, on_step)
            for target, picture in zip(targets[start : start + batch], pictures, strict=True):
                images.write(target, picture, overwrite=overwrite)
                if not quiet:
                    bar.write(str(target), file=sys.stdout)
    return targets


def draw(
    restorer: "Restorer", seeds: Sequence[int], side: int, on_step: Callable[[int, int], None] | None = None
) -> "Tensor":
    """Pictures (len(seeds), 3, side, side) in [0, 1] on the CPU, each of its own seed."""
    import torch

    from ornstein.noise import SampleNoise

    model = restorer.model
    space = model.representation
    blank = space.pad(torch.full((len(seeds), 3, side, side), 0.5)).to(restorer.device)
    noise = SampleNoise(seeds, restorer.device)
    with torch.inference_mode():
        denoiser, y, condition = model.denoiser.prepare(space.observation(blank))
        assert y is not None
        x = model.sampler(denoiser, denoiser.process.start(noise(y), y), y, noise, on_step, **condition)
        pictures: Tensor = space.inverse(x, (side, side)).float().cpu()
    return pictures


def generates(denoiser: "Denoiser") -> bool:
    """Whether the network is shown no degraded picture."""
    from ornstein.wrapped_parameterizations import HiddenObservation

    return isinstance(denoiser.parameterization, HiddenObservation)


def _side(denoiser: "Denoiser") -> int:
    """Of the pictures that the network was made for; it may be wrapped."""
    for module in denoiser.modules():
        for name in ("input_size", "image_size"):
            if isinstance(side := getattr(module, name, None), int):
                return side
    return SIDE
