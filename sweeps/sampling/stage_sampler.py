"""A sampler that knows what a stage is worth.

A trial that departs from a published stage costs only the stages that remain. So each draw compares candidates from the root of the tree and
from its stages by their expected improvement over the best final score, divided by a power of what they would still cost.

Everything is a function of the facts, the random seed and the number of the draw: a sweep that was killed and resumed draws what it
would have drawn from the same facts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import qmc

from sweeps.sampling.candidates import CandidateMaker, Candidates
from sweeps.sampling.encoding import Array, Encoding
from sweeps.sampling.facts import Proposal, SweepFacts, TrialFacts
from sweeps.sampling.stage_costs import StageCosts
from sweeps.sampling.stage_model import MIN_FINALS, MODELS, FittedProcesses, Foretold, StageModel
from sweeps.search.space import Search

ROOT_SHARE = 0.25
"""At least this share of the device seconds is spent by trials that depart from the root: a search that only completes known stages
would never see other ones."""
COST_POWER = 0.6
"""Expected improvement is divided by this power of the cost. With 1, nearly all trials would be completions of the last stage, which are cheap
and can gain little; see docs/benchmarks/search.md."""
STOP_FACTOR = 0.6
"""A trial stops at a stage's end if what it may still gain for its cost is less than this share of the best that may be begun."""
MIN_STAGES_TO_STOP = 4
"""No trial stops at a stage that fewer different stages have reached."""
STARTUP_CHILDREN = 3
"""While nothing can be foretold, a stage is completed this many times before another one is begun from the root."""


@dataclass(frozen=True, kw_only=True)
class Worth:
    """What it is worth to go on with a trial, against the best that could be begun in its place.

    Both are logarithms of expected improvement divided by a power of the device seconds.
    """

    going_on: float
    best_other: float

    @property
    def stops(self) -> bool:
        return self.going_on < self.best_other + math.log(STOP_FACTOR)


@dataclass(frozen=True, kw_only=True)
class _Rated:
    """Candidates with their acquisition values."""

    candidates: Candidates
    value_C: Array
    """Logarithm of expected improvement divided by a power of the device seconds; minus infinity for what does not fit into the budget."""
    foretold: Foretold

    @property
    def best(self) -> float:
        return float(np.max(self.value_C, initial=-math.inf))


