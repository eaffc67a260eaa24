"""The page of an evaluation: tables, plots of the gain, and recordings to listen to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ornstein.analysis.statistics import extremes
from ornstein.journal import Journal
from ornstein.report import Page, gain_png
from ornstein_speech.report import Clip, players, read_sound
from ornstein_speech.results import NOISY, Result, caption, condition_tables, gains, main_table


def write_report(
    path: Path,
    summary: Mapping[str, Any],
    names: Mapping[str, str],
    missing: Sequence[str],
    notes: Sequence[str],
    results: Sequence[Result],
    items: Any,
    journal: Journal[Result],
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
        noisy = {result.index: result.scores["pesq"] for result in results if result.system == NOISY}
        picture = gain_png({system: gains(results, system) for system in others}, noisy, "PESQ", "the noisy input")
        page.image("gain in PESQ by system, and by PESQ of the noisy input", picture)
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
    found = {
        index: f": {word} PESQ gain of {system} ({gained[index]:+.2f})" for index, word in extremes(gained).items()
    }
    first = list(dict.fromkeys(result.index for result in results))[:examples]
    return found | {index: "" for index in first if index not in found}


def _clips(
    item: Mapping[str, Any],
    index: int,
    systems: Sequence[str],
    results: Sequence[Result],
    journal: Journal[Result],
    rate: int,
) -> list[Clip]:
    own = {result.system: result for result in results if result.index == index}
    clips = [Clip("clean", item["clean"][0].numpy(), rate)]
    for system in systems:
        number = list(dict.fromkeys(result.system for result in results)).index(system)
        path = journal.estimate(index, number, ".flac")
        if system == NOISY:
            sound = item["noisy"][0].numpy()
        else:
            sound = None if path is None else read_sound(path, own[system].peak)
        if sound is not None:
            clips.append(Clip(system, sound, rate, caption(own[system].scores)))
    return clips
