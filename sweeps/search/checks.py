"""Checks a search before anything is trained: every end of every range, every choice and every pool, for every recipe."""

import difflib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from birdclef_core.config import Recipe, StageConfig, evolve
from birdclef_core.errors import InputError
from birdclef_core.identity import canonical
from birdclef_core.models.detector import check_clip_s
from sweeps.search.space import STAGE_GROUPS, Choice, Parameter, Range, Search

SIMILARITY = 0.5
"""How similar a known name must be to be suggested for a wrong one, from 0 to 1."""


def check_search(search: Search) -> None:
    """Raise InputError, with the parameter, the value and the rule, for a search that some draw of it could not train.

    Parameters are checked one at a time; a rule that several fields must keep together is found by the draw that breaks it.
    """
    for recipe in search.recipes:
        _check_end(search, recipe)
        for key, parameter in search.space.items():
            _check_parameter(search, recipe, key, parameter)
    _check_pools(search)


def check_small_recipes(full: Search, small: Search) -> None:
    """Raise InputError when recipes that differ would train the same stages under the small budget, which overwrites fields."""
    known: dict[str, str] = {}
    for before, after in zip(full.recipes, small.recipes, strict=True):
        key = str(canonical([after.model, after.stages]))
        if key in known and known[key] != before.name:
            raise InputError(
                f"Under the small budget, recipes must stay different, but {known[key]!r} and {before.name!r} of search {full.name!r} "
                "become the same: what they differ in is a field that the small budget sets. Use --budget full, which trains the "
                "recipes as they are."
            )
        known[key] = before.name


def _check_end(search: Search, recipe: Recipe) -> None:
    last = recipe.stages[-1]
    if last.label_space != "target":
        raise InputError(
            f"The last stage of a recipe must be scored on the target species, by which trials are compared, but recipe {recipe.name!r} of "
            f"search {search.name!r} ends with {last.name}, whose label_space is {last.label_space!r}. Add a stage with "
            "label_space='target', such as train_ce."
        )


def _check_parameter(search: Search, recipe: Recipe, key: str, parameter: Parameter) -> None:
    group, _, path = key.partition(".")
    for stage in recipe.stages:
        if stage.name not in STAGE_GROUPS[group]:
            continue
        current = _field(search, stage, key, path)
        if isinstance(parameter, Range) and isinstance(current, int) and not isinstance(current, bool):
            raise InputError(
                f"{_where(search, key)} takes whole numbers, but a Range draws any number. Use a Choice, such as "
                f"Choice(({current}, {current + 1}))."
            )
        for value in _corners(parameter):
            try:
                changed = evolve(stage, {path: value})
                check_clip_s(recipe.model, changed.clip_s)
            except (InputError, TypeError, ValueError) as error:
                raise InputError(
                    f"{_where(search, key)} can take the value {value!r}, which recipe {recipe.name!r} cannot: {error}"
                ) from None


def _check_pools(search: Search) -> None:
    for group in search.pools:
        if all(search.pool_of(key) != group for key in search.space) and search.pools[group] > 1:
            raise InputError(
                f"A pool of more than one variant must have parameters, but pool {group!r} of search {search.name!r} has "
                f"{search.pools[group]} and the space has no parameter of its stages ({', '.join(STAGE_GROUPS[group])})."
            )


def _field(search: Search, stage: StageConfig, key: str, path: str) -> Any:
    """The value of a dotted field. Raises InputError, with the nearest name, for a field that a stage does not have."""
    value: Any = stage
    for index, name in enumerate(path.split(".")):
        known = [item.name for item in fields(value)] if is_dataclass(value) else []
        if name not in known:
            prefix = ".".join(path.split(".")[:index])
            rule = f"{prefix or 'a stage'} has no field {name!r}"
            raise InputError(f"{_where(search, key)} must name a field of a stage, but {rule}{_suggestion(name, stage, known)}")
        value = getattr(value, name)
    if is_dataclass(value):
        inside = ", ".join(item.name for item in fields(value))
        raise InputError(f"{_where(search, key)} must name a single value, but {path!r} has fields of its own: {inside}.")
    return value


def _suggestion(name: str, stage: StageConfig, known: list[str]) -> str:
    """What may be meant instead of a wrong name: a field of the same place, or the same name at another place."""
    elsewhere = [path for path in _paths(stage) if path.rpartition(".")[2] == name]
    near = elsewhere or difflib.get_close_matches(name, known, n=1, cutoff=SIMILARITY)
    meant = f". Perhaps {near[0]!r} is meant" if near else ""
    return f"{meant}. It has: {', '.join(known)}." if known else f"{meant}."


def _paths(config: Any, prefix: str = "") -> Iterator[str]:
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from _paths(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}"


def _corners(parameter: Parameter) -> tuple[Any, ...]:
    return parameter.values if isinstance(parameter, Choice) else (parameter.low, parameter.high)


def _where(search: Search, key: str) -> str:
    return f"Parameter {key!r} of search {search.name!r}"
