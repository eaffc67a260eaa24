"""From a training checkpoint to a file that `enhance` takes, or to one in the published layout."""

import sys
from pathlib import Path
from typing import Any, Literal

from ornstein.errors import UserError


def export(
    checkpoint: Path,
    output: Path,
    *,
    layout: Literal["own", "published"] = "own",
    weights: Literal["ema", "raw"] = "ema",
    average: str | None = None,
    half: bool = True,
    note: str = "",
    default_sampler: bool = False,
    overwrite: bool = False,
) -> Path:
    """Turn a checkpoint of `ornstein speech fit` into a safetensors file with its configuration inside.

    With `--layout published` it becomes a .ckpt file as the code of SGMSE+ and StoRM writes it, with both the raw and
    the averaged weights, in float32; what that layout cannot say is refused.

    Args:
        checkpoint: The .ckpt file that fit wrote; for the published layout also one of our .safetensors files.
        output: The file to write: .safetensors, or .ckpt in the published layout.
        layout: own, or published.
        weights: The averaged weights (ema) or those of the last step (raw).
        average: Which average, where the run kept several. Default: the first.
        half: Store in float16, half the size; loaded as float32. Only in our own layout.
        note: A line about data and purpose, kept in the file.
        default_sampler: Leave the sampler out of a published file; the published code then takes its own.
        overwrite: Replace an existing file.

    Returns:
        The file written.

    Raises:
        UserError: not such a checkpoint, no averaged weights, something that the layout cannot say, or an unwritable
            target.
    """
    from ornstein.checkpoint import export as export_checkpoint
    from ornstein_speech.publish import publish

    if layout == "published":
        choice: dict[str, Any] = {"weights": weights, "average": average, "note": note, "overwrite": overwrite}
        for remark in publish(checkpoint, output, default_sampler=default_sampler, **choice):
            print(f"note: {remark}", file=sys.stderr)
    else:
        if default_sampler:
            raise UserError("--default_sampler is for --layout published; our own files always keep their sampler")
        export_checkpoint(
            checkpoint,
            output,
            app="speech",
            weights=weights,
            average=average,
            half=half,
            note=note,
            overwrite=overwrite,
        )
    print(output)
    return output
