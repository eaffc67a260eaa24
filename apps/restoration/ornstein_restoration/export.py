"""From a training checkpoint to a file that `restore` and `upscale` take, or to one in the published layout."""

import sys
from pathlib import Path
from typing import Literal

from ornstein.errors import UserError


def export(
    checkpoint: Path,
    output: Path,
    *,
    layout: Literal["own", "published"] = "own",
    weights: Literal["ema", "raw"] = "ema",
    average: str | None = None,
    half: bool = True,
    predictor: Path | None = None,
    autoencoder: Path | None = None,
    note: str = "",
    overwrite: bool = False,
) -> Path:
    """Turn a checkpoint of `ornstein restoration fit` into a safetensors file with its configuration inside.

    With `--layout published` it becomes a file as the code of its method writes it: .pth (UPSR, ATD, ResShift), .ckpt
    (Resfusion) or .pt (RDDM), in float32. The options that such a file does not store, and that `import` needs, are
    printed.

    Args:
        checkpoint: The .ckpt file that fit wrote; for the published layout also one of our .safetensors files.
        output: The file to write: .safetensors, or .pth, .ckpt or .pt in the published layout.
        layout: own, or published.
        weights: The averaged weights (ema) or those of the last step (raw).
        average: Which average, where the run kept several. Default: the first.
        half: Store in float16, half the size; loaded as float32. Only in our own layout.
        predictor: For UPSR in the published layout: the file to write its first network to.
        autoencoder: For ResShift in the published layout: the file to write its autoencoder to.
        note: A line about data and purpose, kept in the file. Only in our own layout.
        overwrite: Replace an existing file.

    Returns:
        The file written.

    Raises:
        UserError: not such a checkpoint, no averaged weights, something that the layout cannot say, or an unwritable
            target.
    """
    from ornstein.checkpoint import export as export_checkpoint
    from ornstein_restoration.publish import publish

    if layout == "published":
        if note:
            raise UserError("--note is for our own layout; leave it out")
        for remark in publish(checkpoint, output, weights, average, predictor, autoencoder, overwrite):
            print(f"note: {remark}", file=sys.stderr)
    else:
        if autoencoder is not None:
            raise UserError("--autoencoder is for --layout published; our own files hold both networks")
        if predictor is not None:
            raise UserError("--predictor is for --layout published; our own files hold both networks")
        export_checkpoint(
            checkpoint,
            output,
            app="restoration",
            weights=weights,
            average=average,
            half=half,
            note=note,
            overwrite=overwrite,
        )
    print(output)
    return output
