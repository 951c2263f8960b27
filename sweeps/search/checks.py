"""Checks a search before anything is trained: every end of every range, every choice and every variant, for every recipe."""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch

from birdclef_core.config import ModelConfig, Recipe, StageConfig, flatten
from birdclef_core.errors import InputError
from birdclef_core.identity import canonical
from birdclef_core.idle_settings import DEPENDENCES, Dependence, set_on_purpose
from birdclef_core.json_files import from_json, to_json
from birdclef_core.models.encoders import RANDOM, build_encoder, check_name
from birdclef_core.stages.buildable import check_embeds
from sweeps.objective import Objective, Term
from sweeps.search.chains import settings_in_ids
from sweeps.search.expressions import parse
from sweeps.search.names import MODEL, SOURCES, find_field, of_predictions_alone
from sweeps.search.parameters import Choice, Parameter
from sweeps.search.recipe_space import RecipeSpace
from sweeps.search.space import ENCODER, Search

INSIDE = 0.382
"""Place of the number between the ends of a range that is checked too: no simple share of the range."""
MAX_COMBINATIONS = 300
"""How many combinations with other parameters are tried before a value counts as wrong."""


def check_search(search: Search) -> None:
    """Raise InputError, with the parameter, the value and the rule, for a search with a value that no draw could train.

    A value counts as wrong when it breaks a rule of the configuration whatever the other parameters are. Values that break one only
    together, and those that break a constraint, are drawn again. A setting or parameter that changes nothing whatever the others are is
    refused too.
    """
    spaces: list[RecipeSpace] = []
    for recipe in search.recipes:
        _check_end(search, recipe)
        space = search.of_recipe(recipe)
        _check_itself(search, space)
        # Without pools, every parameter can be set by itself.
        without_pools = RecipeSpace(recipe, search.space, {}, ())
        for key in without_pools.sampled:
            _check_parameter(search, without_pools, key)
        if problem := _embeds_problem(without_pools, without_pools.baseline()):
            raise InputError(f"Recipe {recipe.name!r} of search {search.name!r}: {problem}")
        spaces.append(without_pools)
        try:
            for key in space.sampled:
                space.first_stage(key)
            for pool, size in search.pools.items():
                for number in range(size):
                    space.variant(pool, number)
            space.draw(random.Random(0))
        except InputError as error:
            raise InputError(f"Search {search.name!r}: {error}") from None
    _check_settings_count(search, spaces)
    for key in search.space:
        _check_counts(search, key, [space for space in spaces if key in space.sampled])


def check_file(search: Search) -> None:
    """Raise InputError for what can only be a mistake in a search file: a part of it that is for no recipe at all, or recipes that
    would not come back from the sweep's record as they are."""
    _check_kept_whole(search)
    spaces = [search.of_recipe(recipe) for recipe in search.recipes]
    for group, size in search.pools.items():
        if size > 1 and not any(space.pool_of(key) == group for space in spaces for key in space.parameters):
            raise InputError(
                f"A pool of more than one variant must have parameters, but pool {group!r} of search {search.name!r} has {size} and the "
                f"space has no parameter {group}.<field>."
            )
    for key, parameter in (*search.space.items(), *search.small_space.items()):
        _check_has(search, f"Parameter {key!r}", key)
        for name in parse(parameter.when).names if parameter.when is not None else ():
            _check_has(search, f"The condition {parameter.when!r} of parameter {key!r}", name)
        if key in search.space and parameter.when is not None and not any(key in space.parameters for space in spaces):
            raise InputError(
                f"The condition of a parameter must hold somewhere, but {parameter.when!r} of parameter {key!r} of search {search.name!r} "
                "holds for no recipe."
            )
    for text in search.constraints:
        for name in parse(text).names:
            _check_has(search, f"Constraint {text!r}", name)


def _check_kept_whole(search: Search) -> None:
    for index, recipe in enumerate(search.recipes):
        for name, value in flatten(recipe, f"recipes.{index}"):
            if not (value is None or type(value) in (str, int, float, bool) or (type(value) is tuple and not value)):
                raise InputError(
                    f"The values in the recipes of search {search.name!r} must be text, numbers, true, false or None, because a sweep is resumed "
                    f"from its record, but {name} is {value!r}."
                )
    if from_json(Search, to_json(search), file=f"Search {search.name!r}") != search:
        raise InputError(f"Search {search.name!r} must come back from the sweep's record as it is, but does not.")


