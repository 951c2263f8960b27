"""What candidates would still cost, from what the sweep knows of the costs of stages; and what their models cost where they are used."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birdclef_core.config import ModelConfig
from birdclef_core.errors import InputError
from birdclef_core.store.summary import DROPOUTS, FREEZING
from sweeps.objective import CPU_SECONDS
from sweeps.sampling.encoding import Array, Encoding
from sweeps.sampling.facts import SweepFacts
from sweeps.search.names import MODEL
from sweeps.search.parameters import Choice, Parameter
from sweeps.search.recipe_space import VARIANT
from sweeps.search.space import Search

_SIZES = {"epochs", "clip_s", "clips_per_epoch", "batch_size", "precision", *FREEZING, VARIANT}
_PARTS = 16
"""Of a range without steps only the middles of so many parts are asked for: their number is small, and no cost is known so exactly."""

CpuSeconds = Callable[[ModelConfig], float]
"""Gives the CPU seconds in which a model hears 10 minutes of sound."""


def not_measured(model: ModelConfig) -> float:
    """Stand for the CPU seconds of models in a sweep whose trials are not compared by them."""
    raise ValueError(f"cpu_seconds must be given to compare trials by {CPU_SECONDS}.")


class StageCosts:
    """Device seconds of the stages of candidates. Asks for costs once for all that differ only in what costs nothing."""

    def __init__(self, search: Search, encoding: Encoding) -> None:
        self._search, self._encoding = search, encoding
        self.keys = {name: [key for key in space if _costs(key, space[key])] for name, space in encoding.spaces.items()}
        """The parameters of each recipe that change what its stages cost."""
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
        places_KP, kind_C = _distinct(self._encoding.spaces[recipe], self.keys[recipe], place_CP)
        stages_CS = np.array([self._of_places(recipe, place_P) for place_P in places_KP])[kind_C]
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


class ModelCosts:
    """CPU seconds of the models of candidates, without measuring each of them.

    A model is measured with its recipe's own spectrogram, once for each encoder and head. The cost of another spectrogram is in proportion
    to its size, because that is how many places the encoder looks at.
    """

    def __init__(self, search: Search, encoding: Encoding, cpu_seconds: CpuSeconds) -> None:
        self._search, self._encoding, self._cpu_seconds = search, encoding, cpu_seconds
        self.keys = {
            name: [key for key in space if key.partition(".")[0] == MODEL and key.partition(".")[2] not in DROPOUTS]
            for name, space in encoding.spaces.items()
        }
        """The parameters of each recipe that change what its model costs."""
        self._known: dict[tuple[Any, ...], float] = {}
        """CPU seconds by recipe and places of its parameters in `keys`."""

    def of(self, recipe: str, place_CP: Array) -> Array:
        """Return the CPU seconds in which the model of each candidate hears 10 minutes of sound (C,)."""
        places_KP, kind_C = _distinct(self._encoding.spaces[recipe], self.keys[recipe], place_CP)
        return np.array([self._of_places(recipe, place_P) for place_P in places_KP])[kind_C]

    def _of_places(self, recipe: str, place_P: Sequence[float]) -> float:
        name = (recipe, *place_P)
        if name not in self._known:
            own = self._search.recipe(recipe)
            keys = self.keys[recipe]
            values = {key: self._encoding.value(recipe, key, place) for key, place in zip(keys, place_P, strict=True)}
            try:
                model = self._search.model(own, self._search.baseline(own) | values)
            except InputError:  # these values are allowed only beside others, if at all
                model = own.model
            measured = replace(model, spectrogram=own.model.spectrogram)
            self._known[name] = self._cpu_seconds(measured) * _size(model) / _size(measured)
        return self._known[name]


def _size(model: ModelConfig) -> float:
    """Mel bins of a spectrogram in one sample of sound."""
    return model.spectrogram.num_mels / model.spectrogram.hop_length


def _distinct(space: Mapping[str, Parameter], keys: Sequence[str], place_CP: Array) -> tuple[list[list[float]], NDArray[np.int_]]:
    """Return the K distinct places that candidates have for the parameters in `keys`, and which of them each candidate has (C,).

    Places that count as equal are made equal.
    """
    names, alike_PC = list(space), []
    kind_C = np.zeros(len(place_CP), dtype=int)
    for key in keys:
        parameter, place_C = space[key], place_CP[:, names.index(key)]
        parts = len(parameter.values) if isinstance(parameter, Choice) else 0 if parameter.finite() else _PARTS
        alike_PC.append((np.minimum(np.floor(place_C * parts), parts - 1) + 0.5) / parts if parts else place_C)
        distinct, own_C = np.unique(alike_PC[-1], return_inverse=True)
        kind_C = kind_C * len(distinct) + own_C
    _, first_K, kind_C = np.unique(kind_C, return_index=True, return_inverse=True)
    return [[float(alike_C[first]) for alike_C in alike_PC] for first in first_K], kind_C


def _costs(key: str, parameter: Parameter) -> bool:
    """Whether a parameter changes what stages cost. Of a model only choices count: each number would be another model, which nobody has
    measured."""
    group, _, name = key.partition(".")
    if group == MODEL:
        return isinstance(parameter, Choice) and name not in DROPOUTS
    return name.rsplit(".", 1)[-1] in _SIZES
