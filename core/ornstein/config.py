"""Components as plain data and back: `{"class_path": ..., "init_args": {...}}`, the form of recipes and checkpoints.

A component keeps every argument of its __init__ under an attribute of the same name; that is all `describe` needs.
Specs may come from files of unknown origin, so `build` makes objects only of classes that are defined in the packages
`ornstein` and `ornstein_*`, that are of the kind wanted in their place, and with arguments of the annotated types.
"""

import collections.abc
import contextlib
import importlib
import inspect
import json
import types
import typing
from pathlib import PurePath
from typing import Any, TypeVar, cast

from ornstein.errors import UserError

T = TypeVar("T")
Spec = dict[str, Any]

_PLAIN = (bool, int, float, str)
_SEQUENCES = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)
_MAPPINGS = (dict, collections.abc.Mapping)


def describe(component: Any) -> Spec:
    """Return the spec of a component, ready for JSON or YAML.

    Raises:
        TypeError: the class is not one of ours, hides an argument, or an argument is neither plain nor a component.
    """
    cls = type(component)
    path = f"{cls.__module__}.{cls.__qualname__}"
    if not _ours(cls.__module__) or "<locals>" in path:
        raise TypeError(f"{path} is no component: only importable classes of ornstein packages are")
    arguments = {}
    for name, parameter in _parameters(cls).items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"{path} takes *{name}; a component names every argument")
        if not hasattr(component, name):
            raise TypeError(f"{path} does not keep its argument {name} as an attribute")
        arguments[name] = _plain(getattr(component, name), f"{path}.{name}")
    return {"class_path": path, "init_args": arguments}


def build(spec: Any, kind: type[T]) -> T:
    """Make the component that `spec` describes.

    Args:
        spec: {"class_path": "ornstein...", "init_args": {...}}, components nested at will.
        kind: the class that it must be an instance of.

    Raises:
        UserError: the spec is malformed or names a class or argument that is unknown, missing or of the wrong type.
    """
    return cast(T, _component(spec, (kind,), "spec"))


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        if "class_path" in value or not all(isinstance(key, str) for key in value):
            raise TypeError(f"{where}: a dict needs string keys other than class_path")
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    return describe(value)


def _component(spec: Any, kinds: tuple[type, ...], where: str) -> Any:
    if not isinstance(spec, dict) or not {"class_path"} <= spec.keys() <= {"class_path", "init_args"}:
        raise UserError(f"{where}: expected a mapping with class_path and init_args, got {_short(spec)}")
    path, arguments = spec["class_path"], spec.get("init_args") or {}
    cls = _find(path, where)
    if not any(kind is object or _is_protocol(kind) or issubclass(cls, kind) for kind in kinds):
        raise UserError(f"{where}: {path} is not a {' or '.join(kind.__qualname__ for kind in kinds)}")
    if inspect.isabstract(cls):
        raise UserError(f"{where}: {path} is abstract; name one of the classes derived from it")
    if not isinstance(arguments, dict):
        raise UserError(f"{where}: init_args of {path} must be a mapping, got {_short(arguments)}")

    parameters = _parameters(cls)
    unknown = [str(name) for name in arguments if name not in parameters]
    if unknown:
        raise UserError(f"{where}: {path} has no argument {unknown[0]}; it takes {', '.join(parameters) or 'none'}")
    missing = [name for name, p in parameters.items() if p.default is p.empty and name not in arguments]
    if missing:
        raise UserError(f"{where}: {path} needs the argument {missing[0]}")
    hints = typing.get_type_hints(cls.__init__)  # type: ignore[misc]  # read, not called
    values = {
        name: _value(value, hints.get(name, Any), f"{cls.__qualname__}.{name}") for name, value in arguments.items()
    }
    try:
        return cls(**values)
    except ValueError as error:
        raise UserError(f"{where}: {path} refuses its arguments: {error}") from error


