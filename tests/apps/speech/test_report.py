from pathlib import Path

import numpy as np

from ornstein.report import Page
from ornstein_speech.report import Clip, players, read_sound, write_sound


def test_page_takes_any_clip(tmp_path: Path) -> None:
    page = Page("clips")
    page.figures(players([Clip("<script>", np.zeros(0), 16000), Clip("loud", 3 * np.ones(100), 8000)]))
    page.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<script>" not in text
    assert text.count("<audio") == 2
    assert 'alt="spectrogram of loud"' in text


def test_sounds_keep_their_level(tmp_path: Path) -> None:
    for peak in (0.5, 3.0):
        samples = peak * np.sin(np.arange(1000) / 10).astype(np.float32)
        write_sound(tmp_path / "a.flac", samples, 16000)
        found = read_sound(tmp_path / "a.flac", float(np.abs(samples).max()))
        assert found is not None
        assert np.abs(found - samples).max() < peak * 1e-4
    assert read_sound(tmp_path / "b.flac", 1.0) is None
