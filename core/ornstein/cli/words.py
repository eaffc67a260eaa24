"""Several values after one option: `--steps 1 5 15` and `--steps 1,5,15` become the list that the parser reads."""

import inspect
import json
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ornstein.errors import UserError


def join_lists(function: Callable[..., Any], words: Sequence[str]) -> list[str]:
    """`words` with the values of every option that takes a list as one JSON word; other options are left alone.

    Numbers may also be separated by commas. A list of numbers or of fixed choices ends where a word is none of them.
    Lists of other things take all the words up to the next option, but leave the last ones to required arguments that
    would be missing otherwise.
    """
    parameters = inspect.signature(function).parameters.values()
    try:
        hints = typing.get_type_hints(function)
    except NameError:  # annotations for type checkers only: the parser treats them as it can
        return list(words)
    lists = {f"--{p.name}": item for p in parameters if (item := item_type(hints.get(p.name))) is not None}
    flags = {f"--{p.name}" for p in parameters if hints.get(p.name) is bool}
    required = [p.name for p in parameters if p.default is p.empty]
    as_options = {"output", *(word[2:].partition("=")[0] for word in words if word.startswith("--"))}
    missing = sum(name not in as_options for name in required)
    runs: list[tuple[str, list[str]]] = []  # an option, or nothing, and the words after it
    for run in _runs(words):
        option, values = run
        taken = 0 if not option or "=" in option or option in flags else 1
        if option in lists and values and not values[0].startswith("["):
            taken = next((i for i, word in enumerate(values) if not _fits(word, lists[option])), len(values)) or 1
        runs += [(option, values[:taken]), ("", values[taken:])]
        missing -= len(values[taken:])
    for index in range(len(runs) - 1, -1, -1):
        option, values = runs[index]
        if missing > 0 and option in lists and len(values) > 1:
            given_back = min(missing, len(values) - 1)
            runs[index : index + 1] = [(option, values[:-given_back]), ("", values[-given_back:])]
            missing -= given_back
    return [word for option, values in runs for word in _written(option, values, lists.get(option))]


def refuse_empty_paths(function: Callable[..., Any], words: Sequence[str]) -> None:
    """Raise UserError where a file or folder is named by an empty word, which would be the working folder."""
    try:
        hints = typing.get_type_hints(function)
    except NameError:  # annotations for type checkers only
        return
    paths = {f"--{name}" for name, hint in hints.items() if Path in (hint, *typing.get_args(hint))}
    lists = {f"--{name}" for name, hint in hints.items() if item_type(hint) is not None}
    for option, values in _runs(words):
        name, equals, value = option.partition("=")
        name = "--output" if name == "-o" else name
        own, others = ([value], values) if equals or not name else (values[:1], values[1:])
        if name in paths and "" in own:
            raise UserError(f"{name} is empty; give a name (is a variable of the shell not set?)")
        if name not in lists and "" in others:
            raise UserError("the name of a file or folder is empty; give one (is a variable of the shell not set?)")


def item_type(hint: Any) -> Any:
    """The X of list[X], of X | list[X] or of tuple[X, X], None for other annotations."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    for option in typing.get_args(hint) if union else (hint,):
        items = typing.get_args(option)
        if typing.get_origin(option) is list or (typing.get_origin(option) is tuple and len(set(items)) == 1):
            return items[0]
    return None


def _runs(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    option, values = "", list[str]()
    for word in words:
        if word.startswith("-") and not _is_number(word):
            yield option, values
            option, values = word, []
        else:
            values = [*values, word]
    yield option, values


def _fits(word: str, item: Any) -> bool:
    if typing.get_origin(item) is typing.Literal:
        return word in typing.get_args(item)
    return item not in (int, float) or all(_is_number(part) for part in word.split(","))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _written(option: str, values: list[str], item: Any) -> list[str]:
    if item is None or not values or values[0].startswith("["):
        return [option, *values] if option else values
    if item in (int, float):
        parts = [part for value in values for part in value.split(",")]
        if all(_is_number(part) for part in parts):
            return [option, f"[{', '.join(parts)}]"]
        return [option, *values]  # the parser says what is wrong with it
    return [option, json.dumps(values)]
