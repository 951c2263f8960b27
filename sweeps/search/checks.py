"""Checks a search before anything is trained: every end of every range, every choice and every pool, for every recipe."""

import difflib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from birdclef_core.config import Recipe, StageConfig, evolve
from birdclef_core.errors import InputError
from birdclef_core.identity import canonical
from birdclef_core.models.detector import check_clip_s
from sweeps.search.parameters import Choice, Parameter
from sweeps.search.space import STAGE_GROUPS, Search

SIMILARITY = 0.5
"""How similar a known name must be to be suggested for a wrong one, from 0 to 1."""
MAX_COMBINATIONS = 256
"""How many combinations of the other parameters' ends are tried before a value counts as wrong."""
FIXED_FIELDS = ("name",)
"""Fields of a stage that cannot be sampled."""


def check_search(search: Search) -> None:
    """Raise InputError, with the parameter, the value and the rule, for a search with a value that no draw could train.

    A value counts as wrong when it breaks a rule together with every end of the other parameters of its stage. Values that break
    a rule only together are found by the draw that has them, which is reported to the sampler as failed.
    """
    for recipe in search.recipes:
        space = search.space_of(recipe)
        _check_end(search, recipe)
        for stage in recipe.stages:
            own = {key: parameter for key, parameter in space.items() if stage.name in STAGE_GROUPS[key.partition(".")[0]]}
            if not any(key.endswith(".clip_s") for key in own):
                _check_clip(search, recipe, stage)
            for key in own:
                _check_parameter(search, recipe, stage, key, own)


def check_pools(search: Search) -> None:
    """Raise InputError for a pool of several variants that no parameter of the space belongs to."""
    for group in search.pools:
        if all(search.pool_of(key) != group for key in search.space) and search.pools[group] > 1:
            raise InputError(
                f"A pool of more than one variant must have parameters, but pool {group!r} of search {search.name!r} has "
                f"{search.pools[group]} and the space has no parameter of its stages ({', '.join(STAGE_GROUPS[group])})."
            )


def check_small_recipes(full: Search, small: Search) -> None:
    """Raise InputError when recipes that differ would train the same stages under the small budget, which overwrites fields."""
    known: dict[str, Recipe] = {}
    for before, after in zip(full.recipes, small.recipes, strict=True):
        same = known.setdefault(str(canonical([after.model, after.stages])), before)
        if (same.model, same.stages) != (before.model, before.stages):
            raise InputError(
                f"Under the small budget, recipes must stay different, but {same.name!r} and {before.name!r} of search {full.name!r} "
                "become the same: what they differ in is a field that the small budget sets. Use --budget full, which trains the "
                "recipes as they are."
            )


def _check_end(search: Search, recipe: Recipe) -> None:
    last = recipe.stages[-1]
    if last.label_space != "target":
        raise InputError(
            f"The last stage of a recipe must be scored on the target species, by which trials are compared, but recipe {recipe.name!r} of "
            f"search {search.name!r} ends with {last.name}, whose label_space is {last.label_space!r}. Add a stage with "
            "label_space='target', such as train_ce."
        )


def _check_clip(search: Search, recipe: Recipe, stage: StageConfig) -> None:
    try:
        check_clip_s(recipe.model, stage.clip_s)
    except InputError as error:
        raise InputError(f"Stage {stage.name} of recipe {recipe.name!r} in search {search.name!r}: {error}") from None


def _check_parameter(search: Search, recipe: Recipe, stage: StageConfig, key: str, own: Mapping[str, Parameter]) -> None:
    """Check one parameter of a stage; `own` has all parameters of the stage."""
    path, parameter = key.partition(".")[2], own[key]
    _check_field(search, stage, key, path)
    if path in FIXED_FIELDS:
        raise InputError(
            f"{_where(search, key)} must be a setting of a stage, but {path} says which stage it is. Write a recipe for each."
        )
    is_last = stage is recipe.stages[-1]
    for value in _corners(parameter):
        if is_last and path == "label_space" and value != "target":
            raise InputError(
                f"{_where(search, key)} must be 'target' in the last stage, by which trials are compared, but can be {value!r}."
            )
        problem = _problem(recipe, stage, key, value, own)
        if problem is not None:
            raise InputError(
                f"{_where(search, key)} can take the value {value!r}, which recipe {recipe.name!r} cannot: {problem}"
            )


def _problem(recipe: Recipe, stage: StageConfig, key: str, value: Any, own: Mapping[str, Parameter]) -> Exception | None:
    """Why a value cannot be trained with any end of the other parameters; None when it can with some."""
    path = key.partition(".")[2]
    others = {name.partition(".")[2]: _corners(parameter) for name, parameter in own.items() if name != key}
    combinations = itertools.product(*others.values())
    first: Exception | None = None
    tries: Iterator[dict[str, Any]] = (dict(zip(others, values, strict=True)) for values in combinations)
    for changes in itertools.islice(itertools.chain([{}], tries), MAX_COMBINATIONS):
        try:
            changed = evolve(stage, {**changes, path: value})
            if path == "clip_s":
                check_clip_s(recipe.model, changed.clip_s)
            return None
        except (InputError, TypeError, ValueError) as error:
            first = first or error
    return first


def _check_field(search: Search, stage: StageConfig, key: str, path: str) -> None:
    """Raise InputError, with the nearest name, for a dotted field that a stage does not have, or that has fields of its own."""
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
