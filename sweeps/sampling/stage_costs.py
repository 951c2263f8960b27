"""What a stage will cost, from what stages have cost in this sweep."""

from collections.abc import Iterable, Mapping
from typing import Any

from sweeps.sampling.facts import TrialFacts
from sweeps.search.space import Search


class StageCosts:
    """Estimates device seconds of stages: epochs times clips times their length, at the rate of the stages that were measured."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self.keys = {
            recipe.name: [key for key in search.sampled_space(recipe) if key.rsplit(".", 1)[-1] in _WORK or _is_model(key)]
            for recipe in search.recipes
        }
        """The parameters of each recipe that change what its stages cost."""
        self._work: dict[tuple[str, tuple[Any, ...]], tuple[float, ...]] = {}
        """Work of the stages of a recipe, by the values of the parameters that change it."""
        self._rates: dict[tuple[str, int], float] = {}
        self._recipe_rates: dict[str, float] = {}
        self._rate = 1.0

    def learn(self, trials: Iterable[TrialFacts]) -> None:
        """Take the rates of all stages that were measured from their first to their last epoch."""
        seconds: dict[tuple[str, int], float] = {}
        work: dict[tuple[str, int], float] = {}
        seen: set[str] = set()
        for trial in trials:
            parts = self._parts(trial.recipe, trial.params)
            for index in range(len(trial.scores)):
                cost = trial.spent_s[index] or trial.reused_s[index]
                if cost > 0 and trial.stage_ids[index] not in seen:
                    seen.add(trial.stage_ids[index])
                    key = (trial.recipe, index)
                    seconds[key] = seconds.get(key, 0.0) + cost
                    work[key] = work.get(key, 0.0) + parts[index]
        self._rates = {key: seconds[key] / work[key] for key in seconds}
        recipes = {recipe for recipe, _ in seconds}
        self._recipe_rates = {
            recipe: sum(cost for key, cost in seconds.items() if key[0] == recipe)
            / sum(parts for key, parts in work.items() if key[0] == recipe)
            for recipe in recipes
        }
        if seconds:
            self._rate = sum(seconds.values()) / sum(work.values())

    def remaining(self, recipe: str, params: Mapping[str, Any], depth: int) -> float:
        """Return the device seconds of the stages of a chain after the first `depth`. Only parameters in `keys` are looked at.

        Before anything was measured they are in units of work, which serve to compare costs.
        """
        parts = self._parts(recipe, params)
        fallback = self._recipe_rates.get(recipe, self._rate)
        return sum(parts[index] * self._rates.get((recipe, index), fallback) for index in range(depth, len(parts)))

    def _parts(self, recipe: str, params: Mapping[str, Any]) -> tuple[float, ...]:
        values = tuple(params.get(key) for key in self.keys[recipe])
        known = self._work.get((recipe, values))
        if known is None:
            own = self._search.baseline(self._search.recipe(recipe))
            changed = {key: params[key] for key in self.keys[recipe] if key in params}
            stages = self._search.stages(self._search.recipe(recipe), own | changed)
            known = tuple(stage.epochs * stage.clip_s * (stage.clips_per_epoch or _CLIPS) for stage in stages)
            self._work[recipe, values] = known
        return known


_WORK = {"epochs", "clip_s", "clips_per_epoch", "variant"}
_CLIPS = 10_000
"""Stands for the number of recordings, where an epoch has a clip of each: it cancels out of all rates but those of mixed recipes."""


def _is_model(key: str) -> bool:
    return key.startswith("model.")
