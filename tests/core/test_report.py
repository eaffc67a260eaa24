import json
import math
from pathlib import Path

import pytest

from ornstein.errors import UserError
from ornstein.report import Figure, Page, plain, text_table, write_json


def test_page_escapes_names_and_holds_what_it_shows(tmp_path: Path) -> None:
    page = Page("a < b")
    page.figures([Figure("<script>", 'a "view"', b"png", "x & y"), Figure("sound", "", b"png", flac=b"flac")])
    page.image('the "gain"', b"png")
    page.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "a &lt; b" in text
    assert "<script>" not in text
    assert "x &amp; y" in text
    assert 'alt="the &quot;gain&quot;" src="data:image/png;base64,cG5n"' in text
    assert text.count("<audio") == 1
    assert "data:audio/flac;base64,ZmxhYw==" in text
    with pytest.raises(UserError, match="exists"):
        page.write(tmp_path / "page.html")


def test_text_table_aligns_columns() -> None:
    assert text_table(["", "x"], [["long name", "1"]]) == "           x\nlong name  1"


def test_json_has_no_nan(tmp_path: Path) -> None:
    value = {"a": [1.0, math.nan, (math.inf,)], "b": "ä"}
    write_json(tmp_path / "x.json", value)
    assert json.loads((tmp_path / "x.json").read_text()) == plain(value) == {"a": [1.0, None, [None]], "b": "ä"}
