"""Options from a function's signature, and parsing errors as one line."""

import difflib
import re
import typing
from collections.abc import Callable
from typing import Any, NoReturn

from jsonargparse import ActionYesNo, ArgumentParser, Namespace, auto_cli

from ornstein.cli.words import item_type, join_lists, refuse_empty_paths
from ornstein.errors import UserError

NUMBERS = {"int": "whole number", "float": "number"}

WRONG_VALUE = (
    r"(?P<name>[\w.]+): (?:Expected an? (?P<one>Literal\[[^\]]+\]|int\b|float\b)|Does not validate against any of the "
    r"Union subtypes Subtypes: \[(?:int, (?=float))?(?P<several>Literal\[[^\]]+\]|int|float)"
    r"(?:, list\[(?P=several)\])?, NoneType\])"
)
"""What the parser says of X, X | None and X | list[X] | None."""

UNKNOWN_KEY = r"^(?:Subcommand '\w+' does not accept option '([^']+)'|Option '([^']+)' is not accepted)"
"""What it says of a key in a file of settings."""


class StrictParser(ArgumentParser):
    """A parser that takes no abbreviations and reports a mistake as a UserError instead of a page of usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | kwargs)

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Namespace:
        """Read a file of settings; one that is no text, such as a recording, is named."""
        try:
            return super().parse_path(path, *args, **kwargs)
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is no text; give a file of settings (YAML)") from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise UserError with the message, the nearest known option, and where help is."""
        if not self.exit_on_error:  # inner parsers try one type after another and expect their own exception
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        hint = _suggestion(message, parser)
        raise UserError(f"{_readable(message, parser)}{hint} (see: {_command(parser)} --help)") from None


class VerbParser(StrictParser):
    """The parser of a domain verb: booleans are bare flags, and -o stands for --output."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._one_or_more: set[str] = set()
        super().__init__(*args, **kwargs)

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """Add an argument.

        A bool becomes the flag --name (with --no_name if it is true by default), `output` becomes -o/--output even if
        it is required, and a positional argument that may be a list takes several words; for X | list[X] a single word
        is an X.
        """
        if args in {("output",), ("--output",)}:
            if args == ("output",):
                kwargs["required"] = True
            args = ("-o", "--output")
        hint = getattr(kwargs.get("action"), "_typehint", None)
        if hint is not None and not args[0].startswith("-") and (item := item_type(hint)) is not None:
            del kwargs["action"]
            kwargs |= {"type": item, "nargs": "+"}
            if item in typing.get_args(hint):
                self._one_or_more.add(args[0])
        if kwargs.get("type") is bool and args[0].startswith("--"):
            del kwargs["type"]
            kwargs["action"] = ActionYesNo if kwargs.get("default") else "store_true"
        return super().add_argument(*args, **kwargs)

    def _apply_actions(self, cfg: Any, *args: Any, **kwargs: Any) -> Namespace:
        """A file of settings may give one X where the command line takes several words."""
        alone = {name: [cfg[name]] for name in self._one_or_more if isinstance(cfg.get(name), str)}
        return super()._apply_actions({**cfg, **alone} if alone and isinstance(cfg, dict) else cfg, *args, **kwargs)

    def instantiate(self, *args: Any, **kwargs: Any) -> Namespace:
        """The values as the function gets them."""
        values = super().instantiate(*args, **kwargs)
        for name in self._one_or_more:
            if len(values[name]) == 1:
                values[name] = values[name][0]
        return values


def run_function(function: Callable[..., Any], words: list[str], prog: str) -> Any:
    """Parse `words` by the signature of `function`, call it, and return its result.

    Raises:
        UserError: the words do not fit the signature, or the function found a mistake of the user.
    """
    refuse_empty_paths(function, words)
    return auto_cli(function, args=join_lists(function, words), as_positional=True, parser_class=VerbParser, prog=prog)


def _readable(message: str, parser: ArgumentParser) -> str:
    message = re.sub(r"Parser key \"([^\"]+)\":", r"\1:", message)
    message = re.sub(r"<class '([^']+)'>", r"\1", message).replace("typing.", "")
    message = " ".join(message.split()).rstrip(".")
    message = re.sub(UNKNOWN_KEY, lambda found: f"there is no option '{found[1] or found[2]}'", message)
    if found := re.match(r"Unexpected config:(.*)", message):
        seen = f" but{found[1]}" if found[1] else "; it is empty"
        return f"the file of --config holds no settings (name: value){seen}"
    return _wrong_value(message, parser) or message


def _wrong_value(message: str, parser: ArgumentParser) -> str | None:
    """A value that is no number, or none of the choices, in plain words; None where the message is about another."""
    found = re.match(WRONG_VALUE, message)
    if found is None:
        return None
    name, kind = found["name"], found["one"] or found["several"]
    value = message.rpartition(" value: ")[2].strip("[]'\"")
    told = f"--{name} {value}" if f"--{name}" in _options(parser) else f"{name} {value}"
    if kind in NUMBERS:
        return f"{told} is no {NUMBERS[kind]}"
    return f"{told} is unknown; use one of " + kind.removeprefix("Literal[").rstrip("]").replace("'", "")


def _suggestion(message: str, parser: ArgumentParser) -> str:
    if re.search(r"arguments are required: (fit|validate|test|predict)\.", message):
        return "; give a recipe with --config RECIPE.yaml"
    unknown = re.search(r"[Uu]nrecognized arguments: --([^\s=]+)", message) or re.match(UNKNOWN_KEY, message)
    if unknown is None:
        return ""
    word = next(group for group in unknown.groups() if group)
    if word in (positional := [action.dest for action in parser._get_positional_actions()]):
        return f"; give {word.upper()} without a name: {_command(parser)} {' '.join(positional).upper()}"
    options = [option[2:] for option in _options(parser) if option.startswith("--")]
    close = [option for option in options if option.startswith(word)] or [
        option for option in difflib.get_close_matches(word, options) if _alike(word, option)
    ]
    return f"; did you mean --{close[0]}?" if close else ""


def _alike(word: str, option: str) -> bool:
    """Whether the last parts of two dotted names are alike; the sections before them are hardly ever mistyped."""
    return bool(difflib.get_close_matches(word.rpartition(".")[2], [option.rpartition(".")[2]]))


def _options(parser: ArgumentParser) -> list[str]:
    known = list(parser._option_string_actions)
    subcommands = getattr(parser, "_subcommands_action", None)
    for inner in (subcommands.choices or {}).values() if subcommands else ():
        known += _options(inner)
    return known


def _command(parser: ArgumentParser) -> str:
    return re.sub(r"\s*\[options\]\s*", " ", parser.prog).strip()
