"""Restore and enlarge pictures: from files to files, or tensors to tensors."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from ornstein import jobs
from ornstein.errors import UserError
from ornstein.files import check_target
from ornstein_restoration.solvers import SamplerName

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor

    from ornstein.acceleration import Acceleration

TaskName = Literal["low-light", "rain", "shadow"]
PrecisionName = Literal["auto", "float32", "bfloat16", "float16"]
BlendName = Literal["outputs", "steps"]

WEIGHTS = Path(__file__).parent / "weights"
UPSCALE = "upscale"
"""Name of the shipped weights of `upscale`; those of `restore` are called like its tasks."""

WHOLE = 1024
"""Sides of a result up to which it is made as a whole, unless the user says otherwise."""
TILE = 512
"""Sides of the tiles of a larger one, in pixels of the result."""


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
        sampler: How to step: sde, ode (deterministic), 2m or heun (second order). Default: stored in the checkpoint.
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
    work = _find_jobs(inputs, Path(output))
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
    return _run(restorer, work, None if mask is None else Path(mask), seed, overwrite, quiet)


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
        sampler: How to step: sde, ode (deterministic), 2m or heun (second order). Default: stored in the checkpoint.
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
    work = _find_jobs(inputs, Path(output))
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
    return _run(restorer, work, None, seed, overwrite, quiet)


def shipped(name: str) -> Path:
    """The weights of this installation called `name`.

    Raises:
        UserError: there are none.
    """
    path = WEIGHTS / f"{name}.safetensors"
    if not path.is_file():
        raise UserError(f"this installation has no shipped weights for {name}; name some with --checkpoint FILE")
    return path


class Restorer:
    """A loaded checkpoint, ready for pictures: `restorer(picture)`.

    Attributes:
        model: network, sampler and representation.
        info: what the checkpoint says about itself.
        device: where it runs.
        precision: of its network.
        scale: how many times larger results are.
    """

    def __init__(
        self,
        checkpoint: "Path | str",
        *,
        steps: int | None = None,
        sampler: SamplerName | None = None,
        device: "str | torch.device" = "auto",
        tile: int | None = None,
        overlap: int | None = None,
        blend: BlendName = "outputs",
        batch: int = 1,
        precision: PrecisionName = "auto",
        compile: bool = False,
    ) -> None:
        """Load `checkpoint`; the options are those of `restore`."""
        from ornstein.acceleration import accelerate
        from ornstein.checkpoint import load
        from ornstein.device import choose_device
        from ornstein_restoration.representation import PictureSpace
        from ornstein_restoration.sampling import Model
        from ornstein_restoration.solvers import choose

        if batch < 1:
            raise UserError(f"--batch {batch} must be at least 1")
        self.device = choose_device(device)
        loaded = load(checkpoint, app="restoration")
        if not isinstance(loaded.representation, PictureSpace):
            raise UserError(f"{checkpoint} says nothing about its pictures; export it again with a representation")
        how = self._acceleration(precision, compile)
        self.precision = how.precision
        denoiser = accelerate(loaded.denoiser.to(self.device), how)
        self.model = Model(denoiser, choose(loaded.sampler, denoiser.process, sampler, steps), loaded.representation)
        self.info = loaded.info
        self.scale = loaded.representation.scale
        # on a CPU several at once gain nothing, and round differently
        self.batch = 1 if self.device.type == "cpu" else batch
        self._tile, self._overlap, self._blend = tile, overlap, blend
        self._tiling(1, 1)  # settings that do not fit are said before any work

    def _acceleration(self, precision: PrecisionName, compile: bool) -> "Acceleration":
        from ornstein.acceleration import Acceleration

        on_cpu = self.device.type == "cpu"
        return Acceleration(
            precision=("float32" if on_cpu else "bfloat16") if precision == "auto" else precision,
            channels_last=not on_cpu or compile,
            compile=compile,
            graphs=0 if on_cpu else 4,
        )

    def _tiling(self, height: int, width: int) -> "Any":
        """How a picture of this size is cut; None for not at all."""
        from ornstein_restoration.tiles import Tiling

        if self._tile is not None and self._tile < 0:
            raise UserError(f"--tile {self._tile} must be at least 1, or 0 for whole pictures")
        if self._tile == 0 or (self._tile is None and max(height, width) * self.scale <= WHOLE):
            if self._overlap is not None and self._tile == 0:
                raise UserError("--overlap is for tiles; leave it or --tile 0 out")
            return None
        size = max(1, TILE // self.scale) if self._tile is None else self._tile
        return Tiling(size=size, overlap=size // 8 if self._overlap is None else self._overlap, blending=self._blend)

    def __call__(
        self,
        picture: "Tensor | npt.NDArray[np.floating]",
        mask: "Tensor | npt.NDArray[np.floating] | None" = None,
        *,
        seed: int = 0,
        on_progress: Callable[[float], None] | None = None,
    ) -> "Tensor":
        """Restore `picture` (3, h, w) in [0, 1]; returns (3, scale h, scale w) in [0, 1], float32 on the CPU.

        `mask`, (h, w) or (1, h, w) in [0, 1], is for models that want one. `on_progress` is told the share done since
        its last call.

        Raises:
            UserError: other shapes, values outside [0, 1], NaN, or a mask that is missing or of another size.
        """
        import torch

        from ornstein_restoration.sampling import restore_picture

        pixels = _pixels(picture, "picture")
        if pixels.ndim != 3 or pixels.shape[0] != 3:
            raise UserError(f"the picture has shape {tuple(pixels.shape)}; give (3, height, width), RGB in [0, 1]")
        marked = self._mask(mask, pixels)
        try:
            with torch.inference_mode():
                return restore_picture(
                    self.model,
                    pixels,
                    marked,
                    seed=seed,
                    tiling=self._tiling(*pixels.shape[-2:]),
                    batch=self.batch,
                    device=self.device,
                    on_progress=on_progress,
                )
        except torch.OutOfMemoryError:
            raise UserError(
                f"out of memory on {self.device} with {pixels.shape[-1]} x {pixels.shape[-2]} pixels; "
                "lower --tile or --batch, or use --device cpu"
            ) from None

    def _mask(self, mask: Any, pixels: "Tensor") -> "Tensor | None":
        if self.model.representation.mask == "none":
            if mask is not None:
                raise UserError("this model takes no mask; leave --mask out")
            return None
        if mask is None:
            raise UserError("this model wants a mask of the degraded region; give one with --mask")
        marked = _pixels(mask, "mask")
        marked = marked[None] if marked.ndim == 2 else marked
        if marked.shape != (1, *pixels.shape[-2:]):
            raise UserError(
                f"the mask has shape {tuple(marked.shape)}, the picture {tuple(pixels.shape)}; make their sides equal"
            )
        return marked


def _pixels(array: Any, what: str) -> "Tensor":
    """`array` as float32 on the CPU.

    Raises:
        UserError: no tensor or NumPy array, empty, or values that are not real numbers in [0, 1].
    """
    import numpy as np
    import torch

    if not isinstance(array, (torch.Tensor, np.ndarray)):
        raise UserError(f"the {what} is a {type(array).__name__}; give a tensor or a NumPy array")
    tensor = torch.as_tensor(array).detach()
    if not tensor.is_floating_point():
        raise UserError(f"the {what} holds {tensor.dtype} values; give floating-point numbers in [0, 1]")
    if tensor.numel() == 0:
        raise UserError(f"the {what} is empty; give at least one pixel")
    tensor = tensor.to("cpu", torch.float32)
    if not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise UserError(f"the {what} holds NaN or values outside [0, 1]; scale it first")
    return tensor


def _find_jobs(inputs: Path | str | list[Path] | list[str], output: Path) -> list[tuple[Path, Path]]:
    from ornstein_restoration import images

    formats = tuple(images.FORMATS)
    work = jobs.find_jobs(inputs, output, jobs.FileKind("picture", images.find, formats, formats, ".png"))
    for _, target in work:  # before the work
        if target.suffix.lower() not in formats:
            raise UserError(f"{target} has no suffix of a picture; use one of {', '.join(formats)}")
    return work


def _run(
    restorer: Restorer, work: list[tuple[Path, Path]], mask: Path | None, seed: int, overwrite: bool, quiet: bool
) -> list[Path]:
    """Do all files; one that fails does not stop the others, and is told of at the end."""
    several = len(work) > 1
    written: list[Path] = []
    failed = 0
    with _progress(len(work), quiet) as bar:
        for source, target in work:
            try:
                _restore_file(restorer, source, target, mask, seed, overwrite, bar)
            except UserError as error:
                if not several:
                    raise
                failed += 1
                bar.message(f"failed: {error}", sys.stderr)
            else:
                written.append(target)
                if not quiet:
                    bar.message(str(target), sys.stdout)
            bar.finish(len(written) + failed)
    if failed:
        others = "; the others are written" if written else ""
        raise UserError(f"{failed} of {len(work)} files failed, see above{others}")
    return written


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


class _Bar:
    """A bar over pictures with the time left, and lines printed above it."""

    def __init__(self, count: int, quiet: bool) -> None:
        from tqdm import tqdm

        self.bar = tqdm(
            total=count,
            disable=True if quiet else None,  # None: no bar where stderr is no terminal
            bar_format="{l_bar}{bar}| {n:.1f}/{total} pictures [{elapsed}<{remaining}]",
        )

    def __call__(self, share: float) -> None:
        self.bar.update(min(share, max(0.0, self.bar.total - self.bar.n)))

    def finish(self, done: int) -> None:
        self.bar.update(done - self.bar.n)

    def message(self, text: str, file: TextIO) -> None:
        self.bar.write(text, file=file)


@contextlib.contextmanager
def _progress(count: int, quiet: bool) -> Iterator[_Bar]:
    bar = _Bar(count, quiet)
    try:
        yield bar
    finally:
        bar.bar.close()
