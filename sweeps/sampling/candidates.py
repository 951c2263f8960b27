"""The points of the search space that a stage-aware sampler compares.

A candidate starts from the root of the tree of stages or from a published stage. From the root all parameters are free; from a stage, those of
the stages before are given.

Shapes: C candidates, P parameters of a recipe.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.objective import pareto_front
from sweeps.sampling.encoding import MIDDLE, Array, Encoding
from sweeps.sampling.facts import SweepFacts, TrialFacts
from sweeps.search.parameters import Parameter
from sweeps.search.space import Search

ROOT_CANDIDATES = 160
PREFIXES_A_DEPTH, COMPLETIONS = 6, 20
NUM_BEST = 8
MAX_PAUSED = 40
_MOVED_SHARE, _MOVE = 0.5, 0.15
"""Share of the free parameters that are moved near a good trial, and standard deviation of a move in shares of the range."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Points of one recipe."""

    recipe: str
    place_CP: Array
    own_CP: NDArray[np.bool_]
    """Whether a parameter has its own place, and not the value of the trial in `origin`."""
    origin: Sequence[tuple[TrialFacts | None, TrialFacts | None]]
    """For each candidate the trial that has its given parameters, and the one near which it lies."""
    depth_C: NDArray[np.int_]
    """Number of published stages before each of them."""
    score_C: Array
    """Score at the end of the last of these; 0 where there is none."""

    @classmethod
    def joined(cls, parts: Sequence["Candidates"]) -> "Candidates":
        """Return the candidates of several parts, all of the same recipe."""
        return cls(
            recipe=parts[0].recipe,
            place_CP=np.concatenate([part.place_CP for part in parts]),
            own_CP=np.concatenate([part.own_CP for part in parts]),
            origin=[origin for part in parts for origin in part.origin],
            depth_C=np.concatenate([part.depth_C for part in parts]),
            score_C=np.concatenate([part.score_C for part in parts]),
        )


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What candidates share with the tree."""

    depth_C: NDArray[np.int_]
    """Number of published stages before each of them, those included that it shares by chance."""
    score_C: Array
    """Score at the end of the last of these; 0 where there is none."""
    is_closed_C: NDArray[np.bool_]
    """Whether it needs a stage that is closed."""
    left_C: Array
    """Device seconds after which its next stage will be published, which a trial is training now; NaN where none is."""


class KnownStages:
    """Finds stages of the tree among the stages of candidates, by the parameters that matter in them.

    A candidate shares more stages than those that it was made from, where its parameters are those of another trial by chance.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._prefixes: dict[str, list[bytes]] = {}
        """What tells the prefixes of each trial from others; it never changes."""
        self._published: defaultdict[tuple[str, int], dict[bytes, float]] = defaultdict(dict)
        """Scores of the published stages, by recipe and number of the stage."""
        self._closed: defaultdict[tuple[str, int], set[bytes]] = defaultdict(set)
        self._left: defaultdict[tuple[str, int], dict[bytes, float]] = defaultdict(dict)
        """Seconds that are left of the stages in training."""

    def learn(self, facts: SweepFacts, x_by_trial: Mapping[str, Array]) -> None:
        """Take the stages of all trials. `x_by_trial`: the vector of each."""
        self._published.clear()
        self._closed.clear()
        self._left.clear()
        for trial in facts.trials:
            for depth, prefix in enumerate(self._prefixes_of(trial, x_by_trial[trial.trial]), start=1):
                stage_id, place = trial.stage_ids[depth - 1], (trial.recipe, depth)
                if facts.is_closed(stage_id):
                    self._closed[place].add(prefix)
                elif depth <= len(trial.scores) and facts.is_published(stage_id):
                    self._published[place].setdefault(prefix, trial.scores[depth - 1])
                elif stage_id in facts.left_s:
                    self._left[place][prefix] = facts.left_s[stage_id]

    def look_up(self, candidates: Candidates, x_CD: Array) -> Shared:
        """Return what candidates share with the tree. `x_CD`: the vector of each."""
        depth_C, score_C = candidates.depth_C.copy(), candidates.score_C.copy()
        is_closed_C, left_C = np.zeros(len(x_CD), dtype=bool), np.full(len(x_CD), math.nan)
        for depth, prefixes in enumerate(self._prefixes_at(candidates.recipe, x_CD), start=1):
            place = (candidates.recipe, depth)
            published, closed, left = self._published[place], self._closed[place], self._left[place]
            for index, prefix in enumerate(prefixes if published or closed or left else ()):
                if prefix in closed:
                    is_closed_C[index] = True
                elif depth > depth_C[index]:
                    if prefix in published:
                        depth_C[index], score_C[index], left_C[index] = depth, published[prefix], math.nan
                    elif depth == depth_C[index] + 1:
                        left_C[index] = left.get(prefix, math.nan)
        return Shared(depth_C=depth_C, score_C=score_C, is_closed_C=is_closed_C, left_C=left_C)

    def _prefixes_of(self, trial: TrialFacts, x_D: Array) -> list[bytes]:
        if trial.trial not in self._prefixes:
            self._prefixes[trial.trial] = [prefix for (prefix,) in self._prefixes_at(trial.recipe, x_D[None])]
        return self._prefixes[trial.trial]

    def _prefixes_at(self, recipe: str, x_CD: Array) -> Iterator[list[bytes]]:
        """For each stage of a chain but the last, what tells the prefixes of candidates from others."""
        for stage in range(self._encoding.num_stages[recipe] - 1):
            prefix_CD = self._encoding.until(recipe, stage, x_CD)
            text, size = prefix_CD.tobytes(), prefix_CD.shape[1] * prefix_CD.itemsize
            yield [text[number * size : (number + 1) * size] for number in range(len(prefix_CD))]


