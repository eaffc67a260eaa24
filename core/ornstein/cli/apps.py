"""What an app tells the command line, and how installed apps are found."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ornstein.errors import UserError

GROUP = "ornstein.apps"


@dataclass(frozen=True)
class Verb:
    """One thing an app can do: a typed function, named and not imported.

    Attributes:
        target: "module:function"; the function's signature and Google-style docstring become options and help.
        summary: what it does, in a few words, for the list of verbs.
    """

    target: str
    summary: str


@dataclass(frozen=True)
class App:
    """One domain on the command line.

    Attributes:
        name: the word after `ornstein`; equal to the name of the entry point.
        summary: one line for the list of apps.
        verbs: name -> Verb, in the order in which help shows them.
        task: "module:Class" of the LightningModule behind fit, validate, test and predict; empty if nothing is trained.
        data: "module:Class" of its LightningDataModule.
        recipes: recipe files (YAML) read before the command line wherever they exist, later ones over earlier ones;
            relative names are looked up in the working folder.
    """

    name: str
    summary: str
    verbs: Mapping[str, Verb] = field(default_factory=dict)
    task: str = ""
    data: str = ""
    recipes: tuple[str, ...] = ()


def installed() -> dict[str, EntryPoint]:
    """Return the entry points of all installed apps by name, sorted; nothing is imported.

    Raises:
        UserError: two distributions provide an app of the same name.
    """
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise UserError(f"two apps are called {point.name} ({other.value}, {point.value}); uninstall one of them")
    return found


def load(point: EntryPoint) -> App:
    """Import the light `commands` module of an app and return its App.

    Raises:
        TypeError: the entry point names something else.
    """
    app = point.load()
    if not isinstance(app, App):
        raise TypeError(f"the entry point {point.name} = {point.value} must name an ornstein.cli.App, got {app!r}")
    return app


def resolve(target: str) -> Any:
    """Import and return what "module:name" names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
