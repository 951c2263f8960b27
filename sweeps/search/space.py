"""What a search is: recipes, the space of parameters around them, and how many variants of the early stages may exist."""

import difflib
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from birdclef_core.config import EMBEDS, ModelConfig, Recipe, StageConfig
from birdclef_core.config_rules import shortened
from birdclef_core.errors import InputError
from sweeps.objective import Objective
from sweeps.search.expressions import parse
from sweeps.search.names import GROUPS, find_field, find_field_of, groups_of
from sweeps.search.parameters import Choice, Parameter, Range
from sweeps.search.recipe_space import RecipeSpace

ENCODER = "model.encoder"
MAX_VARIANTS = 1000
"""Most variants of a pool."""
_NAME = re.compile(r"(?=.*\S)[\w. -]{1,100}")
"""The name of a search, which is that of an experiment too."""
_STAGE_ID = re.compile(r"\b[0-9a-f]{64}\b")


@dataclass(frozen=True, kw_only=True)
class Search:
    """Recipes and the space of parameters around them.

    A parameter is named `<stage or group of stages>.<field of StageConfig>`, such as `train.mixing.wave_prob`, or
    `model.<field of ModelConfig>`. A recipe has the parameters for which it has a setting. Raises InputError, with the nearest right
    name, for wrong names, parameters, conditions and pools; `check_search` checks the values.
    """

    name: str
    recipes: tuple[Recipe, ...]
    space: Mapping[str, Parameter]
    small_space: Mapping[str, Parameter] = field(default_factory=dict)
    """Parameters that replace those of the same name in `space` under the small budget."""
    pools: Mapping[str, int] = field(default_factory=dict)
    """For a group of early stages, how many variants of them a sweep may train for each recipe. Variant 0 is the recipe's own; the
    others are drawn once from the space. Trials of the same variant share its stages. A variant depends only on its number and
    the pool's part of the space, so later sweeps share it too, whatever their random seed."""
    constraints: tuple[str, ...] = ()
    """Conditions that every trial must meet, such as "train.clip_s <= 2 * pretrain.clip_s". A draw that breaks one is drawn again and
    does not count. One that reads a setting which a recipe lacks says nothing about that recipe."""
    sampler: str = "stage"
    """`stage`: draws what may gain most for what it still costs, so it knows what a shared stage is worth; `tpe`: Optuna's TPE, which
    learns from the final scores; `random`: independent draws, which cover the space evenly; `grid`: every point of a finite space; or
    the class of another sampler of Optuna, such as `GPSampler`."""
    objective: str | None = None
    """What trials are compared by, see `Objective.of`; None: what the data allow. The search of a sweep always says it."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InputError(
                "The name of a search must be text, such as name='late_stages', of at most 100 letters, digits, blanks, '.', '_' and '-', "
                f"but is {shortened(repr(self.name))}."
            )
        if not isinstance(self.sampler, str):
            raise InputError(f"sampler of search {self.name!r} must be a text, such as 'stage', but is {self.sampler!r}.")
        if self.objective is not None:
            object.__setattr__(self, "objective", str(Objective.of(self.objective)))
        self._check_recipes()
        for name in ("space", "small_space", "pools"):
            if not isinstance(getattr(self, name), Mapping):
                raise InputError(f"{name} of search {self.name!r} must be a dict, but is {getattr(self, name)!r}.")
        for name in ("space", "small_space"):
            space = {key: self._of_field(key, parameter) for key, parameter in getattr(self, name).items()}
            object.__setattr__(self, name, space)
        groups = groups_of(self.recipes)
        for group, size in self.pools.items():
            if group not in (*groups, *GROUPS) or type(size) is not int or not 1 <= size <= MAX_VARIANTS:
                near = difflib.get_close_matches(str(group), groups, n=1) if group not in (*groups, *GROUPS) else []
                meant = f" Perhaps {near[0]!r} is meant." if near else ""
                raise InputError(
                    f"A pool of search {self.name!r} must be a group of stages and a whole number of variants, at least 1 and at most "
                    f"{MAX_VARIANTS}, but got {group!r}: {size!r}; groups: {', '.join(groups)}.{meant}"
                )
        self._check_constraints()

    def _check_recipes(self) -> None:
        if not isinstance(self.recipes, (tuple, list)) or not self.recipes:
            raise InputError(
                f"recipes of search {self.name!r} must be a tuple of at least one recipe, such as recipes=(sed_v2s(),), but is "
                f"{type(self.recipes).__name__}."
            )
        object.__setattr__(self, "recipes", tuple(self.recipes))
        for recipe in self.recipes:
            if not isinstance(recipe, Recipe):
                call = f": call it, {recipe.__name__}()" if callable(recipe) and hasattr(recipe, "__name__") else ""
                raise InputError(
                    f"Every recipe of search {self.name!r} must be a Recipe, but one is {shortened(repr(recipe))}{call}."
                )
        names = [recipe.name for recipe in self.recipes]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(
                f"The recipes of search {self.name!r} must have different names, but {', '.join(repeated)} is there more than once."
            )

    def _of_field(self, key: str, parameter: Parameter) -> Parameter:
        """The parameter with numbers of its field's type. Raises InputError for a name or a parameter that cannot be sampled."""
        where = f"Parameter {key!r} of search {self.name!r}"
        if not isinstance(parameter, (Choice, Range)):
            raise InputError(f"{where} must be a Choice or a Range, such as Choice((5.0, 10.0)), but is {parameter!r}.")
        try:
            found = find_field_of(key, self.recipes)
            for name in parse(parameter.when).names if parameter.when is not None else ():
                find_field_of(name, self.recipes)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if found.is_runtime:
            raise InputError(f"{where} changes no result, so there is nothing to search. Set it with --set or in the recipe.")
        if found.path == "name":
            raise InputError(f"{where} must be a setting of a stage, but name says which stage it is. Write a recipe for each.")
        if not isinstance(parameter, Range):
            return parameter
        if int not in found.kinds and float not in found.kinds:
            kinds = " or ".join("true or false" if kind is bool else "text" for kind in found.kinds)
            raise InputError(f"{where} takes {kinds}, so it must be a Choice, but is {parameter!r}.")
        try:
            return parameter.of_kind(float if float in found.kinds else int)
        except InputError as error:
            raise InputError(f"{where} {error}") from None

    def _check_constraints(self) -> None:
        if not isinstance(self.constraints, (tuple, list)):
            raise InputError(
                f"constraints of search {self.name!r} must be a tuple of texts, such as ('train.clip_s >= 5',), but is {self.constraints!r}."
            )
        object.__setattr__(self, "constraints", tuple(self.constraints))
        for text in self.constraints:
            try:
                for name in parse(text).names:
                    find_field_of(name, self.recipes)
            except InputError as error:
                raise InputError(f"Constraint {text!r} of search {self.name!r}: {error}") from None

    def with_small_space(self) -> "Search":
        return replace(self, space={**self.space, **self.small_space}, small_space={})

    def recipe(self, name: str) -> Recipe:
        return next(recipe for recipe in self.recipes if recipe.name == name)

    def of_recipe(self, recipe: Recipe) -> RecipeSpace:
        """Return the space as a recipe has it. Raises InputError as `RecipeSpace` does."""
        known = self._spaces.get(recipe.name)
        if known is None or known.recipe != recipe:
            try:
                known = self._spaces[recipe.name] = RecipeSpace(recipe, self.space, self.pools, self.constraints)
            except InputError as error:
                raise InputError(f"Search {self.name!r}, recipe {recipe.name!r}: {error}") from None
        return known

    @cached_property
    def _spaces(self) -> dict[str, RecipeSpace]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_spaces"}

    def sampled_space(self, recipe: Recipe) -> dict[str, Parameter]:
        """Return the parameters that are sampled for one recipe: a variant number for each pool, and every parameter outside the
        pools. One with a condition is in a point only if the condition holds there."""
        return self.of_recipe(recipe).sampled

    def first_stage(self, recipe: Recipe, key: str) -> int:
        """See `RecipeSpace.first_stage`."""
        return self.of_recipe(recipe).first_stage(key)

    def point(self, recipe: Recipe, choose: Callable[[str, Parameter], Any]) -> dict[str, Any]:
        """See `RecipeSpace.point`."""
        return self.of_recipe(recipe).point(choose)

    def draw(self, recipe: Recipe, generator: random.Random) -> dict[str, Any]:
        """See `RecipeSpace.draw`."""
        return self.of_recipe(recipe).draw(generator)

    def baseline(self, recipe: Recipe) -> dict[str, Any]:
        """See `RecipeSpace.baseline`."""
        return self.of_recipe(recipe).baseline()

    def problem(self, recipe: Recipe, params: Mapping[str, Any]) -> str:
        """See `RecipeSpace.problem`."""
        return self.of_recipe(recipe).problem(params)

    def is_active(self, recipe: Recipe, key: str, params: Mapping[str, Any]) -> bool:
        """See `RecipeSpace.is_active`."""
        return self.of_recipe(recipe).is_active(key, params)

    def model(self, recipe: Recipe, params: Mapping[str, Any]) -> ModelConfig:
        """Return the recipe's model with the sampled parameters."""
        return self.of_recipe(recipe).configs(params)[0]

    def stages(self, recipe: Recipe, params: Mapping[str, Any]) -> tuple[StageConfig, ...]:
        """Return the recipe's stages with the sampled parameters."""
        return self.of_recipe(recipe).configs(params)[1]

    def point_of(self, recipe_name: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the point of the sampled space with the values in `params`.

        None when the space lacks the recipe or a value, when `params` lack a parameter, or when a constraint is broken.
        """
        recipe = next((recipe for recipe in self.recipes if recipe.name == recipe_name), None)
        if recipe is None:
            return None
        unfit: list[str] = []

        def known(key: str, parameter: Parameter) -> Any:
            fits = key in params and parameter.has(params[key])
            unfit.extend([] if fits else [key])
            return params[key] if fits else parameter.nearest(None)

        point = self.point(recipe, known)
        return None if unfit or self.problem(recipe, point) else point

    def points(self) -> Iterator[tuple[str, dict[str, Any]]] | None:
        """Every allowed point of every recipe's sampled space; None for an infinite space."""
        grids = [(recipe.name, self.of_recipe(recipe).grid()) for recipe in self.recipes]
        if any(grid is None for _, grid in grids):
            return None
        return ((name, params) for name, grid in grids if grid is not None for params in grid)

    def stored_teachers(self) -> tuple[str, ...]:
        """Return the ids of the stored stages whose predictions trials learn from, once references stand for ids (`resolve_teachers`)."""
        texts = [stage.predicts for recipe in self.recipes for stage in recipe.stages]
        for key, parameter in self.space.items():
            if find_field(key).path == "predicts" and isinstance(parameter, Choice):
                texts += map(str, parameter.values)
        ids = (stage_id for text in texts if not text.startswith(EMBEDS) for stage_id in _STAGE_ID.findall(text))
        return tuple(dict.fromkeys(ids))

    def encoders(self) -> tuple[str, ...]:
        """Return the encoders that trials may have, sorted."""
        found: set[str] = set()
        for recipe in self.recipes:
            space = self.of_recipe(recipe)
            parameter = space.parameters.get(ENCODER)
            may_be_own = parameter is None or parameter.when is not None or space.pool_of(ENCODER) is not None
            found |= {*(parameter.finite() or () if parameter else ()), *([recipe.model.encoder] if may_be_own else ())}
        return tuple(sorted(found))
