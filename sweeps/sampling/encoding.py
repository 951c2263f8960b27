"""Points of a search space as vectors of numbers, in which near points are alike.

A point has two forms. Its *places* are one number from 0 to 1 for each parameter of its recipe. Its *vector* has the same columns for every
recipe: a number is its place in its range; a choice of numbers is the place of the value in their order; any other choice, and the recipe,
has one column for each value. A parameter that a point does not have lies in the middle.

Shapes: C points, P parameters of a recipe, D columns, G groups of columns (the recipe if there are several, then one a parameter).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.search.parameters import Choice, Parameter, Range
from sweeps.search.recipe_space import VARIANT
from sweeps.search.space import Search

Array = NDArray[np.float64]

MIDDLE = 0.5
"""The place of a parameter that a point does not have."""
_STEP = 0.6
"""Value of the column of a choice's own value: two values are .6 times the root of 2 apart, most of the length of a range."""
_NEVER = 10_000


class Encoding:
    """The encoding of one search."""

    def __init__(self, search: Search) -> None:
        self.spaces = {recipe.name: search.sampled_space(recipe) for recipe in search.recipes}
        """The sampled parameters of each recipe."""
        self.num_stages = {recipe.name: len(recipe.stages) for recipe in search.recipes}
        self.first_P = {
            recipe.name: np.array([search.first_stage(recipe, key) for key in self.spaces[recipe.name]], dtype=int)
            for recipe in search.recipes
        }
        """Index of the stage in which each of them first matters."""
        self.is_choice_P = {
            name: np.array([isinstance(parameter, Choice) for parameter in space.values()], dtype=bool)
            for name, space in self.spaces.items()
        }
        """Whether each of them is a choice."""
        self._recipes = [recipe.name for recipe in search.recipes]
        several = len(self._recipes) > 1
        self.groups_D: list[int] = [0] * len(self._recipes) if several else []
        """The group of each column."""
        nominal: dict[str, list[Any]] = {}
        for space in self.spaces.values():
            for key, parameter in space.items():
                nominal.setdefault(key, []).extend(_nominal_values(key, parameter))
        self._columns: dict[str, tuple[int, list[Any]]] = {}
        """The first column of each parameter, and its values where each has a column."""
        group = int(several)
        for key, values in nominal.items():
            distinct = list(dict.fromkeys(values))
            self._columns[key] = (len(self.groups_D), distinct)
            self.groups_D += [group] * max(1, len(distinct))
            group += 1
        self.num_groups = group
        self._first_D = {name: self._first_columns(name) for name in self._recipes}

    def places(self, recipe: str, params: Mapping[str, Any]) -> Array:
        """Return the places (P,) of a point; the middle for a parameter that it does not have."""
        space = self.spaces[recipe]
        return np.array([_place(space[key], params[key]) if key in params else MIDDLE for key in space])

    def settled(self, recipe: str, place_CP: Array) -> Array:
        """Return places in the middle of the values to which they are rounded, where the values of a range have a step."""
        settled_CP = place_CP.copy()
        for number, parameter in enumerate(self.spaces[recipe].values()):
            if isinstance(parameter, Range) and (parameter.step is not None or parameter.low == parameter.high):
                settled_CP[:, number] = [parameter.to_unit(parameter.from_unit(place)) for place in place_CP[:, number]]
        return settled_CP

    def value(self, recipe: str, key: str, place: float) -> Any:
        """Return the value of a parameter at a place."""
        parameter = self.spaces[recipe][key]
        if isinstance(parameter, Choice):
            return parameter.values[min(int(place * len(parameter.values)), len(parameter.values) - 1)]
        return parameter.from_unit(float(place))

    def vectors(self, recipe: str, place_CP: Array) -> Array:
        """Return the vectors (C, D) of points of one recipe."""
        x_CD = np.full((len(place_CP), len(self.groups_D)), MIDDLE)
        if len(self._recipes) > 1:
            x_CD[:, : len(self._recipes)] = 0
            x_CD[:, self._recipes.index(recipe)] = _STEP
        for place_C, (key, parameter) in zip(place_CP.T, self.spaces[recipe].items(), strict=True):
            column, nominal = self._columns[key]
            if not isinstance(parameter, Choice):
                x_CD[:, column] = place_C
            elif not nominal:
                x_CD[:, column] = _ordinal(parameter.values)[_index(place_C, len(parameter.values))]
            else:
                x_CD[:, column : column + len(nominal)] = 0
                own = np.array([nominal.index(value) for value in parameter.values])
                x_CD[np.arange(len(x_CD)), column + own[_index(place_C, len(own))]] = _STEP
        return x_CD

    def until(self, recipe: str, stage: int, x_CD: Array) -> Array:
        """Return vectors of a recipe without the parameters that matter only after a stage, given by its index."""
        return np.where(self._first_D[recipe] <= stage, x_CD, MIDDLE)

    def lags(self, stage_of: Mapping[str, int]) -> list[int]:
        """Return for each group how many stages before the stages in question its parameter first matters; at least 0.

        `stage_of`: index of the stage in question in each recipe that has it.
        """
        lag_G = [0] * self.num_groups
        for recipe, stage in stage_of.items():
            for key, first in zip(self.spaces[recipe], self.first_P[recipe], strict=True):
                group = self.groups_D[self._columns[key][0]]
                lag_G[group] = max(lag_G[group], stage - int(first))
        return lag_G

    def _first_columns(self, recipe: str) -> NDArray[np.int_]:
        """The stage in which each column first matters (D,)."""
        first_D = np.full(len(self.groups_D), _NEVER)
        if len(self._recipes) > 1:
            first_D[: len(self._recipes)] = 0
        for key, first in zip(self.spaces[recipe], self.first_P[recipe], strict=True):
            column, nominal = self._columns[key]
            first_D[column : column + max(1, len(nominal))] = first
        return first_D


def _nominal_values(key: str, parameter: Parameter) -> tuple[Any, ...]:
    """The values of a parameter if they have no order, else nothing."""
    if not isinstance(parameter, Choice):
        return ()
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in parameter.values)
    return () if numbers and not key.endswith(f".{VARIANT}") else parameter.values


def _place(parameter: Parameter, value: Any) -> float:
    if isinstance(parameter, Choice):
        return (parameter.values.index(value) + 0.5) / len(parameter.values)
    return float(parameter.to_unit(value))


def _index(place: Array, count: int) -> NDArray[np.int_]:
    """The number of the choice at a place."""
    return np.minimum((place * count).astype(int), count - 1)


def _ordinal(values: Sequence[Any]) -> Array:
    """The place of each value in the order of all."""
    ordered = sorted(set(values))
    return np.array([ordered.index(value) / max(1, len(ordered) - 1) if len(ordered) > 1 else MIDDLE for value in values])
