"""Reads and writes JSON whose content is checked against the dataclass that describes it.

Reading is strict: text is no number, true is no whole number, and every field must be there and no other. A whole number is a
number, and NaN and Infinity are numbers, as in Python's own json. A dataclass that checks itself in `__post_init__` is asked too.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from birdclef_core.errors import FileContentError, InputError

if TYPE_CHECKING:  # pydantic is slow to import and not needed to print a help text
    from pydantic_core import ErrorDetails, SchemaValidator

T = TypeVar("T")

MAX_PROBLEMS = 3
"""An error names this many problems of a file and counts the others."""
MAX_SHOWN = 40
"""An error shows this many characters of a wrong value."""

_KINDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "none": "null",
    "list": "a list",
    "tuple": "a list",
    "dict": "an object",
    "dataclass": "an object",
}
"""What an error calls the types of pydantic's schemas."""
_KINDS_OF_ERRORS = {f"{name}_type": text for name, text in _KINDS.items()} | {
    "string_type": "text",
    "mapping_type": "an object",
    "int_from_float": "a whole number",
    "none_required": "null",
}
_TAG = "?"
"""The first character of a place in pydantic's errors that names a class of a union and no place in the file."""


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return dataclasses, lists, mappings and plain values as JSON text. Raises TypeError for a value that JSON has no form for."""
    import pydantic_core

    try:
        return pydantic_core.to_json(value, indent=indent, inf_nan_mode="constants").decode()
    except pydantic_core.PydanticSerializationError:
        # Half a surrogate pair, which stands for a byte that is no UTF-8 in the name of a file, is written as a question mark.
        text = json.dumps(value, indent=indent, ensure_ascii=False, default=asdict)
        return text.encode(errors="replace").decode()


def from_json(kind: type[T], text: str | bytes, *, file: str, defaults: bool = False) -> T:
    """Return the value of type `kind` that a file's text stands for.

    `file` is the file's name for the error. With `defaults`, a field that is missing takes its default. Raises FileContentError,
    which names the file, the first wrong fields and what is wrong with each, for anything else.
    """
    from pydantic_core import ValidationError

    try:
        return cast(T, _validator(cast(Any, kind), defaults).validate_json(text))
    except ValidationError as error:
        raise FileContentError(file, _problem(error.errors(include_url=False), text)) from None


def from_values(kind: type[T], values: Any, *, file: str, defaults: bool = False) -> T:
    """Return the value of type `kind` that plain JSON values stand for; raises FileContentError as `from_json` does."""
    return from_json(kind, to_json(values), file=file, defaults=defaults)


@cache
def _validator(kind: Any, defaults: bool) -> "SchemaValidator":
    from pydantic import TypeAdapter
    from pydantic_core import SchemaValidator

    return SchemaValidator(_Rules(TypeAdapter(kind).core_schema, defaults).schema, {"strict": True})


class _Rules:
    """A schema of pydantic's with this module's rules for dataclasses and unions put in, at any depth."""

    def __init__(self, schema: Any, defaults: bool) -> None:
        self._defaults = defaults
        self._classes = dict(_classes(schema))
        self.schema = self._strict(schema)

    def _strict(self, schema: Any) -> Any:
        if isinstance(schema, list):
            return [self._strict(item) for item in schema]
        if not isinstance(schema, dict):
            return schema
        schema = {key: self._strict(item) for key, item in schema.items()}
        match schema.get("type"):
            case "dataclass-field" if schema["schema"]["type"] == "default" and not self._defaults:
                return {**schema, "schema": schema["schema"]["schema"]}
            case "dataclass":
                return _strict_dataclass(schema)
            case "union" if all(item["type"] in _KINDS for item in schema["choices"]):
                return {**schema, "custom_error_type": "union", "custom_error_message": _either(schema["choices"])}
            case "union":
                return self._told_apart(schema["choices"])
        return schema

    def _told_apart(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """A union of dataclasses, of which an object is the one whose fields are most like its own."""
        tags = {f"{_TAG}{number}": item for number, item in enumerate(choices)}
        names = {tag: {item.name for item in fields(self._class_of(choice))} for tag, choice in tags.items()}
        return {"type": "tagged-union", "choices": tags, "discriminator": _most_alike(names)}

    def _class_of(self, schema: dict[str, Any]) -> Any:
        while schema["type"] == "function-after":
            schema = schema["schema"]
        return self._classes[schema["schema_ref"]] if schema["type"] == "definition-ref" else schema["cls"]


def _either(choices: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(_KINDS[item["type"]] for item in choices))
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _classes(schema: Any) -> Iterator[tuple[str, Any]]:
    """The dataclasses of a schema by the names under which it refers to them."""
    if isinstance(schema, list):
        for item in schema:
            yield from _classes(item)
    elif isinstance(schema, dict):
        if schema.get("type") == "dataclass":
            yield schema.get("ref", ""), schema["cls"]
        for item in schema.values():
            yield from _classes(item)


def _strict_dataclass(schema: dict[str, Any]) -> dict[str, Any]:
    schema["config"] = {**schema.get("config", {}), "strict": True, "extra_fields_behavior": "forbid"}
    if not schema["post_init"]:
        return schema
    # Called from here and not by pydantic, which gives an error of ours no place in the file.
    checked = {"type": "function-after", "function": {"type": "no-info", "function": _check_itself}, "schema": schema}
    schema["post_init"] = False
    if ref := schema.pop("ref", None):
        checked["ref"] = ref
    return checked


def _check_itself(value: Any) -> Any:
    from pydantic_core import PydanticCustomError

    try:
        value.__post_init__()
    except InputError as error:
        raise PydanticCustomError("rule", "{rule}", {"rule": str(error).rstrip(".")}) from None
    return value


def _most_alike(names: Mapping[str, set[str]]) -> Callable[[Any], str]:
    """A function that returns the tag of the class whose fields are most like those of an object."""

    def tag_of(value: Any) -> str:
        given = set(value) if isinstance(value, dict) else set()
        return min(names, key=lambda tag: len(names[tag] ^ given))

    return tag_of


def _problem(errors: "list[ErrorDetails]", text: str | bytes) -> str:
    """What is wrong with a file, for a person."""
    if errors[0]["type"] == "json_invalid":
        return _not_json(text, str(errors[0].get("ctx", {}).get("error", "")))
    shown = "; ".join(_one_problem(error) for error in errors[:MAX_PROBLEMS])
    return shown + (f"; and {len(errors) - MAX_PROBLEMS} problems more" if len(errors) > MAX_PROBLEMS else "")


def _not_json(text: str | bytes, reason: str) -> str:
    if not text.strip():
        return "it is empty"
    try:
        text.decode() if isinstance(text, bytes) else text.encode()
    except UnicodeError:
        return "it is not UTF-8 text"
    return f"it is not JSON ({reason})"


def _one_problem(error: "ErrorDetails") -> str:
    place = ".".join(str(part) for part in error["loc"] if not str(part).startswith(_TAG))
    kind, context = error["type"], error.get("ctx", {})
    if kind == "rule":
        return f"{place}: {context['rule']}" if place else str(context["rule"])
    place = place or "it"
    if kind == "missing":
        return f"{place} is missing"
    if kind == "unexpected_keyword_argument":
        return f"{place} is not a field of this version of the code"
    must_be = context["expected"] if kind == "literal_error" else _KINDS_OF_ERRORS.get(kind, error["msg"])
    return f"{place} must be {must_be}, but is {_shown(error['input'])}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return repr(value if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]}...")
    return json.dumps(value)
