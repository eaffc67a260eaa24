"""The tables of the pages are those that the committed results give."""

import pytest
from benchmarks.pages import PAGES, ROOT


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_of_a_page_are_those_of_the_results(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    for name, table in PAGES[page].items():
        _, found, rest = text.partition(f"<!-- {name} -->\n")
        assert found, f"{page} has no table {name}"
        assert rest.partition(f"<!-- /{name} -->")[0] == table(), f"run python benchmarks/pages.py: {name}"
