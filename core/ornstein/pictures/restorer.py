"""A loaded checkpoint that restores pictures of any size: what the apps of pictures share."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from ornstein.errors import UserError
from ornstein.pictures.solvers import SamplerName, choose

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ornstein.denoiser import Denoiser
    from ornstein.samplers.base import Sampler
    from ornstein.tiles import Tiling

PrecisionName = Literal["auto", "float32", "bfloat16", "float16"]
BlendName = Literal["outputs", "steps"]

WHOLE = 1024
"""Sides of a result up to which it is made as a whole, unless the user says otherwise."""
TILE = 512
"""Sides of the tiles of a larger one, in pixels of the result."""

R = TypeVar("R")


class PictureRestorer(Generic[R]):
    """A checkpoint of an app, its network on a device, and how pictures are cut.

    Attributes:
        model: network, sampler and representation.
        info: what the checkpoint says about itself.
        device: where it runs.
        precision: of its network.
        prepares: whether the first picture of a size also compiles or records.
        stored_sampler: that of the checkpoint.
        scale: how many times larger results are.
        guidance: of every tile, None for none; set by a subclass that said `gradients`.
    """

    def __init__(
        self,
        checkpoint: "Path | str",
        app: str,
        space: type[R],
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
        gradients: bool = False,
    ) -> None:
        """Load `checkpoint` of `app`, whose representation is a `space`; the options are those of the app's verbs, and
        `gradients` whether guidance will differentiate the network."""
        from ornstein.acceleration import Acceleration, accelerate
        from ornstein.checkpoint import load
        from ornstein.device import choose_device
        from ornstein.pictures.sampling import Guidance, Model

        if batch < 1:
            raise UserError(f"--batch {batch} must be at least 1")
        self.device = choose_device(device)
        loaded = load(checkpoint, app=app)
        if not isinstance(loaded.representation, space):
            raise UserError(f"{checkpoint} says nothing about its pictures; export it again with a representation")
        self.gradients = gradients
        self.guidance: Guidance | None = None
        how = Acceleration.usual(self.device, precision, compile, graphs=4)
        self.precision = how.precision
        denoiser: Denoiser = accelerate(loaded.denoiser.to(self.device), how)
        self.prepares = how.compile or how.graphs > 0
        self.stored_sampler = loaded.sampler
        self.model: Model[Any] = Model(
            denoiser, choose(loaded.sampler, denoiser.process, sampler, steps), loaded.representation
        )
        self.info = loaded.info
        self.scale: int = self.model.representation.scale
        # on a CPU several at once gain nothing, and round differently
        self.batch = 1 if self.device.type == "cpu" else batch
        self._tile, self._overlap, self._blend = tile, overlap, blend
        self._tiling(1, 1)  # settings that do not fit are said before any work

    def having(self, *, steps: int | None = None, sampler: "SamplerName | Sampler | None" = None) -> Any:
        """The same network with another sampler: a name and steps as in the constructor, or one with its own steps."""
        other = copy.copy(self)
        if sampler is None or isinstance(sampler, str):
            sampler = choose(self.stored_sampler, self.model.denoiser.process, sampler, steps)
        other.model = dataclasses.replace(self.model, sampler=sampler)
        return other

    def restore(
        self,
        pixels: "Tensor",
        mask: "Tensor | None" = None,
        *,
        seed: int = 0,
        on_progress: Callable[[float], None] | None = None,
    ) -> "Tensor":
        """The result of `pixels` (C, h, w), checked before, in the tiles that were asked for.

        Raises:
            UserError: the memory of the device does not suffice.
        """
        import torch

        from ornstein.pictures.sampling import restore_picture

        try:
            with torch.no_grad() if self.gradients else torch.inference_mode():
                return restore_picture(
                    self.model,
                    pixels,
                    mask,
                    seed=seed,
                    tiling=self._tiling(*pixels.shape[-2:]),
                    batch=self.batch,
                    device=self.device,
                    guidance=self.guidance,
                    on_progress=on_progress,
                )
        except torch.OutOfMemoryError:
            raise UserError(
                f"out of memory on {self.device} with {pixels.shape[-1]} x {pixels.shape[-2]} pixels; "
                "lower --tile or --batch, or use --device cpu"
            ) from None

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
