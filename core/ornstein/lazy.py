"""A package whose functions are imported on first use, so that help pages and importing it stay light."""

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


def lazy_package(name: str, modules: Mapping[str, str]) -> None:
    """Let the package `name` have the attributes of `modules`, each taken from its module when it is first asked for.

    An attribute may be called like its module: importing the module does not put it in the attribute's place.
    """

    class Package(ModuleType):
        def __setattr__(self, attribute: str, value: Any) -> None:
            if attribute in modules and isinstance(value, ModuleType):
                value = getattr(value, attribute)
            super().__setattr__(attribute, value)

        def __getattr__(self, attribute: str) -> Any:
            if attribute not in modules:
                raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
            return getattr(importlib.import_module(modules[attribute]), attribute)

        def __dir__(self) -> list[str]:
            return sorted({*super().__dir__(), *modules})

    sys.modules[name].__class__ = Package
