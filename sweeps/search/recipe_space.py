"""The space of one recipe: which parameters it has, when each matters, and which settings a point of the space makes."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from birdclef_core.chain import check_chain, teacher_in_chain
from birdclef_core.config import ModelConfig, Recipe, StageConfig
from birdclef_core.errors import InputError
from birdclef_core.identity import canonical, fingerprint
from sweeps.search.expressions import RECIPE, Expression, parse
from sweeps.search.names import EVERY, MODEL, Place, changed, find_field, is_in_group, value_at
from sweeps.search.parameters import Choice, Parameter, Range

VARIANT = "variant"
MAX_DRAWS = 1000
"""Draws until one is allowed; if none is, the search is refused."""

Configs = tuple[ModelConfig, tuple[StageConfig, ...]]


class RecipeSpace:
    """A search's space as one recipe has it.

    A recipe has a parameter if it has a setting that the parameter's name stands for. Where two names stand for the same setting, the
    narrower one counts. A parameter with a condition (`when`) is active only where the condition holds; an inactive one is in no
    point, and its settings are the recipe's own.
    """

    def __init__(
        self, recipe: Recipe, space: Mapping[str, Parameter], pools: Mapping[str, int], constraints: Sequence[str]
    ) -> None:
        """Raises InputError for conditions that cannot be asked: in a circle, or across the border of a pool."""
        self.recipe, self._pools = recipe, pools
        self._places = {key: places for key in space if (places := find_field(key).places(recipe))}
        self._when = {key: parse(text) for key in self._places if (text := space[key].when) is not None}
        self._constraints = [item for item in map(parse, constraints) if self._has(item)]
        self._setters: dict[Place, list[str]] = {}
        """The parameters that stand for a setting, the narrowest name first."""
        self.parameters = {key: space[key] for key in self._possible(list(space))}
        """The parameters that the recipe has, in the order of the search."""
        for key in sorted(self.parameters, key=lambda key: find_field(key).breadth):
            for place in self._places[key]:
                self._setters.setdefault(place, []).append(key)
        self._order = self._sorted()
        self._variants: dict[tuple[str, int], dict[str, Any]] = {}
        self.sampled = self._sampled()
        """The parameters that are drawn for a trial: a variant for each pool with several, and every parameter outside the pools."""

    # What the parameters are.

    def pool_of(self, key: str) -> str | None:
        """Return the pool of a parameter: the first one whose stages include all stages of it; None when there is none."""
        group = key.partition(".")[0]
        if group in (EVERY, MODEL):
            return group if group in self._pools else None
        return next((pool for pool in self._pools if is_in_group(group, pool)), None)

    def first_stage(self, key: str) -> int:
        """Return the index of the first stage in which a parameter of `sampled` matters.

        The stages before it are the same for every value. A variant matters from the first stage that its pool varies, a model's field
        from the first stage of all, and a parameter on which others depend not later than these. Raises InputError for a
        parameter that never counts, because narrower ones stand for all its settings.
        """
        pool = key.removesuffix(f".{VARIANT}")
        keys = [item for item in self.parameters if self.pool_of(item) == pool] if pool != key else [key]
        stages = [stage for item in keys for stage in self._stages_of(item)]
        if not stages:
            raise InputError(f"{key!r} never counts for recipe {self.recipe.name!r}: narrower names stand for all its settings.")
        return max(0, min(stages))

    def _stages_of(self, key: str) -> Iterator[int]:
        """The stages in which a parameter matters, by itself or through the parameters that depend on it; the model is stage -1."""
        for place in self._places[key]:
            setters = self._setters[place]
            if all(narrower in self._when for narrower in setters[: setters.index(key)]):
                yield place[0]
        for other in self._when:
            if other in self.parameters and key in self._needs(other):
                yield from self._stages_of(other)

    # Points of the space.

    def point(self, choose: Callable[[str, Parameter], Any]) -> dict[str, Any]:
        """Return a point: the values of the active parameters of `sampled`. `choose` is asked for each of them, once, those on
        which others depend first."""
        values: dict[str, Any] = {}
        changes: dict[str, Any] = {}
        for key in self._sampled_order():
            pool = key.removesuffix(f".{VARIANT}")
            if pool != key:
                values[key] = choose(key, self.sampled[key])
                changes |= self.variant(pool, values[key])
            elif self._is_active(key, changes):
                values[key] = changes[key] = choose(key, self.sampled[key])
        return {key: values[key] for key in self.sampled if key in values}

    def baseline(self) -> dict[str, Any]:
        """Return the allowed point that is nearest to the recipe itself; where hardly any is allowed, the nearest that is not."""
        return dict(self._baseline)

    @cached_property
    def _baseline(self) -> dict[str, Any]:
        def own(key: str, parameter: Parameter) -> Any:
            return 0 if key.endswith(f".{VARIANT}") else parameter.nearest(value_at(self.recipe, self._places[key][0]))

        nearest = self.point(own)
        if not self.problem(nearest):
            return nearest
        generator = random.Random(self.recipe.name)
        drawn = (self.point(lambda key, parameter: parameter.draw(generator)) for _ in range(MAX_DRAWS))
        allowed = [point for point in drawn if not self.problem(point)]
        return min(allowed, key=lambda point: self._distance(point, nearest), default=nearest)

    def draw(self, generator: random.Random) -> dict[str, Any]:
        """Return a random point that is allowed. Raises InputError when MAX_DRAWS draws have found none."""
        problem = ""
        for _ in range(MAX_DRAWS):
            point = self.point(lambda key, parameter: parameter.draw(generator))
            if not (problem := self.problem(point)):
                return point
        raise InputError(f"None of {MAX_DRAWS} random draws for recipe {self.recipe.name!r} was allowed; the last one: {problem}")

    def grid(self) -> Iterator[dict[str, Any]] | None:
        """Return all allowed points, the last parameters changing fastest; None when there are infinitely many."""
        values = {key: parameter.finite() for key, parameter in self.sampled.items()}
        if any(of_one is None for of_one in values.values()):
            return None
        return (point for point in self._points({key: of_one or () for key, of_one in values.items()}) if not self.problem(point))

    def problem(self, params: Mapping[str, Any]) -> str:
        """Return why a point cannot be tried, because it breaks a constraint or a rule of the configuration; empty when it can."""
        return self._problem(self._changes(params), self._constraints)

    # From a point to settings.

    def configs(self, params: Mapping[str, Any]) -> Configs:
        """Return the recipe's model and stages with the values of a point. Raises InputError when they break a rule."""
        return self._configs(self._changes(params))

    def is_active(self, key: str, params: Mapping[str, Any]) -> bool:
        """Return whether the condition of a parameter holds at a point."""
        return self._is_active(key, self._changes(params))

    def variant(self, pool: str, number: int) -> dict[str, Any]:
        """Return the values of a pool's active parameters in one of its variants. Variant 0 is the recipe's own and has none.

        They follow from the number and from the pool's part of the space alone. Raises InputError when no draw is allowed.
        """
        if (pool, number) not in self._variants:
            self._variants[pool, number] = self._draw_variant(pool, number) if number else {}
        return self._variants[pool, number]

    def _draw_variant(self, pool: str, number: int) -> dict[str, Any]:
        keys = [key for key in self._order if self.pool_of(key) == pool]
        space = tuple((key, self.parameters[key]) for key in self.parameters if key in keys)
        generator = random.Random(f"{self.recipe.name}/{number}/{_space_fingerprint(space)}")
        constraints = [item for item in self._constraints if {*self._setters_of(item)} <= {*keys}]
        problem = ""
        for _ in range(MAX_DRAWS):
            values: dict[str, Any] = {}
            for key in keys:
                if self._is_active(key, values):
                    values[key] = self.parameters[key].draw(generator)
            if not (problem := self._problem(values, constraints)):
                return values
        raise InputError(
            f"None of {MAX_DRAWS} random draws for variant {number} of pool {pool!r} of recipe {self.recipe.name!r} was allowed; the "
            f"last one: {problem}"
        )

    # How names, parameters and settings hang together.

    def _has(self, expression: Expression) -> bool:
        """Whether the recipe has every setting that an expression reads."""
        return all(find_field(name).places(self.recipe) for name in expression.names)

    def _possible(self, keys: list[str]) -> list[str]:
        """The parameters that the recipe has and whose conditions may hold for it."""
        kept = [key for key in keys if key in self._places and (key not in self._when or self._has(self._when[key]))]
        for key in kept:
            if key in self._when and not self._may_hold(self._when[key], kept):
                return self._possible([other for other in kept if other != key])
        return kept

    def _may_hold(self, condition: Expression, keys: Sequence[str]) -> bool:
        """Whether a condition holds, or reads a setting that one of the parameters can change."""
        read = [find_field(name).places(self.recipe)[0] for name in condition.names]
        return any(place in self._places[key] for key in keys for place in read) or condition.holds(self._values(condition, {}))

    def _setters_of(self, expression: Expression) -> Iterator[str]:
        """The parameters that change a setting which an expression reads."""
        for name in expression.names:
            yield from self._setters.get(find_field(name).places(self.recipe)[0], ())

    def _needs(self, key: str) -> set[str]:
        return set(self._setters_of(self._when[key])) if key in self._when else set()

    def _sorted(self) -> list[str]:
        """The parameters, those that a condition reads before those that have the condition; otherwise in the order of the search."""
        left, done = list(self.parameters), []
        while left:
            key = next((key for key in left if not self._needs(key) & {*left}), None)
            if key is None:
                circle = ", ".join(repr(item) for item in left if item in self._when)
                raise InputError(f"Conditions must not depend on each other in a circle, but those of {circle} do.")
            pool = self.pool_of(key)
            if pool and (others := sorted(item for item in self._needs(key) if self.pool_of(item) != pool)):
                raise InputError(
                    f"The condition of a parameter of a pool must depend on the pool's parameters alone, because a variant of the pool is "
                    f"shared, but that of {key!r} depends on {others[0]!r}."
                )
            left.remove(key)
            done.append(key)
        return done

    def _sampled(self) -> dict[str, Parameter]:
        sampled: dict[str, Parameter] = {}
        for key, parameter in self.parameters.items():
            pool = self.pool_of(key)
            if pool is None:
                sampled[key] = parameter
            elif self._pools[pool] > 1:
                sampled[f"{pool}.{VARIANT}"] = Choice(tuple(range(self._pools[pool])))
        return sampled

    def _sampled_order(self) -> list[str]:
        variants = [key for key in self.sampled if key not in self.parameters]
        return [*variants, *(key for key in self._order if key in self.sampled)]

    def _changes(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters that a point changes: those of its variants, and its own as far as they are active.

        Parameters of an earlier search, which this one does not have, are among them.
        """
        changes: dict[str, Any] = {}
        for pool in self._pools:
            changes |= self.variant(pool, int(params.get(f"{pool}.{VARIANT}", 0)))
        for key in self._order:
            if key in params and self._is_active(key, changes):
                changes[key] = params[key]
        others = (key for key in params if key not in self.parameters and not key.endswith(f".{VARIANT}"))
        return changes | {key: params[key] for key in others}

    def _is_active(self, key: str, changes: Mapping[str, Any]) -> bool:
        condition = self._when.get(key)
        return condition is None or condition.holds(self._values(condition, changes))

    def _values(self, expression: Expression, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The values of an expression's names. A name of several settings stands for the first of them."""
        values: dict[str, Any] = {RECIPE: self.recipe.name}
        for name in expression.names:
            place = find_field(name).places(self.recipe)[0]
            setter = next((key for key in self._setters.get(place, ()) if key in changes), None)
            values[name] = value_at(self.recipe, place) if setter is None else changes[setter]
        return values

    def _problem(self, changes: Mapping[str, Any], constraints: Sequence[Expression]) -> str:
        try:
            for item in constraints:
                values = self._values(item, changes)
                if not item.holds(values):
                    return f"{item.text} must hold, but got {', '.join(f'{name}={values[name]!r}' for name in item.names)}."
            self._configs(changes)
        except InputError as error:
            return str(error)
        return ""

    def _configs(self, changes: Mapping[str, Any]) -> Configs:
        from birdclef_core.models.detector import check_clip_s  # torch takes seconds to import
        from birdclef_core.stages.buildable import check_layers, check_length

        by_place: dict[Place, Any] = {}
        for key in sorted(changes, key=lambda key: find_field(key).breadth, reverse=True):
            places = self._places[key] if key in self._places else find_field(key).places(self.recipe)
            by_place |= {place: changes[key] for place in places}
        model, stages = changed(self.recipe, by_place)
        check_chain(stages)
        for index, stage in enumerate(stages):
            try:
                if _hears_with_model(stages, index):
                    check_clip_s(model, stage.clip_s)
            except InputError as error:
                raise InputError(f"stage {stage.name}: {error}") from None
            check_length(model, stage)
            check_layers(model, stage)
        return model, stages

    def _points(self, values: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
        """Every point of a finite space, allowed or not."""
        order = self._sampled_order()

        def extended(number: int, chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
            if number == len(order):
                yield {key: chosen[key] for key in self.sampled if key in chosen}
            elif order[number] in self.parameters and not self.is_active(order[number], chosen):
                yield from extended(number + 1, chosen)
            else:
                for value in values[order[number]]:
                    yield from extended(number + 1, {**chosen, order[number]: value})

        return extended(0, {})

    def _distance(self, point: Mapping[str, Any], other: Mapping[str, Any]) -> float:
        """How far apart two points are: 1 for each parameter that is quite different."""
        far = 0.0
        for key, parameter in self.sampled.items():
            if isinstance(parameter, Range) and key in point and key in other:
                far += abs(parameter.to_unit(point[key]) - parameter.to_unit(other[key]))
            else:
                far += point.get(key, VARIANT) != other.get(key, VARIANT)
        return far


def _hears_with_model(stages: Sequence[StageConfig], index: int) -> bool:
    """Whether a stage hears its clips with the recipe's own model: not of a head on embeddings, which hears with an encoder alone."""
    if stages[index].predicts:
        teacher = teacher_in_chain(stages, index)
        return teacher is not None and not stages[teacher].embeddings
    return not stages[index].embeddings


def parameters_of(recipe: Recipe, space: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the values of a space's parameters in the settings of a trial, those of its variants too.

    `recipe` has the trial's model and stages. Parameters that it does not have, that are not active or that are None, are left out.
    """
    values: dict[str, Any] = {}
    for key, parameter in space.items():
        names = parse(parameter.when).names if parameter.when is not None else ()
        read = {name: find_field(name).places(recipe) for name in (key, *names)}
        if not all(read.values()):
            continue
        settings = {name: value_at(recipe, places[0]) for name, places in read.items()}
        if parameter.when is None or parse(parameter.when).holds({RECIPE: recipe.name, **settings}):
            values[key] = settings[key]
    return {key: value for key, value in values.items() if value is not None}


@lru_cache(maxsize=256)
def _space_fingerprint(space: tuple[tuple[str, Parameter], ...]) -> str:
    # What a parameter does not use is left out, so that variants stay what they were before there was such a field.
    return fingerprint(
        {key: {name: item for name, item in canonical(parameter).items() if item is not None} for key, parameter in space}
    )
