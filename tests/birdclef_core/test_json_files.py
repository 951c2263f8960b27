"""JSON files come back as they were written, and what is wrong with one is said with its place and without a traceback."""

import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest
from damage import damages

from birdclef_core.errors import FileContentError, InputError
from birdclef_core.json_files import from_json, from_values, to_json


@dataclass(frozen=True)
class Circle:
    radius: float


@dataclass(frozen=True)
class Box:
    width: float
    height: float = 1.0

    def __post_init__(self) -> None:
        if self.width > 100:
            raise InputError(f"width <= 100 must hold, but got {self.width}.")


@dataclass(frozen=True, kw_only=True)
class Thing:
    name: str
    count: int = 0
    weight: float | None = None
    is_new: bool = False
    colour: Literal["red", "blue"] = "red"
    parts: tuple[Box, ...] = ()
    sizes: list[int] = field(default_factory=list)
    shapes: Mapping[str, Circle | Box] = field(default_factory=dict)
    others: Mapping[str, Circle | Box] = field(default_factory=dict)
    values: dict[str, str | int | bool] = field(default_factory=dict)
    place: tuple[int, int, float] = (0, 0, 0.0)
    anything: Any = None


THING = Thing(
    name="ü\n",
    count=2**70,
    weight=0.1,
    is_new=True,
    colour="blue",
    parts=(Box(1.0), Box(2.0, 3.0)),
    sizes=[1],
    shapes={"a": Circle(1.5), "b": Box(2.0)},
    others={"c": Box(2.0)},
    values={"x": "text", "y": 5, "z": True},
    place=(1, 2, 0.5),
    anything={"list": [1, None, 2.5]},
)


def test_a_value_comes_back_as_it_was_written():
    for indent in (None, 1):
        assert from_json(Thing, to_json(THING, indent=indent), file="f") == THING
        assert from_json(Thing, to_json(THING, indent=indent).encode(), file="f") == THING
    assert from_values(Circle, {"radius": 2.0}, file="f") == Circle(2.0)
    assert from_json(dict[str, Any], '{"a": [1]}', file="f") == {"a": [1]}


def test_numbers_that_are_not_finite_survive():
    assert to_json(Circle(math.inf)) == '{"radius":Infinity}'
    assert from_json(Circle, to_json(Circle(-math.inf)), file="f").radius == -math.inf
    assert math.isnan(from_json(Circle, to_json(Circle(math.nan)), file="f").radius)
    again = from_json(Thing, to_json(replace(THING, anything=[math.nan])), file="f")
    assert math.isnan(again.anything[0])


def test_a_whole_number_is_a_number_and_becomes_one():
    radius = from_json(Circle, '{"radius": 5}', file="f").radius
    assert radius == 5.0 and type(radius) is float


@pytest.mark.parametrize("damage", list(damages(Thing, to_json(THING))), ids=lambda damage: damage.what)
def test_damage_is_refused_with_its_place(damage):
    with pytest.raises(FileContentError) as error:
        from_json(Thing, damage.content, file="/sweep/thing.json")
    assert str(error.value).startswith("/sweep/thing.json cannot be read: ")
    assert damage.place in error.value.problem
    assert "pydantic" not in str(error.value) and "http" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"count": "high"}, "count must be a whole number, but is 'high'"),
        ({"count": True}, "count must be a whole number, but is true"),
        ({"weight": [1]}, "weight must be a number, but is a list"),
        ({"is_new": 1}, "is_new must be true or false, but is 1"),
        ({"name": None}, "name must be text, but is null"),
        ({"colour": "purple"}, "colour must be 'red' or 'blue', but is 'purple'"),
        ({"parts": {}}, "parts must be a list, but is an object"),
        ({"parts": [{"width": 1.0, "height": "h" * 50}]}, f"parts.0.height must be a number, but is '{'h' * 40}...'"),
        ({"parts": [3]}, "parts.0 must be an object, but is 3"),
        ({"parts": [{"width": 101, "height": 1}]}, "parts.0: width <= 100 must hold, but got 101.0"),
        ({"shapes": {"a": {"radius": "r"}}}, "shapes.a.radius must be a number, but is 'r'"),
        ({"shapes": {"a": {"width": 1}}}, "shapes.a.height is missing"),
        ({"shapes": {"a": {}}}, "shapes.a.radius is missing"),
        ({"values": {"x": []}}, "values.x must be text, a whole number or true or false, but is a list"),
        ({"warmth": 1}, "warmth is not a field of this version of the code"),
    ],
)
def test_an_error_says_what_must_hold_and_what_does_not(change, problem):
    with pytest.raises(FileContentError) as error:
        from_values(Thing, {**from_json(dict[str, Any], to_json(THING), file=""), **change}, file="f")
    assert error.value.problem == problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "it is empty"),
        (b"\xff", "it is not UTF-8 text"),
        ("[]", "it must be an object, but is a list"),
        ('{"radius"', "it is not JSON (EOF while parsing an object at line 1 column 9)"),
        ('{"radius": 1, "a": 1, "b": 1, "c": 1, "d": 1}', "a is not a field of this version of the code; b is not"),
    ],
)
def test_a_file_that_holds_no_such_object_is_refused(content, problem):
    with pytest.raises(FileContentError) as error:
        from_json(Circle, content, file="f")
    assert error.value.problem.startswith(problem)
    assert error.value.file == "f"


def test_only_the_first_problems_are_named():
    with pytest.raises(FileContentError, match=r"a is not .*; b is not .*; c is not [^;]*; and 2 problems more\.$"):
        from_values(Circle, {"radius": 1, **dict.fromkeys("abcde", 1)}, file="f")


def test_an_error_of_the_whole_object_has_no_place():
    with pytest.raises(FileContentError, match=r"^f cannot be read: width <= 100 must hold, but got 101\.0\.$"):
        from_values(Box, {"width": 101, "height": 1}, file="f")


def test_missing_fields_take_their_defaults_where_that_is_asked_for():
    assert from_values(Box, {"width": 2}, file="f", defaults=True) == Box(2.0)
    with pytest.raises(FileContentError, match="width is missing"):
        from_values(Box, {"height": 2}, file="f", defaults=True)
    with pytest.raises(FileContentError, match="height is missing"):
        from_values(Box, {"width": 2}, file="f")


def test_a_name_that_is_no_utf8_does_not_stop_a_writer():
    assert from_json(dict[str, str], to_json({"path": "a\udcff.wav"}), file="f") == {"path": "a?.wav"}
    assert from_json(Thing, to_json(replace(THING, name="\udcff"), indent=1), file="f") == replace(THING, name="?")


def test_what_json_has_no_form_for_is_a_fault_of_the_writer():
    with pytest.raises(TypeError):
        to_json({"a": object()})


def test_importing_the_module_does_not_import_pydantic():
    code = "import sys, birdclef_core.json_files; sys.exit('pydantic' in sys.modules or 'pydantic_core' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
