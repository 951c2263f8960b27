"""What a search is: recipes, the space of parameters around them, and how many variants of the early stages may exist."""

import importlib.util
import itertools
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from birdclef_core.config import STAGE_NAMES, Recipe, StageConfig, StageName, evolve, types_of
from birdclef_core.errors import InputError
from birdclef_core.identity import canonical, fingerprint
from sweeps.search.parameters import Choice, Parameter, Range

SamplerName = Literal["tpe", "random"]

SEARCHES_DIR = Path(__file__).parents[1] / "searches"

STAGE_GROUPS: dict[str, tuple[StageName, ...]] = {
    **{name: (name,) for name in get_args(StageName)},
    "pretrain": ("pretrain_ce", "pretrain_bce"),
    "train": ("train_ce", "train_bce"),
    "every": STAGE_NAMES,
}
"""Groups of stages, which the first part of a parameter's name may be, and the stages that each stands for."""

VARIANT = "variant"


@dataclass(frozen=True, kw_only=True)
class Search:
    """Recipes and the space of stage parameters around them.

    A parameter is named `<stage or group of stages>.<field of StageConfig>`, such as `train.mixing.wave_prob`. Parameters of
    stages that a recipe does not have are not sampled for that recipe. Raises InputError for wrong names and pools.
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
    sampler: SamplerName = "tpe"
    """`tpe`: Optuna's TPE, which learns from the scores; `random`: independent draws, which cover the space evenly."""

    def __post_init__(self) -> None:
        if self.sampler not in get_args(SamplerName):
            raise InputError(f"sampler must be one of {', '.join(get_args(SamplerName))}, but got {self.sampler!r}.")
        self._check_recipes()
        for name in ("space", "small_space", "pools"):
            if not isinstance(getattr(self, name), Mapping):
                raise InputError(f"{name} of search {self.name!r} must be a dict, but is {getattr(self, name)!r}.")
        for key, parameter in (*self.space.items(), *self.small_space.items()):
            group, _, path = str(key).partition(".")
            if group not in STAGE_GROUPS or not path:
                raise InputError(
                    f"Parameter {key!r} of search {self.name!r} must be named <group>.<field>, such as train.clip_s; groups: "
                    f"{', '.join(STAGE_GROUPS)}."
                )
            if not isinstance(parameter, (Choice, Range)):
                raise InputError(
                    f"Parameter {key!r} of search {self.name!r} must be a Choice or a Range, such as Choice((5.0, 10.0)), but is {parameter!r}."
                )
        for group, size in self.pools.items():
            if group not in STAGE_GROUPS or type(size) is not int or size < 1:
                raise InputError(
                    f"A pool of search {self.name!r} must be a group of stages and a whole number of variants, at least 1, but got "
                    f"{group!r}: {size!r}; groups: {', '.join(STAGE_GROUPS)}."
                )
        for name in ("space", "small_space"):
            space = {key: self._of_field(key, parameter) for key, parameter in getattr(self, name).items()}
            object.__setattr__(self, name, space)

    def _of_field(self, key: str, parameter: Parameter) -> Parameter:
        """The parameter with numbers of its field's type."""
        if not isinstance(parameter, Range):
            return parameter
        kinds = _kinds_of(key)
        if int not in kinds and float not in kinds:
            return parameter
        try:
            return parameter.of_kind(float if float in kinds else int)
        except InputError as error:
            raise InputError(f"Parameter {key!r} of search {self.name!r} {error}") from None

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
                raise InputError(f"Every recipe of search {self.name!r} must be a Recipe, but one is {recipe!r}{call}.")
        names = [recipe.name for recipe in self.recipes]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(
                f"The recipes of search {self.name!r} must have different names, but {', '.join(repeated)} is there more than once."
            )

    def with_small_space(self) -> "Search":
        return replace(self, space={**self.space, **self.small_space}, small_space={})

    def recipe(self, name: str) -> Recipe:
        return next(recipe for recipe in self.recipes if recipe.name == name)

    def pool_of(self, key: str) -> str | None:
        """The pool of a parameter: the first one whose stages include all stages of the parameter; None when there is none."""
        stages = set(STAGE_GROUPS[key.partition(".")[0]])
        return next((group for group in self.pools if stages <= set(STAGE_GROUPS[group])), None)

    def sampled_space(self, recipe: Recipe) -> dict[str, Parameter]:
        """The parameters that are sampled for one recipe: a variant number for each pool, and every parameter outside the pools."""
        space: dict[str, Parameter] = {}
        for key, parameter in self.space_of(recipe).items():
            pool = self.pool_of(key)
            if pool is None:
                space[key] = parameter
            elif self.pools[pool] > 1:
                space[f"{pool}.{VARIANT}"] = Choice(tuple(range(self.pools[pool])))
        return space

    def baseline(self, recipe: Recipe) -> dict[str, Any]:
        """The point of the sampled space that is nearest to the recipe itself."""
        own = {key: 0 if key.endswith(f".{VARIANT}") else value_of(recipe.stages, key) for key in self.sampled_space(recipe)}
        return {key: parameter.nearest(own[key]) for key, parameter in self.sampled_space(recipe).items()}

    def point_of(self, recipe_name: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """The point of the sampled space with the values in `params`; None when it lacks the recipe, a value or a parameter."""
        recipe = next((recipe for recipe in self.recipes if recipe.name == recipe_name), None)
        space = self.sampled_space(recipe) if recipe else {}
        if recipe is None or not all(key in params and parameter.has(params[key]) for key, parameter in space.items()):
            return None
        return {key: params[key] for key in space}

    def grid(self, recipe: Recipe) -> Iterator[dict[str, Any]] | None:
        """Every point of a recipe's sampled space, the late stages' parameters changing fastest; None for an infinite space."""
        space = self.sampled_space(recipe)
        values = [parameter.finite() for parameter in space.values()]
        if any(of_one is None for of_one in values):
            return None
        return (dict(zip(space, point, strict=True)) for point in itertools.product(*(of_one or () for of_one in values)))

    def points(self) -> Iterator[tuple[str, dict[str, Any]]] | None:
        """Every point of every recipe's sampled space; None for an infinite space."""
        grids = [(recipe.name, self.grid(recipe)) for recipe in self.recipes]
        if any(grid is None for _, grid in grids):
            return None
        return ((name, params) for name, grid in grids if grid is not None for params in grid)

    def random_point(self, generator: random.Random) -> tuple[str, dict[str, Any]]:
        """A point of a recipe's sampled space, all recipes and values being equally likely."""
        recipe = generator.choice(self.recipes)
        return recipe.name, {key: parameter.draw(generator) for key, parameter in self.sampled_space(recipe).items()}

    def stages(self, recipe: Recipe, params: Mapping[str, Any]) -> tuple[StageConfig, ...]:
        """The recipe's stages with the sampled parameters."""
        changes: dict[str, Any] = {}
        for pool in self.pools:
            changes |= self._variant(recipe, pool, int(params.get(f"{pool}.{VARIANT}", 0)))
        changes |= {key: value for key, value in params.items() if not key.endswith(f".{VARIANT}")}
        return tuple(_evolved(stage, tuple(_for_stage(changes, stage.name).items())) for stage in recipe.stages)

    def first_stage(self, recipe: Recipe, key: str) -> int:
        """Return the index, in `recipe.stages`, of the first stage in which a parameter of the recipe's sampled space matters.

        The stages before it are the same for every value. A variant of a pool matters from the first stage that the pool varies.
        """
        pool = key.removesuffix(f".{VARIANT}")
        keys = [item for item in self.space_of(recipe) if self.pool_of(item) == pool] if pool != key else [key]
        groups = {stage for item in keys for stage in STAGE_GROUPS[item.partition(".")[0]]}
        return next(index for index, stage in enumerate(recipe.stages) if stage.name in groups)

    def _variant(self, recipe: Recipe, pool: str, number: int) -> dict[str, Any]:
        if number == 0:
            return {}
        space = {key: parameter for key, parameter in self.space_of(recipe).items() if self.pool_of(key) == pool}
        generator = random.Random(f"{recipe.name}/{number}/{_space_fingerprint(tuple(space.items()))}")
        return {key: parameter.draw(generator) for key, parameter in space.items()}

    def space_of(self, recipe: Recipe) -> dict[str, Parameter]:
        """The parameters of the space that are for stages of a recipe."""
        names = {stage.name for stage in recipe.stages}
        return {key: item for key, item in self.space.items() if names & set(STAGE_GROUPS[key.partition(".")[0]])}


def value_of(stages: Iterable[StageConfig], key: str) -> Any:
    """The value of a parameter in the first stage that has it; None when no stage has it."""
    group, _, path = key.partition(".")
    value: Any = next((stage for stage in stages if stage.name in STAGE_GROUPS[group]), None)
    for name in path.split(".") if value is not None else ():
        value = getattr(value, name)
    return value


@lru_cache(maxsize=4096)
def _evolved(stage: StageConfig, changes: tuple[tuple[str, Any], ...]) -> StageConfig:
    # Cached because ten thousand trials share a few prefixes.
    return evolve(stage, dict(changes))


@lru_cache(maxsize=256)
def _space_fingerprint(space: tuple[tuple[str, Parameter], ...]) -> str:
    # What a parameter does not use is left out, so that variants stay what they were before there was such a field.
    return fingerprint(
        {key: {name: item for name, item in canonical(parameter).items() if item is not None} for key, parameter in space}
    )


@lru_cache(maxsize=256)
def _kinds_of(key: str) -> tuple[type, ...]:
    """The types of a parameter's field; none when there is no such field."""
    hint: Any = StageConfig
    for name in key.split(".")[1:]:
        hint = {item.name: item.type for item in fields(hint)}.get(name) if is_dataclass(hint) else None
    return () if hint is None else types_of(hint)


def _for_stage(changes: Mapping[str, Any], stage: StageName) -> dict[str, Any]:
    split = ((key.partition("."), value) for key, value in changes.items())
    return {path: value for (group, _, path), value in split if stage in STAGE_GROUPS[group]}


def load_search(name: str) -> Search:
    """Load a search by its name in `sweeps/searches/`, or from a user's own file that defines SEARCH.

    Raises InputError for an unknown name (listing the known ones), a file that cannot be imported, or one without a Search.
    """
    path = Path(name) if name.endswith(".py") else SEARCHES_DIR / f"{name}.py"
    if not path.is_file():
        known = sorted(file.stem for file in SEARCHES_DIR.glob("*.py") if not file.stem.startswith("_"))
        raise InputError(
            f"There is no search {name!r}; those that exist: {', '.join(known)}, or the path of a .py file of your own."
        )
    spec = importlib.util.spec_from_file_location(f"search_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (Exception, SystemExit) as error:
        raise InputError(f"{path} must be importable, but raised {type(error).__name__}: {error}") from error
    search = getattr(module, "SEARCH", None)
    if not isinstance(search, Search):
        raise InputError(f"{path} must define SEARCH = Search(...), but SEARCH is {type(search).__name__}.")
    return search


def override(search: Search, settings: Mapping[str, Any]) -> Search:
    """Return the search with configuration fields that the user has set (`--set key=value`); these are no longer sampled.

    A key is a field of the model (`spectrogram.num_mels`), of every stage (`epochs`) or of a stage or group of stages
    (`train_ce.epochs`, `pretrain.clip_s`). Raises InputError for a key that fits none of them.
    """
    search = replace(search, recipes=tuple(_override_recipe(recipe, settings) for recipe in search.recipes))
    for key in settings:
        search = replace(search, space=_without(search.space, key), small_space=_without(search.small_space, key))
    return search


def _override_recipe(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    of_model: dict[str, Any] = {}
    of_stages: dict[StageName, dict[str, Any]] = {stage.name: {} for stage in recipe.stages}
    for key, value in settings.items():
        group, _, path = key.partition(".")
        if group in STAGE_GROUPS and path:
            for name in of_stages.keys() & set(STAGE_GROUPS[group]):
                of_stages[name][path] = value
        elif hasattr(recipe.model, group):
            of_model[key] = value
        elif hasattr(recipe.stages[0], group):
            for changes in of_stages.values():
                changes[key] = value
        else:
            fields = sorted({*vars(recipe.model), *vars(recipe.stages[0])})
            raise InputError(
                f"--set {key}=...: there is no such field. Fields: {', '.join(fields)}; stages: {', '.join(STAGE_GROUPS)}."
            )
    stages = tuple(evolve(stage, of_stages[stage.name]) for stage in recipe.stages)
    return replace(recipe, model=evolve(recipe.model, of_model), stages=stages)


def _without(space: Mapping[str, Parameter], key: str) -> dict[str, Parameter]:
    """The space without the parameters whose stages are all covered by a key that the user has set."""
    group, _, path = key.partition(".")
    stages, field_path = (STAGE_GROUPS[group], path) if group in STAGE_GROUPS else (STAGE_NAMES, key)

    def covered(name: str) -> bool:
        own_group, _, own_path = name.partition(".")
        return own_path == field_path and set(STAGE_GROUPS[own_group]) <= set(stages)

    return {name: parameter for name, parameter in space.items() if not covered(name)}