def _find(path: Any, where: str) -> type:
    parts = path.split(".") if isinstance(path, str) else []
    if len(parts) < 2 or not _ours(parts[0]) or not all(part.isidentifier() for part in parts):
        raise UserError(f"{where}: class_path must name a class of an ornstein package, got {_short(path)}")
    module_name, name = path.rsplit(".", 1)
    if any(part.startswith("_") for part in parts):
        raise UserError(f"{where}: {path} is private")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(f"{where}: cannot import {module_name}: {error}; is its app installed?") from None
    cls = getattr(module, name, None)
    # a module also holds what it imported: torch.nn.Module, pathlib.Path; only what our packages define counts
    if not isinstance(cls, type) or not _ours(cls.__module__):
        raise UserError(f"{where}: {module_name} defines no class {name}")
    return cls


def _value(value: Any, hint: Any, where: str) -> Any:
    """Return `value` as the annotation `hint` wants it: specs become components, lists tuples, integers floats."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _value(value, inner[0], where)
    if origin in (typing.Union, types.UnionType):
        return _any_of(value, inner, where)
    if origin is typing.Literal:
        if value not in inner:
            raise _mismatch(value, hint, where)
        return value
    if isinstance(value, dict) and "class_path" in value:
        return _component(value, (hint if isinstance(hint, type) else object,), where)
    plain_kind = origin or hint
    if plain_kind in _SEQUENCES and (inner or plain_kind is not collections.abc.Iterable):
        return _sequence(value, plain_kind, inner, where)
    if plain_kind in _MAPPINGS:
        if not isinstance(value, dict):
            raise _mismatch(value, hint, where)
        item = inner[1] if inner else Any
        return {key: _value(content, item, f"{where}.{key}") for key, content in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in _PLAIN:
        if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
            raise _mismatch(value, hint, where)
        return value
    if hint in (None, type(None)):
        if value is not None:
            raise _mismatch(value, hint, where)
        return None
    if isinstance(hint, type) and issubclass(hint, PurePath) and isinstance(value, str):
        return hint(value)
    if isinstance(hint, type) and hint is not object and not _is_protocol(hint):
        raise _mismatch(value, hint, where)  # a component is wanted and plain data given
    return value


def _any_of(value: Any, hints: tuple[Any, ...], where: str) -> Any:
    if isinstance(value, dict) and "class_path" in value:
        kinds = tuple(hint for hint in hints if isinstance(hint, type) and hint is not type(None))
        return _component(value, kinds or (object,), where)
    exact = [hint for hint in hints if hint is type(value)]  # 1 stays an integer for int | float
    for hint in [*exact, *hints]:
        with contextlib.suppress(UserError):
            return _value(value, hint, where)
    raise UserError(f"{where}: {_short(value)} is none of {', '.join(_name(hint) for hint in hints)}")


def _sequence(value: Any, kind: Any, inner: tuple[Any, ...], where: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise UserError(f"{where}: expected a list, got {_short(value)}")
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        if len(value) != len(inner):
            raise UserError(f"{where}: expected {len(inner)} items, got {len(value)}")
        hints = list(inner)
    else:
        hints = [inner[0] if inner else Any] * len(value)
    items = [_value(item, hint, f"{where}[{i}]") for i, (item, hint) in enumerate(zip(value, hints, strict=True))]
    return items if kind is list else tuple(items)


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    if cls.__init__ is object.__init__:  # type: ignore[misc]
        return {}
    return dict(list(inspect.signature(cls.__init__).parameters.items())[1:])  # type: ignore[misc]  # without self


def _ours(module: str) -> bool:
    package = module.partition(".")[0]
    return package == "ornstein" or package.startswith("ornstein_")


def _is_protocol(kind: type) -> bool:
    return bool(getattr(kind, "_is_protocol", False))


def _mismatch(value: Any, hint: Any, where: str) -> UserError:
    return UserError(f"{where}: expected {_name(hint)}, got {_short(value)}")


def _name(hint: Any) -> str:
    return getattr(hint, "__qualname__", None) or str(hint).replace("typing.", "")


def _short(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
