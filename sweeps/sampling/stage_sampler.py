"""A sampler that knows what a stage is worth.

A trial that departs from a published stage costs only the stages that remain. So each draw compares candidates from the root of the tree and
from its stages by their expected improvement over the best final score, divided by a power of what they would still cost. Where trials are
compared by a cost of their models too, it is the expected improvement of the Pareto front.

Everything is a function of the facts, the random seed and the number of the draw: a sweep that was killed and resumed draws what it
would have drawn from the same facts.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from sweeps.objective import CPU_SECONDS, DEVICE_HOURS, Objective
from sweeps.sampling.candidates import CandidateMaker, Candidates, KnownStages, Shared
from sweeps.sampling.encoding import Array, Encoding
from sweeps.sampling.facts import Proposal, SweepFacts, TrialFacts
from sweeps.sampling.stage_costs import CpuSeconds, ModelCosts, StageCosts, not_measured
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
ANYWHERE = 200
"""Points of each recipe among which the costliest model of the space is looked for."""
STARTUP_CHILDREN = 3
"""While nothing can be foretold, a stage is completed this many times before another one is begun from the root."""
_START_TRIES = 64
"""How many points are looked at then until one is new and allowed: half of them completions."""

_Key = tuple[Any, ...]
"""Tells a point from others."""


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
    """Logarithm of expected improvement divided by a power of the device seconds; minus infinity for what needs a closed stage or does not
    fit into the budget."""
    departs_C: NDArray[np.bool_]
    """Whether a candidate would train its first stage itself."""
    foretold: Foretold


@dataclass(frozen=True, kw_only=True)
class _Best:
    """The candidate with the highest value that is new and allowed."""

    value: float
    rated: _Rated
    index: int
    params: Mapping[str, Any]


class StageSampler:
    """Proposes points for one search. See the module for how."""

    def __init__(self, search: Search, seed: int, cpu_seconds: CpuSeconds = not_measured) -> None:
        """`cpu_seconds` is asked only where trials are compared by them."""
        self._search, self._seed = search, seed
        self._stages = {recipe.name: [stage.name for stage in recipe.stages] for recipe in search.recipes}
        self._encoding = Encoding(search)
        self._maker = CandidateMaker(search, self._encoding)
        self._known = KnownStages(self._encoding)
        self._costs = StageCosts(search, self._encoding)
        generator = np.random.default_rng(0)
        self._anywhere = {name: generator.random((ANYWHERE, len(space))) for name, space in self._encoding.spaces.items()}
        self._cost_name = Objective.of(search.objective).cost
        self._model_costs = ModelCosts(search, self._encoding, cpu_seconds)
        self._fitted = FittedProcesses()
        self._baselines = [(recipe, search.baseline(recipe)) for recipe in search.recipes]
        self._x: dict[str, Array] = {}
        """The vectors of the trials, which never change."""
        self._keys: dict[str, _Key] = {}
        """What tells each trial from others."""

    def propose(self, facts: SweepFacts, number: int) -> Proposal | None:
        """Return the next point to try; None when no candidate is new, allowed and within the remaining device seconds.

        `number`: the number of the draw, with which its random numbers change.
        """
        model = self._model(facts)
        tried = {self._keys[trial.trial] for trial in facts.trials} | _refused(facts)
        for recipe, own in self._baselines:
            if self._is_new(recipe.name, own, tried) and self._point_fits(facts, recipe.name, own):
                return Proposal(recipe=recipe.name, params=own, foretold={})
        if model is None:
            return self._start(facts, number, tried)
        best = self._best(facts, model, np.random.default_rng((self._seed, number)))
        if best is None:
            return None
        foretold, index = best.rated.foretold, best.index
        deviation = {name: math.hypot(float(foretold.deviation[name][index]), foretold.noise) for name in MODELS}
        seen = {name: (float(foretold.mean[name][index]), deviation[name]) for name in MODELS}
        return Proposal(recipe=best.rated.candidates.recipe, params=best.params, foretold=seen)

    def _point_fits(self, facts: SweepFacts, recipe: str, params: Mapping[str, Any]) -> bool:
        """Whether a point can be trained in the remaining device seconds."""
        if facts.remaining_s is None:
            return True
        place_CP = self._encoding.places(recipe, params)[None]
        shared = self._known.look_up(self._maker.free(recipe, place_CP), self._encoding.vectors(recipe, place_CP))
        _, own_C = self._cost(recipe, place_CP, shared)
        return bool(own_C[0] <= facts.remaining_s)

    def _rest_fits(self, facts: SweepFacts, trial: TrialFacts, depth: int) -> bool:
        """Whether the stages of a trial after the first `depth` can be trained in the remaining device seconds."""
        return facts.remaining_s is None or self._costs.remaining(trial.recipe, trial.params, depth) <= facts.remaining_s

    def worth(self, facts: SweepFacts, trial: TrialFacts, number: int) -> Worth | None:
        """Return what going on with a trial is worth at the end of a stage that is not its last; None while nobody can tell."""
        depth = len(trial.scores)
        # The trial itself must not count as one that is going to be trained: that would narrow its own variance alone.
        others = [replace(item, state="ended") if item.trial == trial.trial else item for item in facts.trials]
        facts = replace(facts, trials=others)
        model = self._model(facts)
        if not depth or model is None or self._num_reached(facts, self._stages[trial.recipe][depth - 1]) < MIN_STAGES_TO_STOP:
            return None
        best = self._best(facts, model, np.random.default_rng((self._seed, number, depth)))
        going_on = self._rate(self._maker.of_trial(trial, depth), model, None).value_C
        return Worth(going_on=float(going_on[0]), best_other=-math.inf if best is None else best.value)

    def _model(self, facts: SweepFacts) -> StageModel | None:
        self._costs.learn(facts)
        for trial in facts.trials:
            if trial.trial not in self._x:
                self._x[trial.trial] = self._maker.vector(trial)
                self._keys[trial.trial] = _key(trial.recipe, trial.params)
        self._known.learn(facts, self._x)
        finals = {trial.stage_ids[-1] for trial in facts.trials if trial.final is not None}
        if len(finals) < MIN_FINALS:
            return None
        return StageModel(self._stages, self._encoding, facts.trials, self._x, self._fitted, self._costliest())

    def _best(self, facts: SweepFacts, model: StageModel, generator: np.random.Generator) -> _Best | None:
        """The best candidate. While the root has had less than its share, it is one that departs from there, if there is one."""
        taken = {self._keys[trial.trial] for trial in facts.trials if trial.state != "paused"} | _refused(facts)
        from_root = self._maker.from_root(facts, generator)
        if _root_share(facts.trials) < ROOT_SHARE:
            rated = [self._rate(group, model, facts.remaining_s) for group in from_root]
            own = [replace(item, value_C=np.where(item.departs_C, item.value_C, -math.inf)) for item in rated]
            if (best := self._first_new(own, taken)) is not None:
                return best
        by_recipe = {group.recipe: [group] for group in from_root}
        for group in self._maker.from_stages(facts, generator):
            by_recipe[group.recipe].append(group)
        rated = [self._rate(Candidates.joined(parts), model, facts.remaining_s) for parts in by_recipe.values()]
        return self._first_new(rated, taken)

    def _first_new(self, rated: Sequence[_Rated], taken: set[_Key]) -> _Best | None:
        """The candidate with the highest value that is not taken and that the search allows; None when there is none."""
        order = sorted(
            ((value, group, index) for group, item in enumerate(rated) for index, value in enumerate(item.value_C)),
            key=lambda entry: -entry[0],
        )
        for value, group, index in order:
            if value == -math.inf:
                break
            candidates = rated[group].candidates
            params = self._maker.params(candidates, index)
            if self._is_new(candidates.recipe, params, taken):
                return _Best(value=float(value), rated=rated[group], index=index, params=params)
        return None

    def _is_new(self, recipe: str, params: Mapping[str, Any], taken: set[_Key]) -> bool:
        return _key(recipe, params) not in taken and not self._search.problem(self._search.recipe(recipe), params)

    def _rate(self, candidates: Candidates, model: StageModel, remaining_s: float | None) -> _Rated:
        x_CD = self._encoding.vectors(candidates.recipe, candidates.place_CP)
        shared = self._known.look_up(candidates, x_CD)
        foretold = model.foretell(candidates.recipe, x_CD, shared.depth_C, shared.score_C)
        cost_C, own_C = self._cost(candidates.recipe, candidates.place_CP, shared)
        improvement_C = model.log_improvement(foretold, self._cost_of_model(candidates.recipe, candidates.place_CP))
        value_C = improvement_C - COST_POWER * np.log(np.maximum(cost_C, 1e-9))
        value_C[shared.is_closed_C] = -math.inf
        if remaining_s is not None:
            value_C[own_C > remaining_s] = -math.inf
        departs_C = (shared.depth_C == 0) & np.isnan(shared.left_C)
        return _Rated(candidates=candidates, value_C=value_C, departs_C=departs_C, foretold=foretold)

    def _cost(self, recipe: str, place_CP: Array, shared: Shared) -> tuple[Array, Array]:
        """What each candidate would still cost, and the device seconds of it that are its own (C,).

        A stage that another trial is training costs the time until it is published. This is not the candidate's own time, but until then
        nobody learns from the candidate, and a worker may have nothing else to do.
        """
        all_C, next_C = self._costs.after(recipe, place_CP, shared.depth_C)
        own_C = np.where(np.isnan(shared.left_C), all_C, all_C - next_C)
        return own_C + np.nan_to_num(shared.left_C), own_C

    def _costliest(self) -> float:
        """The highest cost of a model among points anywhere in the space, always the same ones; 0 where costs do not count."""
        costs_C = [self._cost_of_model(recipe, place_CP) for recipe, place_CP in self._anywhere.items()]
        return max((float(cost_C.max()) for cost_C in costs_C if cost_C is not None), default=0.0)

    def _cost_of_model(self, recipe: str, place_CP: Array) -> Array | None:
        """The cost of each candidate by which trials are compared (C,); None where they are compared by their scores alone."""
        if self._cost_name == CPU_SECONDS:
            return self._model_costs.of(recipe, place_CP)
        if self._cost_name == DEVICE_HOURS:
            whole_C, _ = self._costs.after(recipe, place_CP, np.zeros(len(place_CP), dtype=int))
            return whole_C / 3600
        return None

    def _start(self, facts: SweepFacts, number: int, taken: set[_Key]) -> Proposal | None:
        """While nothing can be foretold: points that fill the space and share their early stages."""
        departure = self._least_completed(facts, number)
        for attempt, place_P in enumerate(self._places(number)):
            if departure is not None and attempt < _START_TRIES // 2:
                trial, depth = departure
                recipe, params = trial.recipe, self._maker.at(trial.recipe, trial, depth, place_P)
            else:
                recipe = self._search.recipes[(number + attempt) % len(self._search.recipes)].name
                params = self._maker.at(recipe, None, 0, place_P)
            if self._is_new(recipe, params, taken) and self._point_fits(facts, recipe, params):
                return Proposal(recipe=recipe, params=params, foretold={})
        return None

    def _places(self, number: int) -> Iterator[Array]:
        """Places of points (P,) for a draw of that number: one of a set that fills the space, then others at random."""
        dimensions = max(1, *(len(space) for space in self._encoding.spaces.values()))
        yield qmc.Halton(dimensions, seed=self._seed).fast_forward(number).random(1)[0]
        yield from np.random.default_rng((self._seed, number)).random((_START_TRIES - 1, dimensions))

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
            if depth <= len(trial.scores) and facts.departs(trial, depth) and self._rest_fits(facts, trial, depth)
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


def _key(recipe: str, params: Mapping[str, Any]) -> _Key:
    return recipe, tuple(sorted(params.items(), key=lambda item: item[0]))


def _refused(facts: SweepFacts) -> set[_Key]:
    return {_key(recipe, params) for recipe, params in facts.refused}


def _root_share(trials: Sequence[TrialFacts]) -> float:
    """The share of the device seconds that trials have spent which trained their first stage themselves."""
    spent = sum(sum(trial.spent_s) for trial in trials)
    from_root = sum(sum(trial.spent_s) for trial in trials if trial.spent_s[0] > 0)
    return from_root / spent if spent else 1.0
