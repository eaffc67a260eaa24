"""Pages to listen to: one HTML file with tables, players and spectrograms inside, nothing to load from elsewhere."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ornstein.files import atomic_path

Array = npt.NDArray[np.floating]

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #8886; }
th:first-child, td:first-child { text-align: left; }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem; }
figure { margin: 0; } img, audio { width: 100%; display: block; }
figcaption { font-size: .9rem; } .note { opacity: .75; font-size: .9rem; }
"""


@dataclass(frozen=True)
class Clip:
    """A sound on a page: its name, 1-D samples, rate in Hz, and a line below."""

    name: str
    samples: Array
    rate: int
    caption: str = ""


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

    def clips(self, clips: Sequence[Clip]) -> None:
        """Players with spectrograms side by side, all on the level of the loudest clip."""
        loudest = max((float(np.abs(clip.samples).max(initial=0.0)) for clip in clips), default=0.0)
        figures = []
        for clip in clips:
            name = html.escape(clip.name)
            image, sound = _uri("image/png", spectrogram_png(clip, loudest)), _uri("audio/flac", _flac(clip, loudest))
            figures.append(
                f"<figure><figcaption><b>{name}</b> {html.escape(clip.caption)}</figcaption>"
                f'<img alt="spectrogram of {name}" src="{image}">'
                f'<audio controls preload="none" src="{sound}"></audio></figure>'
            )
        self.parts.append(f'<div class="clips">{"".join(figures)}</div>')

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


def spectrogram_png(clip: Clip, loudest: float) -> bytes:
    """PNG of the magnitude in dB, 80 dB below full level to it; `loudest` is the peak that counts as full level."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = max(64, round(0.032 * clip.rate))
    samples = np.pad(np.asarray(clip.samples, dtype=np.float64), (0, max(0, size - len(clip.samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[:: size // 4] * np.hanning(size)
    level = 20 * np.log10(np.abs(np.fft.rfft(frames)).T / (max(loudest, 1e-9) * size / 8) + 1e-6)
    figure = Figure(figsize=(5, 2.2), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    extent = (0.0, len(samples) / clip.rate, 0.0, clip.rate / 2000)
    axes.imshow(level, origin="lower", aspect="auto", extent=extent, vmin=-80, vmax=0, cmap="magma")
    axes.set_xlabel("s")
    axes.set_ylabel("kHz")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _flac(clip: Clip, loudest: float) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    samples = np.asarray(clip.samples) / max(loudest, 1.0)
    soundfile.write(buffer, samples, clip.rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