def _check_has(search: Search, what: str, name: str) -> None:
    """Raise InputError for a name that is of no recipe: of a noise group or a stage that none has."""
    field = find_field(name)
    if any(field.places(recipe) for recipe in search.recipes):
        return
    if problem := of_predictions_alone(field, search.recipes):
        raise InputError(f"{what} of search {search.name!r} names {name!r}, but {problem}")
    stages = sorted({stage.name for recipe in search.recipes for stage in recipe.stages})
    noise = sorted({group.source for recipe in search.recipes for stage in recipe.stages for group in stage.noise})
    known = f"noise groups by number from 0 or by source: {', '.join(noise)}" if field.noise else f"stages: {', '.join(stages)}"
    raise InputError(f"{what} of search {search.name!r} names {name!r}, which no recipe of the search has. It has the {known}.")


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
    last, objective = recipe.stages[-1], Objective.of(search.objective)
    if last.label_space != objective.label_space:
        metric = Term(1.0, objective.names[0]).in_space(last.label_space)
        other = str(Objective((metric,), objective.cost)).replace(" ", "")
        raise InputError(
            f"The last stage of a recipe must have the scores by which trials are compared ({objective.score_name}), but recipe "
            f"{recipe.name!r} of search {search.name!r} ends with {last.name}, whose label_space is {last.label_space!r}. Add a stage with "
            f"label_space={objective.label_space!r}, or compare trials by another score: --objective {other}."
        )


def _check_itself(search: Search, space: RecipeSpace) -> None:
    """Raise InputError for a recipe that cannot be trained as it is, unless its parameters mend it."""
    try:
        space.configs({})
    except InputError as error:
        if space.problem(space.baseline()):
            raise InputError(f"Recipe {space.recipe.name!r} of search {search.name!r}: {error}") from None
    if ENCODER not in space.parameters and (problem := _encoder_problem(space, {})):
        raise InputError(f"Recipe {space.recipe.name!r} of search {search.name!r}: {problem}")


def _check_parameter(search: Search, space: RecipeSpace, key: str) -> None:
    """Check every end of a range and every choice, and that a parameter with a condition can be active."""
    where = f"Parameter {key!r} of search {search.name!r}"
    ends_chain = (len(space.recipe.stages) - 1, "label_space") in find_field(key).places(space.recipe)
    needed = Objective.of(search.objective).label_space
    for value in _corners(space.sampled[key]):
        if ends_chain and value != needed:
            raise InputError(f"{where} must be {needed!r} in the last stage, by which trials are compared, but can be {value!r}.")
        problem = _problem(space, key, value)
        if problem:
            raise InputError(f"{where} can take the value {value!r}, which recipe {space.recipe.name!r} cannot: {problem}")


def _check_settings_count(search: Search, spaces: Sequence[RecipeSpace]) -> None:
    """Raise InputError for a setting of the recipes that counts only with another one, which no stage has that has the setting."""
    idle: dict[str, str] = {}
    counting: set[str] = set()
    for space in spaces:
        for index, stage in enumerate(space.recipe.stages):
            for name, value, item in set_on_purpose(stage):
                if name in counting or any(item.counts(stages[index]) for _, stages in _tried(space)):
                    counting.add(name)
                idle.setdefault(name, f"{item.rule}, but recipe {space.recipe.name!r} has {value!r} in stage {stage.name}")
    for name, text in idle.items():
        if name not in counting:
            raise InputError(f"In search {search.name!r}, {name} counts only {text}. Leave it out, or set the other as well.")


def _check_counts(search: Search, key: str, spaces: Sequence[RecipeSpace]) -> None:
    """Raise InputError for a parameter that changes nothing, whatever the other parameters are, in any recipe that has it."""
    where, path = f"Parameter {key!r} of search {search.name!r} changes nothing", find_field(key).path
    for item in DEPENDENCES if spaces else ():
        if item.has(path) and not any(_counts_somewhere(space, key, item) for space in spaces):
            raise InputError(f"{where}: {path} counts only {item.rule}, which holds for no stage that the parameter sets.")
    if spaces and len(_corners(spaces[0].sampled[key])) > 1 and not any(_makes_other_stages(space, key) for space in spaces):
        why = (
            " Shares are divided by their sum, so that a single source always has all: name another source too."
            if path.startswith(f"{SOURCES}.")
            else ""
        )
        raise InputError(f"{where}: the stages are the same with each of its values.{why}")


