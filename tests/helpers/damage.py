"""Everything that may be wrong with a JSON file of ours, made from a file that is right.

A test of a codec goes over `damages` and expects the same clear error each time, and never another exception.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

Path = tuple[str | int, ...]

SAMPLES = {
    str: "purple",
    int: 77,
    float: 1.5,
    bool: True,
    NoneType: None,
    list: [[]],
    dict: {"purple": {}},
}
"""A value of each of JSON's types, which no field of a fitting type takes for a right one by chance."""


@dataclass(frozen=True)
class Damage:
    """A file's content that must be refused."""

    what: str
    content: bytes
    place: str = ""
    """Where the error must say that something is wrong, if that is in a field."""


def damages(kind: Any, text: str, *, defaults: bool = False) -> Iterator[Damage]:
    """Every kind of damage to a file that holds a `kind` (a dataclass). `defaults`: fields that have one may be missing."""
    yield from broken_files(text)
    right = json.loads(text)
    for path, hint in places(kind, right):
        name = ".".join(map(str, path))
        for sample in wrong_values(hint):
            yield Damage(f"{name} is {sample!r}", _with(right, path, sample), name)
        if is_dataclass(hint) and isinstance(_at(right, path), dict):
            yield Damage(
                f"{name} has an unknown field", _with(right, (*path, "colour"), 1), ".".join(map(str, (*path, "colour")))
            )
            for item in fields(hint):
                place = ".".join(map(str, (*path, item.name)))
                if not (defaults and _has_default(item)):
                    yield Damage(f"{place} is missing", _without(right, (*path, item.name)), place)


def broken_files(text: str) -> Iterator[Damage]:
    """Files that are not the JSON of an object."""
    content = text.encode()
    yield Damage("empty", b"")
    yield Damage("blank", b" \n")
    yield Damage("truncated", content[: len(content) // 2])
    yield Damage("without its last character", content.rstrip()[:-1])
    yield Damage("followed by something", content + b"}")
    yield Damage("not JSON", b"rubbish")
    yield Damage("not UTF-8", content[:1] + b'"\xff\xfe": 1, ' + content[1:])
    yield Damage("binary", bytes(range(256)))
    for other in (b"[]", b"null", b"5", b'"text"', b"NaN"):
        yield Damage(f"{other.decode()} and not an object", other)


def places(hint: Any, value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Where a value of a type is checked: each field, and the first item of each list and mapping, at any depth."""
    if hint is Any:
        return
    yield path, hint
    for part in _options(hint):
        arguments = get_args(part)
        if is_dataclass(part) and isinstance(value, dict) and value.keys() == {item.name for item in fields(part)}:
            hints = get_type_hints(part)
            for item in fields(part):
                yield from places(hints[item.name], value[item.name], (*path, item.name))
        elif _json_type(part) is list and isinstance(value, list) and value:
            yield from places(arguments[0], value[0], (*path, 0))
        elif _json_type(part) is dict and arguments and isinstance(value, dict) and value:
            key = next(iter(value))
            yield from places(arguments[1], value[key], (*path, key))


def _has_default(item: Field) -> bool:
    return item.default is not MISSING or item.default_factory is not MISSING


def wrong_values(hint: Any) -> list[Any]:
    """Values that a field of a type must not have."""
    allowed = {_json_type(part) for part in _options(hint)}
    if float in allowed:
        allowed.add(int)
    return [sample for kind, sample in SAMPLES.items() if kind not in allowed]


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _json_type(hint: Any) -> type | None:
    """The type of SAMPLES that a hint allows; a Literal allows none of them."""
    if is_dataclass(hint) or get_origin(hint) in (dict, Mapping):
        return dict
    origin = get_origin(hint)
    if origin is Literal:
        return None
    return list if origin in (list, tuple) else hint


def _at(values: Any, path: Path) -> Any:
    for part in path:
        values = values[part]
    return values


def _with(values: Any, path: Path, new: Any) -> bytes:
    if not path:
        return json.dumps(new).encode()
    values = copy.deepcopy(values)
    _at(values, path[:-1])[path[-1]] = new
    return json.dumps(values).encode()


def _without(values: Any, path: Path) -> bytes:
    values = copy.deepcopy(values)
    del _at(values, path[:-1])[path[-1]]
    return json.dumps(values).encode()