class StageSampler:
    """Proposes points for one search. See the module for how."""

    def __init__(self, search: Search, seed: int) -> None:
        self._search, self._seed = search, seed
        self._stages = {recipe.name: [stage.name for stage in recipe.stages] for recipe in search.recipes}
        self._encoding = Encoding(search)
        self._maker = CandidateMaker(search, self._encoding)
        self._costs = StageCosts(search)
        self._fitted = FittedProcesses()
        self._x: dict[str, Array] = {}
        """The vectors of the trials, which never change."""

    def propose(self, facts: SweepFacts, number: int) -> Proposal | None:
        """Return the next point to try; None when nothing new fits into the remaining device seconds.

        `number`: the number of the draw, with which its random numbers change.
        """
        model = self._model(facts)
        if model is None:
            return self._start(facts, number)
        rated = self._compared(facts, model, np.random.default_rng((self._seed, number)))
        taken = {_key(trial.recipe, trial.params) for trial in facts.trials if trial.state != "paused"}
        order = sorted(
            ((value, group, index) for group, item in enumerate(rated) for index, value in enumerate(item.value_C)),
            key=lambda entry: -entry[0],
        )
        for value, group, index in order:
            candidates, foretold = rated[group].candidates, rated[group].foretold
            params = self._maker.params(candidates, index)
            if value == -math.inf:
                break
            recipe = self._search.recipe(candidates.recipe)
            if _key(recipe.name, params) not in taken and not self._search.problem(recipe, params):
                deviation = {name: math.hypot(float(foretold.deviation[name][index]), foretold.noise) for name in MODELS}
                seen = {name: (float(foretold.mean[name][index]), deviation[name]) for name in MODELS}
                return Proposal(recipe=candidates.recipe, params=params, foretold=seen)
        return None

    def worth(self, facts: SweepFacts, trial: TrialFacts, number: int) -> Worth | None:
        """Return what going on with a trial is worth at the end of a stage that is not its last; None while nobody can tell."""
        model, depth = self._model(facts), len(trial.scores)
        if model is None or self._num_reached(facts, self._stages[trial.recipe][depth - 1]) < MIN_STAGES_TO_STOP:
            return None
        others = self._compared(facts, model, np.random.default_rng((self._seed, number, depth)))
        going_on = self._rate(self._maker.of_trial(trial, depth), model, None).best
        return Worth(going_on=going_on, best_other=max((item.best for item in others), default=-math.inf))

    def _model(self, facts: SweepFacts) -> StageModel | None:
        self._costs.learn(facts.trials)
        for trial in facts.trials:
            if trial.trial not in self._x:
                self._x[trial.trial] = self._maker.vector(trial)
        finals = {trial.stage_ids[-1] for trial in facts.trials if trial.final is not None}
        if len(finals) < MIN_FINALS:
            return None
        return StageModel(self._stages, self._encoding, facts.trials, self._x, self._fitted)

    def _compared(self, facts: SweepFacts, model: StageModel, generator: np.random.Generator) -> list[_Rated]:
        """All candidates. They are from the root alone while the root has had less than its share."""
        groups = self._maker.from_root(facts, generator)
        if _root_share(facts.trials) >= ROOT_SHARE:
            groups += self._maker.from_stages(facts, generator)
        by_recipe: dict[str, list[Candidates]] = {}
        for group in groups:
            by_recipe.setdefault(group.recipe, []).append(group)
        return [self._rate(Candidates.joined(parts), model, facts.remaining_s) for parts in by_recipe.values()]

    def _rate(self, candidates: Candidates, model: StageModel, remaining_s: float | None) -> _Rated:
        x_CD = self._encoding.vectors(candidates.recipe, candidates.place_CP)
        foretold = model.foretell(candidates.recipe, x_CD, candidates.depth_C, candidates.score_C)
        cost_C = self._cost(candidates)
        value_C = model.log_improvement(foretold) - COST_POWER * np.log(np.maximum(cost_C, 1e-9))
        if remaining_s is not None:
            value_C = np.where(cost_C <= remaining_s, value_C, -math.inf)
        return _Rated(candidates=candidates, value_C=value_C, foretold=foretold)

    def _cost(self, candidates: Candidates) -> Array:
        """Device seconds that each candidate would still cost (C,)."""
        recipe, keys = candidates.recipe, self._costs.keys[candidates.recipe]
        columns = [list(self._encoding.spaces[recipe]).index(key) for key in keys]
        known: dict[tuple[Any, ...], float] = {}
        cost_C = np.empty(len(candidates.place_CP))
        for index, (place_P, depth) in enumerate(zip(candidates.place_CP[:, columns].tolist(), candidates.depth_C, strict=True)):
            values = tuple(self._encoding.value(recipe, key, place) for key, place in zip(keys, place_P, strict=True))
            if (depth, values) not in known:
                known[depth, values] = self._costs.remaining(recipe, dict(zip(keys, values, strict=True)), int(depth))
            cost_C[index] = known[depth, values]
        return cost_C

    def _start(self, facts: SweepFacts, number: int) -> Proposal | None:
        """The first draws: each recipe at its own values, then points that fill the space and share their early stages."""
        tried = {_key(trial.recipe, trial.params) for trial in facts.trials}
        for recipe in self._search.recipes:
            own = self._search.baseline(recipe)
            if _key(recipe.name, own) not in tried:
                return Proposal(recipe=recipe.name, params=own, foretold={})
        dimensions = max(len(space) for space in self._encoding.spaces.values())
        place_P = qmc.Halton(max(1, dimensions), seed=self._seed).fast_forward(number).random(1)[0]
        departure = self._least_completed(facts, number)
        if departure is None:
            name = self._search.recipes[number % len(self._search.recipes)].name
            return Proposal(recipe=name, params=self._maker.at(name, None, 0, place_P), foretold={})
        trial, depth = departure
        return Proposal(recipe=trial.recipe, params=self._maker.at(trial.recipe, trial, depth, place_P), foretold={})

    def _least_completed(self, facts: SweepFacts, number: int) -> tuple[TrialFacts, int] | None:
        """A published stage that few trials share, and its depth; None when every one has enough."""
        children: dict[str, int] = {}
        for trial in facts.trials:
            for stage_id in trial.stage_ids:
                children[stage_id] = children.get(stage_id, 0) + 1
        found = [
            (children[trial.stage_ids[depth - 1]], (depth + number) % 4, index, depth)
            for index, trial in enumerate(facts.trials)
            for depth in range(1, len(trial.stage_ids))
            if depth <= len(trial.scores) and facts.is_published(trial.stage_ids[depth - 1])
        ]
        if not found:
            return None
        shared, _, index, depth = min(found)
        return (facts.trials[index], depth) if shared <= STARTUP_CHILDREN else None

    def _num_reached(self, facts: SweepFacts, stage: str) -> int:
        """How many different stages of a name have a score at their end."""
        reached = {
            trial.stage_ids[index]
            for trial in facts.trials
            for index in range(len(trial.scores))
            if self._stages[trial.recipe][index] == stage
        }
        return len(reached)


def _key(recipe: str, params: Mapping[str, Any]) -> tuple[Any, ...]:
    return recipe, tuple(sorted(params.items(), key=lambda item: item[0]))


def _root_share(trials: Sequence[TrialFacts]) -> float:
    """The share of the device seconds that trials have spent which trained their first stage themselves."""
    spent = sum(sum(trial.spent_s) for trial in trials)
    from_root = sum(sum(trial.spent_s) for trial in trials if trial.spent_s[0] > 0)
    return from_root / spent if spent else 1.0
