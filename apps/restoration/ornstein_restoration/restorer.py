"""A loaded checkpoint that restores pictures: tensors to tensors."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ornstein.errors import UserError
from ornstein.pictures.restorer import PictureRestorer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from ornstein.denoiser import Denoiser


class Restorer(PictureRestorer[Any]):
    """A loaded checkpoint, ready for pictures: `restorer(picture)`."""

    def __init__(self, checkpoint: "Path | str", *, tile: int | None = None, **options: Any) -> None:
        """Load `checkpoint`; the options are those of `restore` and `PictureRestorer`."""
        from ornstein_restoration.representation import PictureSpace

        super().__init__(checkpoint, "restoration", PictureSpace, tile=tile, **options)
        side = _only_side(self.model.denoiser)
        if side is not None:
            if tile not in (None, side):
                raise UserError(f"this network takes squares of {side} pixels only; leave --tile out")
            self._tile = side

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
        pixels = _pixels(picture, "picture")
        if pixels.ndim != 3 or pixels.shape[0] != 3:
            raise UserError(f"the picture has shape {tuple(pixels.shape)}; give (3, height, width), RGB in [0, 1]")
        return self.restore(pixels, self._mask(mask, pixels), seed=seed, on_progress=on_progress)

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


def _only_side(denoiser: "Denoiser") -> int | None:
    """Of the pictures that the network takes, where it takes one size only (DiT); it may be wrapped."""
    from ornstein.networks.dit import DiT

    return next((module.input_size for module in denoiser.modules() if isinstance(module, DiT)), None)


def _pixels(array: Any, what: str) -> "Tensor":
    """`array` as float32 on the CPU.

    Raises:
        UserError: no tensor or NumPy array, empty, or values that are not real numbers in [0, 1].
    """
    import numpy as np
    import torch

    if not isinstance(array, (torch.Tensor, np.ndarray)):
        raise UserError(f"the {what} is a {type(array).__name__}; give a tensor or a NumPy array")
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        array = array.copy()  # PyTorch warns of arrays that it could not write to
    tensor = torch.as_tensor(array).detach()
    if not tensor.is_floating_point():
        raise UserError(f"the {what} holds {tensor.dtype} values; give floating-point numbers in [0, 1]")
    if tensor.numel() == 0:
        raise UserError(f"the {what} is empty; give at least one pixel")
    tensor = tensor.to("cpu", torch.float32)
    if not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise UserError(f"the {what} holds NaN or values outside [0, 1]; scale it first")
    return tensor
