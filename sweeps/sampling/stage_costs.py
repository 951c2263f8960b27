"""What candidates would still cost, from what the sweep knows of the costs of stages."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birdclef_core.errors import InputError
from birdclef_core.store.summary import DROPOUTS
from sweeps.sampling.encoding import Array, Encoding
from sweeps.sampling.facts import SweepFacts
from sweeps.search.names import MODEL
from sweeps.search.parameters import Choice, Parameter
from sweeps.search.recipe_space import VARIANT
from sweeps.search.space import Search

_SIZES = {"epochs", "clip_s", "clips_per_epoch", "batch_size", "precision", "freeze_encoder", VARIANT}
_PARTS = 16
"""Of a range without steps only the middles of so many parts are asked for: their number is small, and no cost is known so exactly."""


class StageCosts:
    """Device seconds of the stages of candidates. Asks for costs once for all that differ only in what costs nothing."""

    def __init__(self, search: Search, encoding: Encoding) -> None:
        self._search, self._encoding = search, encoding
        self.keys = {name: [key for key in space if _costs(key, space[key])] for name, space in encoding.spaces.items()}
        """The parameters of each recipe that change what its stages cost."""
        self._columns = {name: [list(encoding.spaces[name]).index(key) for key in keys] for name, keys in self.keys.items()}
        self._known: dict[tuple[Any, ...], tuple[float, ...]] = {}
        """The seconds of the stages by recipe and places of its parameters in `keys`."""

    def learn(self, facts: SweepFacts) -> None:
        """Take what is known by now. Until then, there are no costs."""
        self._stage_s, self._known = facts.stage_s, {}

    def remaining(self, recipe: str, params: Mapping[str, Any], depth: int) -> float:
        """Return the device seconds of the stages of a point's chain after the first `depth`."""
        seconds_C, _ = self.after(recipe, self._encoding.places(recipe, params)[None], np.array([depth]))
        return float(seconds_C[0])

    def after(self, recipe: str, place_CP: Array, depth_C: NDArray[np.int_]) -> tuple[Array, Array]:
        """Return the device seconds of the stages of candidates after their first `depth_C`, and of the first of these alone (C,)."""
        kind_C = np.zeros(len(place_CP), dtype=int)
        for place_C in (place_PC := self._alike(recipe, place_CP)):
            distinct, own_C = np.unique(place_C, return_inverse=True)
            kind_C = kind_C * len(distinct) + own_C
        _, first_K, kind_C = np.unique(kind_C, return_index=True, return_inverse=True)
        stages_KS = np.array([self._of_places(recipe, [place_C[first] for place_C in place_PC]) for first in first_K])
        stages_CS = stages_KS[kind_C]
        is_left_CS = np.arange(stages_CS.shape[1]) >= depth_C[:, None]
        return (stages_CS * is_left_CS).sum(axis=1), stages_CS[np.arange(len(place_CP)), depth_C]

    def _of_places(self, recipe: str, place_P: Sequence[float]) -> tuple[float, ...]:
        name = (recipe, *place_P)
        if name not in self._known:
            own = self._search.recipe(recipe)
            values = {
                key: self._encoding.value(recipe, key, place) for key, place in zip(self.keys[recipe], place_P, strict=True)
            }
            baseline = self._search.baseline(own)
            try:
                stages = self._stage_s(recipe, baseline | values)
            except InputError:  # these values are allowed only beside others, if at all
                stages = self._stage_s(recipe, baseline)
            self._known[name] = tuple(stages)
        return self._known[name]

    def _alike(self, recipe: str, place_CP: Array) -> list[Array]:
        """For each parameter in `keys` the places of the candidates (C,): the same ones for all that count as equal."""
        kept_PC = []
        for key, column in zip(self.keys[recipe], self._columns[recipe], strict=True):
            parameter = self._encoding.spaces[recipe][key]
            parts = len(parameter.values) if isinstance(parameter, Choice) else 0 if parameter.finite() else _PARTS
            place_C = place_CP[:, column]
            kept_PC.append((np.minimum(np.floor(place_C * parts), parts - 1) + 0.5) / parts if parts else place_C)
        return kept_PC


def _costs(key: str, parameter: Parameter) -> bool:
    """Whether a parameter changes what stages cost. Of a model only choices count: each number would be another model, which nobody has
    measured."""
    group, _, name = key.partition(".")
    if group == MODEL:
        return isinstance(parameter, Choice) and name not in DROPOUTS
    return name.rsplit(".", 1)[-1] in _SIZES