class CandidateMaker:
    """Makes the candidates of one search."""

    def __init__(self, search: Search, encoding: Encoding) -> None:
        self._search, self._encoding = search, encoding
        self._conditional = {
            name: [(number, key) for number, (key, parameter) in enumerate(space.items()) if parameter.when is not None]
            for name, space in encoding.spaces.items()
        }
        """Place and name of each parameter that not every point has."""
        self._places: dict[str, Array] = {}
        """The places of the trials, which never change."""

    def of_trial(self, trial: TrialFacts, depth: int) -> Candidates:
        """Return a trial as a candidate that goes on after its first `depth` stages."""
        return Candidates(
            recipe=trial.recipe,
            place_CP=self._places_of(trial)[None],
            own_CP=np.zeros((1, len(self._places_of(trial))), dtype=bool),
            origin=[(trial, trial)],
            depth_C=np.array([depth]),
            score_C=np.array([trial.scores[depth - 1] if depth else 0.0]),
        )

    def from_root(self, facts: SweepFacts, generator: np.random.Generator) -> list[Candidates]:
        """Return candidates that train every stage: half of them anywhere, half near the best trials."""
        best = _best_first(facts.trials, generator)[:NUM_BEST]
        num_near = ROOT_CANDIDATES // 2 if best else 0
        near = [best[number % len(best)] for number in range(num_near)]
        recipes = list(self._encoding.spaces)
        made = []
        for number, recipe in enumerate(recipes):
            anywhere = len(range(number, ROOT_CANDIDATES - num_near, len(recipes)))
            beside = [trial for trial in near if trial.recipe == recipe]
            made.append(self._made(recipe, None, [*[None] * anywhere, *beside], 0, 0.0, generator))
        return made

    def from_stages(self, facts: SweepFacts, generator: np.random.Generator) -> list[Candidates]:
        """Return completions of published stages of every depth, and the paused trials."""
        best_first = _best_first(facts.trials, generator)
        best = best_first[:NUM_BEST]
        made = [self.of_trial(trial, self._num_published(trial, facts)) for trial in _paused(facts.trials)]
        for depth in range(1, max(self._encoding.num_stages.values())):
            for departure in _chosen(self._departures(facts, depth, best_first), generator):
                alike = [trial for trial in best if trial.recipe == departure.trial.recipe]
                num_near = COMPLETIONS // 2 if alike else 0
                near = [alike[number % len(alike)] for number in range(num_near)]
                beside = [*[None] * (COMPLETIONS - num_near), *near]
                made.append(self._made(departure.trial.recipe, departure.trial, beside, depth, departure.score, generator))
        return made

    def params(self, candidates: Candidates, index: int) -> dict[str, Any]:
        """Return the parameters of one candidate."""
        given, near = candidates.origin[index]
        recipe, depth = self._search.recipe(candidates.recipe), candidates.depth_C[index]
        number = {key: place for place, key in enumerate(self._encoding.spaces[recipe.name])}

        def value(key: str, parameter: Parameter) -> Any:
            place = number[key]
            is_given = given is not None and self._encoding.first_P[recipe.name][place] < depth
            source = given if is_given else None if candidates.own_CP[index, place] else near
            if source is not None and key in source.params:
                return source.params[key]
            return self._encoding.value(recipe.name, key, float(candidates.place_CP[index, place]))

        return self._search.point(recipe, value)

    def at(self, recipe: str, given: TrialFacts | None, depth: int, place_P: Array) -> dict[str, Any]:
        """Return the parameters at given places, with those of a trial's first `depth` stages."""
        made = self.free(recipe, place_P[None, : len(self._encoding.spaces[recipe])])
        return self.params(replace(made, origin=[(given, None)], depth_C=np.array([depth])), 0)

    def free(self, recipe: str, place_CP: Array) -> Candidates:
        """Return candidates from the root at given places."""
        num = len(place_CP)
        own_CP = np.ones(place_CP.shape, dtype=bool)
        origin = [(None, None)] * num
        depth_C = np.zeros(num, dtype=int)
        return Candidates(recipe=recipe, place_CP=place_CP, own_CP=own_CP, origin=origin, depth_C=depth_C, score_C=np.zeros(num))

    def _made(
        self,
        recipe: str,
        given: TrialFacts | None,
        near: Sequence[TrialFacts | None],
        depth: int,
        score: float,
        generator: np.random.Generator,
    ) -> Candidates:
        num, size = len(near), len(self._encoding.spaces[recipe])
        anywhere_CP = generator.random((num, size))
        place_CP, own_CP = anywhere_CP.copy(), np.ones((num, size), dtype=bool)
        beside = [index for index, trial in enumerate(near) if trial is not None]
        if beside and size:
            base_CP = np.array([self._places_of(trial) for trial in near if trial is not None])
            free_P = self._encoding.first_P[recipe] >= depth
            moved_CP = (generator.random(base_CP.shape) < _MOVED_SHARE) & free_P
            stuck = np.flatnonzero(~moved_CP.any(axis=1))
            moved_CP[stuck, generator.choice(np.flatnonzero(free_P), len(stuck)) if free_P.any() else 0] = free_P.any()
            place_CP[beside] = self._moved(recipe, base_CP, anywhere_CP[beside], moved_CP, generator)
            own_CP[beside] = moved_CP
        place_CP = self._encoding.settled(recipe, place_CP)
        if given is not None:
            place_CP = np.where(self._encoding.first_P[recipe] < depth, self._places_of(given), place_CP)
        made = Candidates(
            recipe=recipe,
            place_CP=place_CP,
            own_CP=own_CP,
            origin=[(given, trial) for trial in near],
            depth_C=np.full(num, depth),
            score_C=np.full(num, score),
        )
        for index in range(num if self._conditional[recipe] else 0):
            params = self.params(made, index)
            made.place_CP[index, [number for number, key in self._conditional[recipe] if key not in params]] = MIDDLE
        return made

    def _moved(
        self, recipe: str, base_CP: Array, anywhere_CP: Array, moved_CP: NDArray[np.bool_], generator: np.random.Generator
    ) -> Array:
        """Numbers move a little and are reflected at both ends; choices are drawn again."""
        stepped_CP = np.abs(base_CP + _MOVE * generator.standard_normal(base_CP.shape)) % 2
        stepped_CP = np.where(stepped_CP > 1, 2 - stepped_CP, stepped_CP)
        is_choice_P = self._encoding.is_choice_P[recipe]
        return np.where(moved_CP, np.where(is_choice_P, anywhere_CP, stepped_CP), base_CP)

    def _places_of(self, trial: TrialFacts) -> Array:
        if trial.trial not in self._places:
            self._places[trial.trial] = self._encoding.places(trial.recipe, trial.params)
        return self._places[trial.trial]

    def vector(self, trial: TrialFacts) -> Array:
        """Return the vector (D,) of a trial."""
        return self._encoding.vectors(trial.recipe, self._places_of(trial)[None])[0]

    def _num_published(self, trial: TrialFacts, facts: SweepFacts) -> int:
        return next((depth for depth in range(len(trial.scores), 0, -1) if facts.departs(trial, depth)), 0)

    def _departures(self, facts: SweepFacts, depth: int, best_first: Sequence[TrialFacts]) -> list["_Departure"]:
        """Every published stage at a depth that is not the last of its chain."""
        rank = {trial.trial: number for number, trial in enumerate(best_first)}
        found: dict[str, _Departure] = {}
        for trial in facts.trials:
            if depth < self._encoding.num_stages[trial.recipe] and len(trial.scores) >= depth:
                stage_id = trial.stage_ids[depth - 1]
                rank_of_trial = rank.get(trial.trial, len(rank))
                known = found.get(stage_id)
                if known is not None:
                    known.rank = min(known.rank, rank_of_trial)
                elif facts.departs(trial, depth):
                    found[stage_id] = _Departure(trial=trial, score=trial.scores[depth - 1], rank=rank_of_trial)
        return list(found.values())


