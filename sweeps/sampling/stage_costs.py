"""What a stage will cost, from what stages have cost in this sweep."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from birdclef_core.errors import InputError
from sweeps.sampling.facts import TrialFacts
from sweeps.search.parameters import Choice
from sweeps.search.space import Search

_WORK = {"epochs", "clip_s", "clips_per_epoch", "variant"}
_CLIPS = 10_000
"""Stands for the number of recordings, where an epoch has a clip of each: it cancels out of all rates but those of mixed recipes."""

_Kind = tuple[Any, ...]
"""A kind of stages with a rate of its own: a recipe, the index of a stage, and the values of choices of the model, or the first of these."""


class StageCosts:
    """Estimates device seconds of stages: epochs times clips times their length, at the rate of the stages that were measured.

    The rate is that of the same stage of the same recipe and the same choices for the model (such as the encoder). Where none was measured,
    it is that of the stage with any model, else of the recipe, else of all.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        spaces = {recipe.name: search.sampled_space(recipe) for recipe in search.recipes}
        self._models = {
            name: [key for key, parameter in space.items() if key.startswith("model.") and isinstance(parameter, Choice)]
            for name, space in spaces.items()
        }
        """The choices of each recipe that make another model."""
        self.keys = {
            name: [key for key in space if key.rsplit(".", 1)[-1] in _WORK or key in self._models[name]]
            for name, space in spaces.items()
        }
        """The parameters of each recipe that change what its stages cost."""
        self._work: dict[tuple[str, _Kind], tuple[float, ...]] = {}
        """Work of the stages of a recipe, by the values of the parameters that change it."""
        self._rates: dict[_Kind, float] = {}

    def learn(self, trials: Iterable[TrialFacts]) -> None:
        """Take the rates of all stages that were measured from their first to their last epoch."""
        seconds: defaultdict[_Kind, float] = defaultdict(float)
        work: defaultdict[_Kind, float] = defaultdict(float)
        seen: set[str] = set()
        for trial in trials:
            for index in range(len(trial.scores)):
                cost = trial.spent_s[index] or trial.reused_s[index]
                if cost > 0 and trial.stage_ids[index] not in seen:
                    seen.add(trial.stage_ids[index])
                    part = self._parts(trial.recipe, trial.params)[index]
                    for kind in self._kinds(trial.recipe, index, trial.params):
                        seconds[kind] += cost
                        work[kind] += part
        self._rates = {kind: seconds[kind] / work[kind] for kind in seconds}

    def remaining(self, recipe: str, params: Mapping[str, Any], depth: int) -> float:
        """Return the device seconds of the stages of a chain after the first `depth`. Only parameters in `keys` are looked at.

        Before anything was measured they are in units of work, which serve to compare costs.
        """
        parts = self._parts(recipe, params)
        return sum(parts[index] * self._rate(recipe, index, params) for index in range(depth, len(parts)))

    @property
    def known(self) -> bool:
        """Whether anything was measured."""
        return bool(self._rates)

    def _rate(self, recipe: str, index: int, params: Mapping[str, Any]) -> float:
        return next((self._rates[kind] for kind in self._kinds(recipe, index, params) if kind in self._rates), 1.0)

    def _kinds(self, recipe: str, index: int, params: Mapping[str, Any]) -> tuple[_Kind, ...]:
        """The kinds that a stage belongs to, the narrowest first."""
        model = tuple(params.get(key) for key in self._models[recipe])
        return (recipe, index, model), (recipe, index), (recipe,), ()

    def _parts(self, recipe: str, params: Mapping[str, Any]) -> tuple[float, ...]:
        values = tuple(params.get(key) for key in self.keys[recipe])
        known = self._work.get((recipe, values))
        if known is None:
            own = self._search.recipe(recipe)
            changed = {key: params[key] for key in self.keys[recipe] if key in params}
            try:
                stages = self._search.stages(own, self._search.baseline(own) | changed)
            except InputError:  # these values are allowed only beside others, if at all
                stages = own.stages
            known = tuple(stage.epochs * stage.clip_s * (stage.clips_per_epoch or _CLIPS) for stage in stages)
            self._work[recipe, values] = known
        return known
