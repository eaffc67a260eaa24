"""A loaded checkpoint that restores pictures: tensors to tensors."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ornstein.errors import UserError
from ornstein_restoration.solvers import SamplerName

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor

    from ornstein.acceleration import Acceleration
    from ornstein.samplers.base import Sampler
    from ornstein.tiles import Tiling

PrecisionName = Literal["auto", "float32", "bfloat16", "float16"]
BlendName = Literal["outputs", "steps"]

WHOLE = 1024
"""Sides of a result up to which it is made as a whole, unless the user says otherwise."""
TILE = 512
"""Sides of the tiles of a larger one, in pixels of the result."""


class Restorer:
    """A loaded checkpoint, ready for pictures: `restorer(picture)`.

    Attributes:
        model: network, sampler and representation.
        info: what the checkpoint says about itself.
        device: where it runs.
        precision: of its network.
        prepares: whether the first picture of a size also compiles or records.
        stored_sampler: that of the checkpoint.
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
        from ornstein.pictures.sampling import Model
        from ornstein_restoration.representation import PictureSpace
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
        self.prepares = how.compile or how.graphs > 0
        self.stored_sampler = loaded.sampler
        self.model: Model[PictureSpace] = Model(
            denoiser, choose(loaded.sampler, denoiser.process, sampler, steps), loaded.representation
        )
        self.info = loaded.info
        self.scale = loaded.representation.scale
        # on a CPU several at once gain nothing, and round differently
        self.batch = 1 if self.device.type == "cpu" else batch
        self._tile, self._overlap, self._blend = tile, overlap, blend
        self._tiling(1, 1)  # settings that do not fit are said before any work

    def having(self, *, steps: int | None = None, sampler: "SamplerName | Sampler | None" = None) -> "Restorer":
        """The same network with another sampler: a name and steps as in the constructor, or one with its own steps."""
        from ornstein_restoration.solvers import choose

        other = copy.copy(self)
        if sampler is None or isinstance(sampler, str):
            sampler = choose(self.stored_sampler, self.model.denoiser.process, sampler, steps)
        other.model = dataclasses.replace(self.model, sampler=sampler)
        return other

    def _acceleration(self, precision: PrecisionName, compile: bool) -> "Acceleration":
        from ornstein.acceleration import Acceleration

        on_cpu = self.device.type == "cpu"
        return Acceleration(
            precision=("float32" if on_cpu else "bfloat16") if precision == "auto" else precision,
            channels_last=not on_cpu or compile,
            compile=compile,
            graphs=0 if on_cpu else 4,
        )

    def _tiling(self, height: int, width: int) -> "Tiling | None":
        """How a picture of this size is cut; None for not at all."""
        from ornstein.tiles import Tiling

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

        from ornstein.pictures.sampling import restore_picture

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
