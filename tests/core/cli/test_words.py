from pathlib import Path
from typing import Literal

import pytest

from ornstein.cli.parser import run_function
from ornstein.cli.words import join_lists
from ornstein.errors import UserError


def work(
    data: Path,
    *,
    steps: int | list[int] | None = None,
    scales: list[float] | None = None,
    kind: Literal["a", "b"] | list[Literal["a", "b"]] | None = None,
    files: Path | list[Path] | None = None,
    count: int = 1,
    fast: bool = False,
) -> tuple:
    """Do it.

    Args:
        data: A folder.
    """
    return data, steps, scales, kind, files, count, fast


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("d --steps 5", {"steps": [5]}),
        ("d --steps 1 5 15", {"steps": [1, 5, 15]}),
        ("--steps 1 5 d", {"steps": [1, 5]}),
        ("d --steps 1,5 15", {"steps": [1, 5, 15]}),
        ("d --steps [1,5]", {"steps": [1, 5]}),
        ("d --steps=5", {"steps": 5}),
        ("d --scales -1 0.5 1e3", {"scales": [-1, 0.5, 1000]}),
        ("--kind a d", {"kind": ["a"]}),
        ("--kind a b d --fast", {"kind": ["a", "b"], "fast": True}),
        ("--kind=a d", {"kind": "a"}),
        ("--files x d", {"files": [Path("x")]}),
        ("--files x y d", {"files": [Path("x"), Path("y")]}),
        ("d --files x y", {"files": [Path("x"), Path("y")]}),
        ("--files x y --count 3 d", {"files": [Path("x"), Path("y")], "count": 3}),
        ("--fast d --count 2", {"fast": True, "count": 2}),
    ],
)
def test_lists(line: str, expected: dict) -> None:
    found = dict(
        zip(
            ("data", "steps", "scales", "kind", "files", "count", "fast"),
            run_function(work, line.split(), "p"),
            strict=True,
        )
    )
    assert found == {"data": Path("d"), "steps": None, "scales": None, "kind": None, "files": None, "count": 1,
                     "fast": False} | expected  # fmt: skip


@pytest.mark.parametrize("line", ["d --span 0.1 0.2", "d --span 0.1,0.2", "d --span [0.1,0.2]", "--span 0.1 0.2 d"])
def test_two_numbers(line: str) -> None:
    def within(data: str, *, span: tuple[float, float] = (0.0, 1.0)) -> tuple[str, tuple[float, float]]:
        return data, span

    assert run_function(within, line.split(), "p") == ("d", (0.1, 0.2))
    with pytest.raises(UserError, match="span"):
        run_function(within, ["d", "--span", "1", "2", "3"], "p")


@pytest.mark.parametrize("line", ["d --steps x", "d --steps 1 x", "d --kind c", "d --steps", "--files x"])
def test_mistakes_are_still_told(line: str) -> None:
    with pytest.raises(UserError):
        run_function(work, line.split(), "p")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("d --steps x", "--steps x is no whole number"),
        ("d --kind c", "--kind c is unknown; use one of a, b"),
        ("d --kind=c", "--kind c is unknown; use one of a, b"),
        ("d --mode c", "--mode c is unknown; use one of x, y-z"),
        ("d --limit 1.5", "--limit 1.5 is no whole number"),
    ],
)
def test_what_is_expected_is_told_in_words(line: str, message: str) -> None:
    def chosen(
        data: Path,
        *,
        steps: int | list[int] | None = None,
        kind: Literal["a", "b"] | list[Literal["a", "b"]] | None = None,
        mode: Literal["x", "y-z"] = "x",
        limit: int | None = None,
    ) -> None:
        """Do it.

        Args:
            data: A folder.
        """

    with pytest.raises(UserError) as caught:
        run_function(chosen, line.split(), "p")
    assert str(caught.value).startswith(message)


def test_other_functions_are_left_alone() -> None:
    def plain(a: int, b: str = "x", *, c: bool = False) -> None: ...

    for words in (["1", "--b", "y", "--c"], ["--help"], [], ["1", "--b=[1,2]", "-1"]):
        assert join_lists(plain, words) == words


def test_a_list_before_a_switched_off_flag_keeps_its_last_value() -> None:
    def chosen(data: Path, *, files: Path | list[Path] | None = None, baselines: bool = True) -> tuple:
        """Do it.

        Args:
            data: A folder.
        """
        return data, files, baselines

    line = ["data", "--files", "a", "b", "--no_baselines"]
    assert run_function(chosen, line, "prog") == (Path("data"), [Path("a"), Path("b")], False)
