from pathlib import Path

import numpy as np

from ornstein_speech.report import Clip, Page, text_table


def test_page_escapes_and_takes_any_clip(tmp_path: Path) -> None:
    page = Page("a < b")
    page.clips([Clip("<script>", np.zeros(0), 16000), Clip("loud", 3 * np.ones(100), 8000)])
    page.image('the "gain"', b"png")
    page.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "a &lt; b" in text
    assert "<script>" not in text
    assert 'alt="the &quot;gain&quot;" src="data:image/png;base64,cG5n"' in text
    assert text_table(["", "x"], [["long name", "1"]]) == "           x\nlong name  1"
