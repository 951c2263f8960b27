"""Identities as hashes of canonical JSON, which holds everything that changes a result and nothing else."""

import hashlib
import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar, get_args

from birdclef_core.json_files import from_values

DataclassT = TypeVar("DataclassT")


def canonical(value: Any) -> Any:
    """Return `value` as plain JSON types: dataclasses without their runtime fields and without added fields at their default, tuples as
    lists.

    Raises TypeError for other types.
    """
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, dict):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        parts = ((item, getattr(value, item.name)) for item in _identity_fields(type(value)))
        return {item.name: _canonical_field(part, item) for item, part in parts if part != item.left_out}
    raise TypeError(f"{type(value).__name__} has no canonical form: {value!r}")


@dataclass(frozen=True)
class _IdentityField:
    """A field that is in an identity."""

    name: str
    takes_float: bool
    left_out: Any
    """The value with which it is left out; MISSING: with none."""
    form: Callable[[Any], Any] | None
    """Makes of its value what is in the identity; None: the value itself is."""


@cache
def _identity_fields(dataclass_type: type) -> tuple[_IdentityField, ...]:
    return tuple(
        _IdentityField(
            name=item.name,
            takes_float=item.type is float or float in get_args(item.type),
            left_out=item.default if item.metadata.get("added") else MISSING,
            form=item.metadata.get("form"),
        )
        for item in fields(dataclass_type)
        if not item.metadata.get("runtime")
    )


def _canonical_field(value: Any, item: _IdentityField) -> Any:
    if item.form is not None:
        return canonical(item.form(value))
    if item.takes_float and isinstance(value, int):
        return float(value)  # 5 must not differ from 5.0
    return _canonical_part(value) if is_dataclass(value) and isinstance(value, Hashable) else canonical(value)


@lru_cache(maxsize=1024)
def _canonical_part(value: Any) -> Any:
    # Most stages of a sweep have the same augmentation and noise.
    return canonical(value)


def restore(dataclass_type: type[DataclassT], values: Mapping[str, Any]) -> DataclassT:
    """Return the dataclass whose canonical form is `values`. Fields that it lacks, such as runtime fields, have their defaults.

    Raises InputError when `values` are not of this version of the class.
    """
    return from_values(dataclass_type, values, file=f"The recorded {dataclass_type.__name__}", defaults=True)


def fingerprint(value: Any) -> str:
    """Return the sha256 of the canonical JSON of `value`: 64 hexadecimal digits, equal on every machine."""
    return fingerprint_of_canonical(canonical(value))


def fingerprint_of_canonical(value: Any) -> str:
    """Return what `fingerprint` does, for a value that is in canonical form already: a driver makes thousands of chains at its start."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
