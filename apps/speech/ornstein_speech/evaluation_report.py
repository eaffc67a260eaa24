"""The page of an evaluation: tables, plots of the gain, and recordings to listen to."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ornstein.report import Page
from ornstein_speech.journal import Journal, read_sound
from ornstein_speech.report import Clip, players
from ornstein_speech.results import NOISY, Result, caption, condition_tables, gains, main_table


def write_report(
    path: Path,
    summary: Mapping[str, Any],
    names: Mapping[str, str],
    missing: Sequence[str],
    notes: Sequence[str],
    results: Sequence[Result],
    items: Any,
    journal: Journal,
    examples: int,
) -> None:
    """Write the page; the estimates come from `journal`, the recordings from `items`."""
    systems = list(summary["systems"])
    page = Page("Speech enhancement: evaluation")
    page.table(*main_table(summary, names, missing))
    for note in notes:
        page.text(note)
    page.text(f"Data: {summary['data']}. Checkpoint: {summary['checkpoint']}.")
    others = [system for system in systems if system != NOISY]
    if any(gains(results, system) for system in others):
        page.heading("Gain in PESQ")
        page.image("gain in PESQ by system, and by PESQ of the noisy input", gain_png(results, others))
    for title, table in condition_tables(summary, names):
        page.heading(title)
        page.table(*table)
    main = next(
        (name for name, system in summary["systems"].items() if "nfe" in system), others[0] if others else NOISY
    )
    for index, why in _listened(results, main, examples).items():
        item = items[index]
        page.heading(f"{item['name']}{why}")
        page.figures(players(_clips(item, index, systems, results, journal, summary["rate"])))
    page.write(path, overwrite=True)


def _listened(results: Sequence[Result], system: str, examples: int) -> dict[int, str]:
    """Files to listen to and why: the worst, the median and the best by PESQ gain of `system`, then the first ones."""
    if examples == 0:
        return {}
    gained = gains(results, system)
    order = sorted(gained, key=lambda index: gained[index])
    found: dict[int, str] = {}
    for place, word in ((0, "worst"), (len(order) // 2, "median"), (len(order) - 1, "best")) if order else ():
        found.setdefault(order[place], f": {word} PESQ gain of {system} ({gained[order[place]]:+.2f})")
    first = list(dict.fromkeys(result.index for result in results))[:examples]
    return found | {index: "" for index in first if index not in found}


def _clips(
    item: Mapping[str, Any], index: int, systems: Sequence[str], results: Sequence[Result], journal: Journal, rate: int
) -> list[Clip]:
    own = {result.system: result for result in results if result.index == index}
    clips = [Clip("clean", item["clean"][0].numpy(), rate)]
    for system in systems:
        number = list(dict.fromkeys(result.system for result in results)).index(system)
        path = journal.sound(index, number)
        if system == NOISY:
            sound = item["noisy"][0].numpy()
        else:
            sound = None if path is None else read_sound(path, own[system].peak)
        if sound is not None:
            clips.append(Clip(system, sound, rate, caption(own[system].scores)))
    return clips


def gain_png(results: Sequence[Result], systems: Sequence[str]) -> bytes:
    """PNG of the gain in PESQ over the noisy input: a box per system, and every file against its input."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = {system: gains(results, system) for system in systems}
    found = {system: gained for system, gained in found.items() if gained}
    noisy = {result.index: result.scores["pesq"] for result in results if result.system == NOISY}
    height = max(3.2, 1.2 + 0.28 * len(found))
    figure = Figure(figsize=(11, height), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    boxes, scatter = figure.subplots(1, 2)
    boxes.boxplot([list(gained.values()) for gained in found.values()], orientation="horizontal", widths=0.6)
    boxes.set_yticks(range(1, len(found) + 1), list(found))
    boxes.invert_yaxis()
    boxes.set_xlabel("gain in PESQ")
    for system, gained in found.items():
        scatter.scatter([noisy[index] for index in gained], list(gained.values()), s=12, alpha=0.7, label=system)
    scatter.set_xlabel("PESQ of the noisy input")
    scatter.set_ylabel("gain in PESQ")
    if len(found) <= 8:
        scatter.legend(fontsize="small")
    for axes, line in ((boxes, boxes.axvline), (scatter, scatter.axhline)):
        line(0, color="0.6", linewidth=0.8, zorder=0)
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
