"""Pages of results: one HTML file with tables, pictures and players inside, nothing to load from elsewhere."""

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ornstein.files import atomic_path

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #8886; }
th:first-child, td:first-child { text-align: left; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem; }
figure { margin: 0; } img, audio { width: 100%; display: block; }
figcaption { font-size: .9rem; } .note { opacity: .75; font-size: .9rem; }
"""


@dataclass(frozen=True)
class Figure:
    """A picture on a page: its name, what it shows in words, PNG, a line beside the name, and a sound (FLAC)."""

    name: str
    what: str
    png: bytes
    caption: str = ""
    flac: bytes | None = None


@dataclass
class Page:
    """A page under construction; `write` makes the file."""

    title: str
    parts: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """A section begins."""
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """A paragraph, as a small note."""
        self.parts.append(f'<p class="note">{html.escape(text)}</p>')

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; the first column is aligned left."""
        cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        lines = ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
        self.parts.append(f"<table><tr>{cells}</tr>{''.join(lines)}</table>")

    def image(self, what: str, png: bytes) -> None:
        """A picture; `what` says in words what it shows."""
        self.parts.append(f'<img alt="{html.escape(what)}" src="{_uri("image/png", png)}">')

    def figures(self, figures: Sequence[Figure]) -> None:
        """Pictures side by side, with players below those that have a sound."""
        parts = []
        for figure in figures:
            sound = (
                f'<audio controls preload="none" src="{_uri("audio/flac", figure.flac)}"></audio>'
                if figure.flac is not None
                else ""
            )
            parts.append(
                f"<figure><figcaption><b>{html.escape(figure.name)}</b> {html.escape(figure.caption)}</figcaption>"
                f'<img alt="{html.escape(figure.what)}" src="{_uri("image/png", figure.png)}">{sound}</figure>'
            )
        self.parts.append(f'<div class="figures">{"".join(parts)}</div>')

    def html(self) -> str:
        """The page as text."""
        title = html.escape(self.title)
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
            f"<body><h1>{title}</h1>\n" + "\n".join(self.parts) + "\n</body></html>\n"
        )

    def write(self, path: Path, overwrite: bool = False) -> None:
        """Write the page to `path`; raises UserError if that is not possible."""
        with atomic_path(path, overwrite=overwrite) as temporary:
            temporary.write_text(self.html(), encoding="utf-8")


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same table for a terminal: columns aligned, the first one left."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def gain_png(gains: Mapping[str, Mapping[int, float]], start: Mapping[int, float], quantity: str, where: str) -> bytes:
    """PNG of gains in a metric: a box per system, and every file against its start.

    Args:
        gains: by system and file index; systems without any are left out.
        start: the metric of each file at `where`, such as "the noisy input".
        quantity: name of the metric.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    found = {system: gained for system, gained in gains.items() if gained}
    height = max(3.2, 1.2 + 0.28 * len(found))
    figure = Canvas(figsize=(11, height), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    boxes, scatter = figure.subplots(1, 2)
    boxes.boxplot([list(gained.values()) for gained in found.values()], orientation="horizontal", widths=0.6)
    boxes.set_yticks(range(1, len(found) + 1), list(found))
    boxes.invert_yaxis()
    boxes.set_xlabel(f"gain in {quantity}")
    for system, gained in found.items():
        scatter.scatter([start[index] for index in gained], list(gained.values()), s=12, alpha=0.7, label=system)
    scatter.set_xlabel(f"{quantity} of {where}")
    scatter.set_ylabel(f"gain in {quantity}")
    if len(found) <= 8:
        scatter.legend(fontsize="small")
    for axes, line in ((boxes, boxes.axvline), (scatter, scatter.axhline)):
        line(0, color="0.6", linewidth=0.8, zorder=0)
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def plain(value: Any) -> Any:
    """`value` ready for JSON, which has no NaN and no infinity: both become null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any, overwrite: bool = False) -> None:
    """Write `plain(value)`; raises UserError if that is not possible."""
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(plain(value), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