def _counts_somewhere(space: RecipeSpace, key: str, item: Dependence) -> bool:
    """Whether a setting counts in one of the stages for which a parameter sets it."""
    places = [index for index, _ in find_field(key).places(space.recipe)]
    return any(
        item.counts(stages[index])
        for value in _corners(space.sampled[key])
        for point, stages in _tried(space, key, value)
        if key in point
        for index in places
    )


def _makes_other_stages(space: RecipeSpace, key: str) -> bool:
    """Whether two values of a parameter make different stages with some of the tried combinations of the others."""
    first, *others = _corners(space.sampled[key])
    for point, _ in _tried(space, key, first):
        if key in point:
            for other in others:
                changed = {**point, key: other}
                if not space.problem(changed) and settings_in_ids(*space.configs(changed)) != settings_in_ids(
                    *space.configs(point)
                ):
                    return True
    return False


def _tried(space: RecipeSpace, key: str = "", value: Any = None) -> Iterator[tuple[dict[str, Any], tuple[StageConfig, ...]]]:
    """Yield points that can be trained, with their stages: the recipe's own first, and with a value of a parameter where one is named."""
    for point in itertools.islice(_combinations(space, key, value), MAX_COMBINATIONS if space.sampled else 1):
        if not space.problem(point):
            yield point, space.configs(point)[1]


def _problem(space: RecipeSpace, key: str, value: Any) -> str:
    """Why a value cannot be trained with any tried combination of the others; empty when it can with some."""
    first = ""
    for point in itertools.islice(_combinations(space, key, value), MAX_COMBINATIONS):
        problem = space.problem(point) if key in point else f"its condition {space.parameters[key].when!r} never holds."
        if not problem and find_field(key).group == MODEL:
            problem = _encoder_problem(space, point)
        if not problem:
            problem = _embeds_problem(space, point)
        if not problem:
            return ""
        first = first or problem
    return first


def _embeds_problem(space: RecipeSpace, point: Mapping[str, Any]) -> str:
    """Why a stage of embeddings cannot hear at a point; empty when all can, or the point has another problem."""
    if space.problem(point):
        return ""
    try:
        for stage in space.configs(point)[1]:
            check_embeds(stage)
    except InputError as error:
        return str(error)
    return ""


def _encoder_problem(space: RecipeSpace, point: Mapping[str, Any]) -> str:
    """Why the model of a point has no encoder that makes a map of features from its spectrogram; empty when it has one."""
    model, _ = space.configs(point)
    return _problem_of_encoder(replace(model, drop_rate=0.0, drop_path_rate=0.0, head_dropout=0.0))


@lru_cache(maxsize=1024)
def _problem_of_encoder(model: ModelConfig) -> str:
    try:
        check_name(model.encoder)
    except InputError as error:
        return str(error)
    for device in ("meta", "cpu"):  # without weights first, which takes a tenth of the time
        try:
            with torch.device(device):
                build_encoder(model, RANDOM)
            return ""
        except Exception as error:  # on the meta device, any error of an architecture
            problem = str(error)
    return problem


def _combinations(space: RecipeSpace, key: str, value: Any) -> Iterator[dict[str, Any]]:
    """Points with a value: the recipe's own values otherwise, then one other parameter at an end, then all others at random."""
    baseline = space.baseline()

    def with_value(choose: Any) -> dict[str, Any]:
        return space.point(lambda name, parameter: value if name == key else choose(name, parameter))

    def own(name: str, parameter: Parameter) -> Any:
        return baseline.get(name, parameter.nearest(None))

    yield with_value(own)
    for other, parameter in space.sampled.items():
        for corner in _corners(parameter):
            yield with_value(
                lambda name, parameter, other=other, corner=corner: corner if name == other else own(name, parameter)
            )
    generator = random.Random(0)
    while True:
        yield with_value(lambda name, parameter: generator.choice((*_corners(parameter), parameter.draw(generator))))


def _corners(parameter: Parameter) -> tuple[Any, ...]:
    """The values of a parameter that are checked: every choice; both ends of a range, and one number between them."""
    if isinstance(parameter, Choice):
        return parameter.values
    return tuple(dict.fromkeys((parameter.low, parameter.high, parameter.from_unit(INSIDE))))
