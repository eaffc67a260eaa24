"""Parts of pictures to train on: a degraded picture, its clean one and what else there is, cut and turned alike."""

from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from ornstein.errors import UserError
from ornstein.pictures.degraded import integer

Augmentation = Literal["none", "flip", "flip_rotate"]
"""Nothing; left and right exchanged with probability 1/2; one of the eight symmetries of a square."""


def check_settings(augment: Augmentation, crop: int | None, scale: int, degradation: object) -> None:
    """Raise UserError for settings of a dataset that do not fit together; `scale` is clean sides over degraded ones."""
    if augment not in get_args(Augmentation):
        raise UserError(f"augment is {augment!r}; use one of {', '.join(get_args(Augmentation))}")
    if crop is not None and (crop < 1 or crop % scale):
        raise UserError(f"a crop of {crop} pixels does not go with scale {scale}; take a multiple of it")
    made = getattr(degradation, "scale", 1)
    if degradation is not None and made != scale:
        raise UserError(f"the degradation shrinks {made} times, data.scale is {scale}; make them equal")


def cropped(
    signals: dict[str, Tensor], crop: int, scale: int, generator: torch.Generator | None, path: Path | None
) -> dict[str, Tensor]:
    """The same square of all `signals` (C, H, W), of which `lq` is `scale` times smaller than the others.

    Args:
        signals: by name, at least one of `gt` and `lq`.
        crop: side in pixels of the clean picture.
        scale: clean sides over degraded ones.
        generator: of the place; None takes the centre.
        path: of the picture, for the message.

    Raises:
        UserError: the picture is smaller.
    """
    height, width = signals["gt" if "gt" in signals else "lq"].shape[-2:]
    if min(height, width) < crop:
        raise UserError(f"{path} has {width} x {height} pixels, less than the crop of {crop}; lower data.crop")
    last = [(side - crop) // scale for side in (height, width)]
    top, left = (end // 2 if generator is None else integer((0, end), generator) for end in last)
    cut = {}
    for name, signal in signals.items():
        factor = 1 if name == "lq" else scale
        side = crop // scale * factor
        cut[name] = signal[:, top * factor : top * factor + side, left * factor : left * factor + side]
    return cut


def augmented(signals: dict[str, Tensor], augment: Augmentation, generator: torch.Generator) -> dict[str, Tensor]:
    """All `signals` (C, H, W) mirrored and turned alike."""
    if augment == "none":
        return signals
    if integer((0, 1), generator):
        signals = {name: signal.flip(-1) for name, signal in signals.items()}
    if augment == "flip_rotate":
        turns = integer((0, 3), generator)
        signals = {name: signal.rot90(turns, (-2, -1)) for name, signal in signals.items()}
    return signals
