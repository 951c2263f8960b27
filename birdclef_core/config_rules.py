"""Checks of the values of settings, which name the rule and the value that breaks it."""

from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from birdclef_core.errors import InputError


def require(condition: bool, rule: str, **values: object) -> None:
    """Raise InputError with the rule and the values if `condition` does not hold."""
    if not condition:
        raise InputError(f"{rule} must hold, but got {', '.join(f'{name}={value!r}' for name, value in values.items())}.")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError if `value` is none of the choices."""
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, but got {value!r}.")


def require_probabilities(config: object) -> None:
    """Raise InputError if a field of the config that is named as a probability is not between 0 and 1."""
    for item in fields(config):  # type: ignore[arg-type]
        if item.name == "prob" or item.name.endswith("_prob"):
            value = getattr(config, item.name)
            require(0 <= value <= 1, f"0 <= {item.name} <= 1", **{item.name: value})


def require_types(config: object) -> None:
    """Raise InputError if a field of the config has a value of another type than it is declared with.

    A whole number counts as a number, and a list as a tuple, of which each item that must be a config is looked at too.
    """
    config_type: Any = type(config)
    for name, kinds, inside in _declared(config_type):
        value = getattr(config, name)
        if type(value) not in kinds and not _stands_for(value, kinds):
            raise wrong_type(f"{type(config).__name__}.{name}", kinds, value)
        for item in value if inside else ():
            if not isinstance(item, inside):
                raise wrong_type(f"{type(config).__name__}.{name}", (inside,), item)


def _stands_for(value: object, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int)) or (tuple in kinds and isinstance(value, list))


@cache
def _declared(config_type: Any) -> tuple[tuple[str, tuple[type, ...], Any], ...]:
    """The fields of a config: name, plain types, and the config that its items must be if it is a tuple of configs."""
    declared = []
    for item in fields(config_type):
        inside = next((part for part in get_args(item.type) if is_dataclass(part)), None)
        declared.append((item.name, types_of(item.type), inside if get_origin(item.type) is tuple else None))
    return tuple(declared)


def types_of(hint: Any) -> tuple[type, ...]:
    """The plain types that a field of a config may have, from its annotation: `int | None` gives int and NoneType."""
    if isinstance(hint, UnionType):
        return tuple(kind for part in get_args(hint) for kind in types_of(part))
    if get_origin(hint) is Literal:
        return tuple({type(value) for value in get_args(hint)})
    return (get_origin(hint) or hint,)


def wrong_type(name: str, kinds: tuple[type, ...], value: object) -> InputError:
    """Return the error of a field that has a value of none of the types that it takes."""
    names = " or ".join("None" if kind is NoneType else kind.__name__ for kind in kinds)
    return InputError(f"{name} takes a {names}, but got {shortened(repr(value))}.")


def shortened(text: str, most: int = 200) -> str:
    """Return a text, or its beginning with the number of characters that are left out."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text) - most:,} characters more)"
