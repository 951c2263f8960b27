"""What differs between two sweeps: what was searched, the data, the code, versions and options."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from birdclef_core.config import flatten
from sweeps.options import SweepOptions
from sweeps.schedule.records import SweepPart, SweepRecord

_NOT_SAID = ("settings", "search", "name", "storage", "tags", "note", "on_end", "on_best", "address", "tracking_uri")
"""Options that say nothing of what a sweep finds, or are compared with the search."""
_MAX_SHOWN = 90


def changes(first: SweepRecord, second: SweepRecord) -> list[str]:
    """Return what to print of two sweeps: a line for each thing that differs between their latest parts."""
    one, other = first.parts[-1], second.parts[-1]
    lines = [f"{first.name} and {second.name}"]
    groups = {
        "objective": _differing({"": str(first.objective)}, {"": str(second.objective)}),
        "search": _differing(_searched(one), _searched(other)),
        "recipe": _differing(_recipes(one), _recipes(other)),
        "data": _differing({"": first.data_fingerprint[:12]}, {"": second.data_fingerprint[:12]}),
        "first weights": _differing(one.pretrained, other.pretrained),
        "code": _differing(
            {"": one.code_version[:12], "commit": one.git_commit[:13]},
            {"": other.code_version[:12], "commit": other.git_commit[:13]},
        ),
        "version": _differing(one.versions, other.versions),
        "option": _differing(_options(first.options), _options(second.options)),
    }
    for group, found in groups.items():
        lines += [f"  {group}{f' {name}' if name else ''}: {_text(a)} against {_text(b)}" for name, (a, b) in found.items()]
    return lines if len(lines) > 1 else [*lines, "  have the same search, data, code, versions and options."]


def flags(record: SweepRecord) -> list[str]:
    """Return the options of a sweep that are not the defaults, as flags."""
    return [f"--{name.replace('_', '-')} {value}" for name, value in _options(record.options).items()]


def _options(options: SweepOptions) -> dict[str, Any]:
    plain = SweepOptions(search=options.search)
    found = {
        field.name: getattr(options, field.name)
        for field in fields(SweepOptions)
        if field.name not in _NOT_SAID and getattr(options, field.name) != getattr(plain, field.name)
    }
    return found | {f"set {key}": value for key, value in options.settings.items()}


def _searched(part: SweepPart) -> dict[str, Any]:
    search = part.search
    space = {key: repr(parameter) for key, parameter in search.space.items()}
    return {"": search.name, "sampler": search.sampler, **space, **{f"pool {key}": size for key, size in search.pools.items()}}


def _recipes(part: SweepPart) -> dict[str, Any]:
    return {
        f"{recipe.name} {key}".strip(): value
        for recipe in part.search.recipes
        for key, value in {"": "there", **dict(flatten(recipe))}.items()
    }


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Names with different values; None where one of both lacks it. Of a group that one lacks, only its heading."""
    found = {
        name: (first.get(name), second.get(name)) for name in sorted({*first, *second}) if first.get(name) != second.get(name)
    }
    lone = {name for name in found if (name in first) != (name in second)}
    return {
        name: pair
        for name, pair in found.items()
        if not any(name != other and name.startswith(f"{other} ") and other in lone for other in found if other)
    }


def _text(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"
