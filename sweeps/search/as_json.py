"""A search as it stands in a sweep's record, so that the sweep goes on with it whatever became of the file it was read from."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from birdclef_core.config import Recipe
from birdclef_core.errors import InputError
from birdclef_core.identity import restore
from sweeps.search.space import Choice, Parameter, Range, Search


def search_as_json(search: Search) -> dict[str, Any]:
    """The whole search as plain JSON types. Raises InputError when a choice has values that JSON has not."""
    values = asdict(search)
    if search_from_json(json.loads(json.dumps(values, default=repr))) != search:
        raise InputError(
            f"The values of every Choice of search {search.name!r} must be text, numbers, true, false or none: a sweep is resumed "
            "from its record."
        )
    return values


def search_from_json(values: Mapping[str, Any]) -> Search:
    """Raises InputError when `values` are of another version of the code."""
    try:
        return Search(
            name=values["name"],
            recipes=tuple(restore(Recipe, recipe) for recipe in values["recipes"]),
            space=_space(values["space"]),
            small_space=_space(values["small_space"]),
            pools=values["pools"],
            sampler=values["sampler"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"The search in a sweep's record must be one of this version of the code, but: {error!r}.") from error


def _space(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Parameter]:
    return {
        key: Choice(tuple(parameter["values"])) if "values" in parameter else Range(**parameter)
        for key, parameter in values.items()
    }
