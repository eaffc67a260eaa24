"""From a training checkpoint to a file that `restore` and `upscale` take."""

from pathlib import Path
from typing import Literal


def export(
    checkpoint: Path,
    output: Path,
    *,
    weights: Literal["ema", "raw"] = "ema",
    average: str | None = None,
    half: bool = True,
    note: str = "",
    overwrite: bool = False,
) -> Path:
    """Turn a checkpoint of `ornstein restoration fit` into a safetensors file with its configuration inside.

    Args:
        checkpoint: The .ckpt file that fit wrote.
        output: The .safetensors file to write.
        weights: The averaged weights (ema) or those of the last step (raw).
        average: Which average, where the run kept several. Default: the first.
        half: Store in float16, half the size; loaded as float32.
        note: A line about data and purpose, kept in the file.
        overwrite: Replace an existing file.

    Returns:
        The file written.

    Raises:
        UserError: not such a checkpoint, no averaged weights, or an unwritable target.
    """
    import torch

    from ornstein.checkpoint import export as export_checkpoint

    dtype = torch.float16 if half else None
    info = {"note": note} if note else {}
    export_checkpoint(checkpoint, output, weights=weights, average=average, info=info, dtype=dtype, overwrite=overwrite)
    print(output)
    return output
