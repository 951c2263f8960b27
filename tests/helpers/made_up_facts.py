"""Trials of a made-up sweep, as the stage-aware sampler is told of them."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sweeps.sampling.facts import StageSeconds, SweepFacts, TrialFacts
from sweeps.search.space import Search


def stage_ids(search: Search, recipe: str, params: Mapping[str, Any]) -> list[str]:
    """Made-up ids: the same for trials that have the same parameters up to a stage."""
    of_recipe = search.recipe(recipe)
    return [
        f"{recipe} {stage.name} " + str({key: params[key] for key in params if search.first_stage(of_recipe, key) <= index})
        for index, stage in enumerate(of_recipe.stages)
    ]


def trial_of(
    search: Search, number: int, recipe: str, params: Mapping[str, Any], scores: Sequence[float] = (), **changes
) -> TrialFacts:
    """A trial that has the scores of its first stages; it has finished if it has all. Each of its stages took ten seconds."""
    ids = stage_ids(search, recipe, params)
    is_whole = len(scores) == len(ids)
    values = {
        "trial": f"t{number:04d}",
        "recipe": recipe,
        "params": dict(params),
        "stage_ids": ids,
        "scores": list(scores),
        "final": scores[-1] if is_whole else None,
        "state": "ended" if is_whole else "open",
        "spent_s": [10.0] * len(scores) + [0.0] * (len(ids) - len(scores)),
        "foretold": {},
    }
    return TrialFacts(**{**values, **changes})


def costs_of(trials: Sequence[TrialFacts]) -> StageSeconds:
    """What the stages of a recipe have cost on average, whatever their parameters, or else those of all; next to nothing at first."""
    spent: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for trial in trials:
        for index, seconds in enumerate(trial.spent_s):
            if seconds > 0:
                spent[trial.recipe, index].append(seconds)
    usual = statistics.mean([second for seconds in spent.values() for second in seconds] or [1e-6])
    num_stages = {trial.recipe: len(trial.stage_ids) for trial in trials}

    def stage_s(recipe: str, params: Mapping[str, Any]) -> list[float]:
        return [statistics.mean(spent.get((recipe, index), [usual])) for index in range(num_stages.get(recipe, 5))]

    return stage_s


def facts_of(trials: Sequence[TrialFacts], *, removed: Iterable[str] = (), closed: Iterable[str] = (), **changes) -> SweepFacts:
    """A sweep whose store has every stage with a score, but for those that were removed. Nothing is being trained."""
    published = {stage_id for trial in trials for stage_id in trial.stage_ids[: len(trial.scores)]} - set(removed)
    values = {
        "trials": trials,
        "is_published": published.__contains__,
        "is_closed": frozenset(closed).__contains__,
        "stage_s": costs_of(trials),
        "left_s": {},
    }
    return SweepFacts(**{**values, **changes})