@dataclass
class _Departure:
    """A published stage from which a candidate may depart."""

    trial: TrialFacts
    """The first trial that has it."""
    score: float
    """Score at its end."""
    rank: int
    """Place of the best finished trial that has it, from 0; behind all when there is none."""


def _paused(trials: Iterable[TrialFacts]) -> list[TrialFacts]:
    return [trial for trial in trials if trial.state == "paused"][-MAX_PAUSED:]


def _best_first(trials: Iterable[TrialFacts], generator: np.random.Generator) -> list[TrialFacts]:
    """The finished trials by their scores. Where trials are compared by a cost too, those of the Pareto front come first, in random
    order: each draw looks near other parts of it."""
    finished = [trial for trial in trials if trial.final is not None]
    by_score = sorted(finished, key=lambda trial: -(trial.final or 0.0))
    values = [(trial.final or 0.0, trial.cost) for trial in by_score if trial.cost is not None]
    if len(values) < len(by_score):
        return by_score
    front = pareto_front(values)
    others = sorted(set(range(len(by_score))) - set(front))
    return [by_score[index] for index in (*map(int, generator.permutation(front)), *others)]


def _chosen(departures: Sequence[_Departure], generator: np.random.Generator) -> list[_Departure]:
    """A third by the best trial that they led to, a third by their own score, and others at random."""
    if len(departures) <= PREFIXES_A_DEPTH:
        return list(departures)
    third = PREFIXES_A_DEPTH // 3
    by_rank = sorted(range(len(departures)), key=lambda index: departures[index].rank)
    by_score = sorted(by_rank[third:], key=lambda index: -departures[index].score)
    others = generator.choice(by_score[third:], size=PREFIXES_A_DEPTH - 2 * third, replace=False)
    return [departures[index] for index in (*by_rank[:third], *by_score[:third], *map(int, others))]
