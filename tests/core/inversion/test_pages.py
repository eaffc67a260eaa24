"""The snippets of the pages run as they stand."""

from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[3] / "docs"


def blocks(page: str) -> list[str]:
    """The indented Python of a page, a heading apart from the next."""
    found: list[str] = []
    for part in (DOCS / page).read_text().split("\n\n    "):
        lines = part.splitlines()
        code = [lines[0], *(line.removeprefix("    ") for line in lines[1:] if line.startswith("    ") or not line)]
        found.append("\n".join(code))
    return found[1:]


def run(page: str, ends: list[str]) -> dict[str, object]:
    """The names that the blocks of `page` define, up to the one that holds the last of `ends`."""
    names: dict[str, object] = {}
    for block in blocks(page):
        if any(end in block for end in ends):
            exec(compile(block, page, "exec"), names)
    return names


def test_inversion() -> None:
    names = run("inversion.md", ["import digits", "denoiser, test", "NoiseOptimization", "def score", "sampler = Anc"])
    torch.testing.assert_close(names["again"], names["x0"], rtol=0, atol=1e-4)
    assert names["found"].scores[-1] > names["found"].scores[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", ["guidance.md"])
def test_guidance(page: str) -> None:
    names = run(page, ["import digit_denoiser", "counted ="])
    assert names["digits"].isfinite().all()  # type: ignore[attr-defined]
    assert names["counted"].evaluations < 400  # type: ignore[attr-defined]
