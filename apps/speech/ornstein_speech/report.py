"""Sounds on the page of a report: players with spectrograms, and what waits on disk to be shown."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ornstein.report import Figure

Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Clip:
    """A sound on a page: its name, 1-D samples, rate in Hz, and a line below."""

    name: str
    samples: Array
    rate: int
    caption: str = ""


def players(clips: Sequence[Clip]) -> list[Figure]:
    """Spectrograms with players, all on the level of the loudest clip."""
    loudest = max((float(np.abs(clip.samples).max(initial=0.0)) for clip in clips), default=0.0)
    return [
        Figure(
            clip.name,
            f"spectrogram of {clip.name}",
            spectrogram_png(clip, loudest),
            clip.caption,
            _flac(clip, loudest),
        )
        for clip in clips
    ]


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


def write_sound(path: Path, samples: npt.NDArray[np.floating], rate: int) -> None:
    """Store samples, divided by their peak where it exceeds 1, as 16 bit FLAC."""
    from ornstein_speech import audio

    peak = float(np.abs(samples).max(initial=0.0))
    audio.write(path, samples[None] / max(1.0, peak), rate, overwrite=True)


def read_sound(path: Path, peak: float) -> npt.NDArray[np.floating] | None:
    """What `write_sound` stored of a signal with that peak, None if there is nothing."""
    from ornstein_speech import audio

    return audio.read(path)[0][0] * max(1.0, peak) if path.exists() else None
