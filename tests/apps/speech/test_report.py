from pathlib import Path

import numpy as np

from ornstein.report import Page
from ornstein_speech.report import Clip, players


def test_page_takes_any_clip(tmp_path: Path) -> None:
    page = Page("clips")
    page.figures(players([Clip("<script>", np.zeros(0), 16000), Clip("loud", 3 * np.ones(100), 8000)]))
    page.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<script>" not in text
    assert text.count("<audio") == 2
    assert 'alt="spectrogram of loud"' in text
