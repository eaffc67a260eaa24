"""The page of an evaluation: tables, plots of the gain, and pictures before and after beside the truth."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ornstein.analysis.statistics import extremes
from ornstein.pictures.results import INPUT, Result, caption, gains, main_table, pooled_table
from ornstein.report import Figure, Page, gain_png

Array = npt.NDArray[np.floating]

TRUTH = "truth"
CROP = 128
OVERVIEW = 480
"""Longest side of whole pictures on the page."""


def write_report(
    path: Path,
    summary: Mapping[str, Any],
    names: Mapping[str, str],
    notes: Sequence[str],
    results: Sequence[Result],
    pictures: Callable[[int], Mapping[str, Array]],
    examples: int,
    metric: str = "psnr_rgb",
    title: str = "Image restoration: evaluation",
    more: Callable[[Mapping[str, Array]], tuple[str, bytes]] | None = None,
) -> None:
    """Write the page, over an old one.

    Args:
        path: an HTML file.
        summary: of `results.summarize`, with "data" and "checkpoint".
        names: metrics to show and their names to print.
        notes: lines below the table.
        results: of all pictures and systems.
        pictures: (C, H, W), C 3 or 1, in [0, 1] by system, and of `TRUTH`, given the index of a picture; all of one
            size.
        examples: how many of the first pictures to show beside the worst, the median and the best; 0 shows none.
        metric: what the gain is taken in.
        title: of the page.
        more: makes a plot of the shown pictures, (what it shows, PNG), to stand below them.

    Raises:
        UserError: the page cannot be written.
    """
    page = Page(title)
    page.table(*main_table(summary, names))
    for note in notes:
        page.text(note)
    pooled = pooled_table(summary, names)
    if pooled is not None:
        page.heading("Means over the pixels of all pictures (PP)")
        page.table(*pooled)
    page.text(f"Data: {summary['data']}. Checkpoint: {summary['checkpoint']}.")
    others = [system for system in summary["systems"] if system != INPUT]
    quantity = names.get(metric, metric)
    gained = {system: gains(results, system, metric) for system in others}
    if any(gained.values()):
        page.heading(f"Gain in {quantity}")
        start = {result.index: result.scores[metric] for result in results if result.system == INPUT}
        what = f"gain in {quantity} by system, and by {quantity} of the input"
        page.image(what, gain_png(gained, start, quantity, "the input"))
    main = others[0] if others else INPUT
    for index, why in _shown(results, main, gained.get(main, {}), quantity, examples).items():
        own = {result.system: result for result in results if result.index == index}
        shown = pictures(index)
        page.heading(f"{next(iter(own.values())).file}{why}")
        captions = {name: caption(own[name].scores if name in own else None, names) for name in shown}
        page.figures(before_and_after(shown, captions, main))
        if more is not None:
            page.image(*more(shown))
    page.write(path, overwrite=True)


def before_and_after(pictures: Mapping[str, Array], captions: Mapping[str, str], system: str) -> list[Figure]:
    """Every picture whole, then the same part of each in its own pixels: where `system` is farthest from the truth."""
    whole = [
        Figure(name, f"{name}, whole picture", png(_reduced(picture)), captions.get(name, ""))
        for name, picture in pictures.items()
    ]
    top, left = worst_crop(pictures[TRUTH], pictures.get(system, pictures[TRUTH]), CROP)
    parts = [picture[:, top : top + CROP, left : left + CROP] for picture in pictures.values()]
    where = f"{parts[0].shape[2]} x {parts[0].shape[1]} pixels at {left}, {top}"
    enlarged = [part.repeat(2, axis=1).repeat(2, axis=2) for part in parts]
    return whole + [
        Figure(name, f"{name}, {where}", png(part), where)
        for name, part in zip(pictures, enlarged, strict=True)
        if max(pictures[name].shape[1:]) > CROP
    ]


def worst_crop(truth: Array, restored: Array, side: int) -> tuple[int, int]:
    """Top and left of the square of `side` pixels (less in smaller pictures) with the largest squared error."""
    error = ((np.asarray(truth, np.float64) - restored) ** 2).sum(0)
    sums = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    height, width = min(side, error.shape[0]), min(side, error.shape[1])
    squares = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(int(squares.argmax()), squares.shape)
    return int(top), int(left)


def png(picture: Array) -> bytes:
    """An 8 bit PNG of a picture (3, H, W), or (1, H, W) in grey, in [0, 1]."""
    from PIL import Image

    values = np.rint(np.asarray(picture, np.float64).clip(0, 1) * 255).astype(np.uint8)
    values = values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def _reduced(picture: Array) -> Array:
    from ornstein.pictures.resizing import imresize

    scale = OVERVIEW / max(picture.shape[1:])
    return picture if scale >= 1 else imresize(picture, scale)


def _shown(
    results: Sequence[Result], system: str, gained: Mapping[int, float], quantity: str, examples: int
) -> dict[int, str]:
    """Pictures to show and why: the worst, the median and the best by gain of `system`, then the first ones."""
    if examples == 0:
        return {}
    found = {
        index: f": {word} gain in {quantity} of {system} ({gained[index]:+.2f})"
        for index, word in extremes(gained).items()
    }
    first = list(dict.fromkeys(result.index for result in results))[:examples]
    return found | {index: "" for index in first if index not in found}
