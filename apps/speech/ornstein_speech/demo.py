"""Real noisy speech before and after: the first thing to run."""

from collections.abc import Sequence
from pathlib import Path

from ornstein.errors import UserError
from ornstein.files import check_target
from ornstein_speech.solvers import SamplerName

METRICS = ("pesq", "estoi", "si_sdr")


def demo(
    output: Path = Path("demo"),
    *,
    data: Path | None = None,
    checkpoint: Path | None = None,
    steps: int | None = None,
    sampler: SamplerName | None = None,
    device: str = "auto",
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Enhance the recordings that come with the project, print scores, and write a page to listen to.

    Args:
        output: Folder for index.html.
        data: Folder with clean/ and noisy/ recordings of the same names. Default: data/speech of the checkout.
        checkpoint: Weights to use. Default: the shipped ones.
        steps: Steps of the sampler. Default: stored in the checkpoint.
        sampler: See `enhance`. Default: stored in the checkpoint.
        device: auto, cpu, cuda or cuda:N.
        overwrite: Replace the page of an earlier run.
        quiet: Write the page only and print nothing.

    Returns:
        The page.

    Raises:
        UserError: the recordings are not found, or the page cannot be written.
    """
    from ornstein.analysis.statistics import interval
    from ornstein.hardware import machine
    from ornstein.report import Page, text_table
    from ornstein_speech.enhance import Enhancer
    from ornstein_speech.evaluate import held_out
    from ornstein_speech.metrics import NAMES, score
    from ornstein_speech.report import Clip, players
    from ornstein_speech.results import caption
    from ornstein_speech.scoring import timed

    target = check_target(Path(output) / "index.html", overwrite)
    enhancer = Enhancer(checkpoint, steps=steps, sampler=sampler, device=device)
    rate = enhancer.sample_rate
    items = held_out(recordings() if data is None else Path(data), rate=rate)
    page = Page("Noisy speech, enhanced")
    header = ["", *(f"{NAMES[metric]} {when}" for metric in METRICS for when in ("before", "after"))]
    rows: list[list[str]] = []
    values: list[list[float]] = []
    seconds: list[tuple[float, float]] = []
    clips: list[tuple[str, list[Clip]]] = []
    for index in range(len(items)):  # type: ignore[arg-type]
        item = items[index]
        clean, noisy = item["clean"][0].numpy(), item["noisy"][0].numpy()
        estimate, rtf = timed(enhancer, noisy, rate, 0)
        before, after = score(clean, noisy, noisy, rate), score(clean, noisy, estimate, rate)
        values.append([scores[metric] for metric in METRICS for scores in (before, after)])
        rows.append([item["name"], *(f"{value:.2f}" for value in values[-1])])
        duration = len(noisy) / rate
        seconds.append((rtf * duration, duration))
        sounds = [
            Clip("noisy", noisy, rate, caption(before)),
            Clip("enhanced", estimate, rate, caption(after)),
            Clip("clean", clean, rate),
        ]
        clips.append((item["name"], sounds))
        if not quiet:
            print(*text_table(header, rows).splitlines()[0 if index == 0 else -1 :], sep="\n")
    rows.append(["mean", *(f"{interval(column).mean:.2f}" for column in zip(*values, strict=True))])
    speed = f"computing took {_speed(seconds):.2g} times the duration of the sound ({machine(enhancer.device)})"
    note = f"network calls per chunk: {enhancer.evaluations}; {speed}"
    if not quiet:
        print(text_table(header, rows).splitlines()[-1], note, target, sep="\n")
    page.table(header, rows)
    page.text(note)
    for name, sounds in clips:
        page.heading(name)
        page.figures(players(sounds))
    page.write(target, overwrite)
    return target


def _speed(seconds: Sequence[tuple[float, float]]) -> float:
    """Total computing time over total duration, from both for every file; the first file, which warms up, is left out
    where there are others."""
    times, durations = zip(*(seconds[1:] or seconds), strict=True)
    return float(sum(times) / sum(durations))


def recordings() -> Path:
    """data/speech of the working folder or of the checkout that this module lies in.

    Raises:
        UserError: there is none, as in an installation from a wheel.
    """
    for base in (Path.cwd(), *Path(__file__).resolve().parents[3:4]):
        if (base / "data" / "speech" / "noisy").is_dir():
            return base / "data" / "speech"
    raise UserError(
        "the recordings come with a checkout, not with the package; "
        "run this there or give --data FOLDER with clean/ and noisy/"
    )
