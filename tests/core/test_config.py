"""Components to plain data and back, and everything that build must refuse."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ornstein.config import build, describe
from ornstein.errors import UserError

MODULE = "ornstein_config_test"  # the classes below pretend to live in an app's package


class Shape:
    """An abstract kind."""


class Speaks(Protocol):
    def speak(self) -> str: ...


@dataclass(frozen=True)
class Circle(Shape):
    radius: float = 1.0
    name: str | None = None


@dataclass(frozen=True)
class Group(Shape):
    members: tuple[Shape, ...]
    weights: list[float] = field(default_factory=list)
    size: tuple[int, int] = (1, 2)
    labels: dict[str, int] = field(default_factory=dict)
    mode: Literal["a", "b"] = "a"
    best: Shape | None = None
    limit: int | float = 1
    speaker: Speaks | None = None
    kind: ClassVar[str] = "group"

    def __post_init__(self) -> None:
        if self.size[0] < 0:
            raise ValueError("size must not be negative")


class Network(nn.Module):
    def __init__(self, width: int, inner: nn.Module | None = None, levels: Sequence[int] = (1, 2), flag: bool = False):
        super().__init__()
        self.width, self.inner, self.levels, self.flag = width, inner, tuple(levels), flag

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and describe(self) == describe(other)

    __hash__ = nn.Module.__hash__


class Plain(Shape):
    pass


class Forgetful:
    def __init__(self, width: int) -> None:
        self.w = width


class Greedy:
    def __init__(self, **options: Any) -> None:
        self.options = options


class Holder:
    def __init__(self, content: Any) -> None:
        self.content = content


@pytest.fixture(scope="module", autouse=True)
def pretended_package() -> Any:
    module = ModuleType(MODULE)
    classes = [Shape, Circle, Group, Network, Plain, Forgetful, Greedy, Holder]
    real = Circle.__module__
    for cls in classes:
        cls.__module__ = MODULE
        setattr(module, cls.__name__, cls)
    module.Linear = nn.Linear  # type: ignore[attr-defined]  # what a module imports is not what it defines
    sys.modules[MODULE] = module
    yield
    del sys.modules[MODULE]
    for cls in classes:
        cls.__module__ = real


def spec(name: str, /, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"{MODULE}.{name}", "init_args": arguments}


def roundtrip(component: Any, kind: type) -> Any:
    return build(json.loads(json.dumps(describe(component))), kind)


def test_describe() -> None:
    group = Group((Circle(2.0), Plain()), labels={"x": 1})
    assert describe(group) == spec(
        "Group",
        members=[spec("Circle", radius=2.0, name=None), spec("Plain")],
        weights=[],
        size=[1, 2],
        labels={"x": 1},
        mode="a",
        best=None,
        limit=1,
        speaker=None,
    )


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: Circle(2.0, "c"), Shape),
        (Plain, Shape),
        (lambda: Group(()), Shape),
        (lambda: Group((Group((Circle(),)), Plain()), [0.5], (3, 4), {"k": 2}, "b", Circle(3.0), 2.5), Group),
        (lambda: Network(3, Network(4, levels=[7]), flag=True), nn.Module),
    ],
)
def test_roundtrip(make: Any, kind: type) -> None:
    component = make()
    again = roundtrip(component, kind)
    assert type(again) is type(component)
    assert describe(again) == describe(component)


def test_values_come_back_in_their_types() -> None:
    group = build(spec("Group", members=[], weights=[1], size=[3, 4], limit=2), Group)
    assert group.members == ()
    assert group.size == (3, 4)
    assert group.weights == [1.0]
    assert type(group.weights[0]) is float
    assert type(group.limit) is int
    assert type(build(spec("Circle", radius=2), Circle).radius) is float


@given(
    radii=st.lists(st.floats(allow_nan=False), max_size=4),
    labels=st.dictionaries(st.text().filter(lambda key: key != "class_path"), st.integers(), max_size=3),
    limit=st.integers() | st.floats(allow_nan=False),
)
def test_roundtrip_of_any_value(radii: list[float], labels: dict[str, int], limit: float) -> None:
    group = Group(tuple(Circle(radius) for radius in radii), radii, labels=labels, limit=limit)
    assert roundtrip(group, Shape) == group


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("Circle", "expected a mapping with class_path"),
        ({}, "expected a mapping with class_path"),
        ({"class_path": "x", "init_args": {}, "more": 1}, "expected a mapping with class_path"),
        ({"class_path": 3}, "must name a class of an ornstein package"),
        ({"class_path": "os.system", "init_args": {"command": "true"}}, "must name a class of an ornstein package"),
        ({"class_path": "torch.nn.Linear", "init_args": {}}, "must name a class of an ornstein package"),
        ({"class_path": "ornsteinx.Circle"}, "must name a class of an ornstein package"),
        ({"class_path": "ornstein"}, "must name a class of an ornstein package"),
        ({"class_path": "ornstein..Circle"}, "must name a class of an ornstein package"),
        ({"class_path": "ornstein.__main__.main"}, "is private"),
        ({"class_path": "ornstein_nowhere.Circle"}, "cannot import ornstein_nowhere"),
        ({"class_path": "ornstein.nowhere.Circle"}, "cannot import ornstein.nowhere"),
        ({"class_path": "ornstein.files.Path", "init_args": {}}, "defines no class Path"),
        ({"class_path": "ornstein.files.os"}, "defines no class os"),
        ({"class_path": "ornstein.files.atomic_path"}, "defines no class atomic_path"),
        (spec("Square"), "defines no class Square"),
        (spec("Linear", in_features=1, out_features=1), "defines no class Linear"),
        (spec("Network", width=1), "is not a Shape"),
        (spec("Circle", width=1), "has no argument width; it takes radius, name"),
        (spec("Group"), "needs the argument members"),
        (spec("Circle", radius="big"), 'Circle.radius: expected float, got "big"'),
        (spec("Circle", radius=True), "expected float"),
        (spec("Circle", name=3), "is none of str, NoneType"),
        (spec("Group", members=3), "expected a list"),
        (spec("Group", members=[3]), r"Group.members\[0\]: expected Shape, got 3"),
        (spec("Group", members=[spec("Network", width=1)]), "is not a Shape"),
        (spec("Group", members=[], size=[1]), "expected 2 items, got 1"),
        (spec("Group", members=[], size=[1, 2.5]), "expected int, got 2.5"),
        (spec("Group", members=[], size=[1, True]), "expected int, got true"),
        (spec("Group", members=[], mode="c"), "expected Literal"),
        (spec("Group", members=[], labels=[1]), "expected dict"),
        (spec("Group", members=[], best=spec("Circle", radius="big")), "expected float"),
        (spec("Group", members=[], size=[-1, 0]), "size must not be negative"),
        ({"class_path": f"{MODULE}.Circle", "init_args": [1]}, "must be a mapping"),
    ],
)
def test_build_refuses(bad: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(bad, Shape)


def test_abstract_classes_are_refused() -> None:
    with pytest.raises(UserError, match="is abstract"):
        build({"class_path": "ornstein.process.affine.Process"}, object)


@pytest.mark.parametrize("nested", [nn.Linear(1, 1), object(), Path, {1: 2}, {"class_path": "x"}, {1, 2}, 1j])
def test_describe_refuses_what_could_not_come_back(nested: Any) -> None:
    with pytest.raises(TypeError):
        describe(Holder(nested))


@pytest.mark.parametrize(
    ("component", "message"),
    [(Forgetful(3), "does not keep its argument width"), (Greedy(a=1), "names every argument")],
)
def test_describe_names_a_component_that_breaks_the_rule(component: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        describe(component)
