"""What an ensemble is worth: three scores, each named by what the scored data were used for, beside simpler ways of combining.

*Apparent*: on the rows that it was selected on, so too good. *Cross-fitted*: the same rows, in four parts by author or soundscape file;
each part is predicted by an ensemble that was selected on the others, and all predictions are scored once, because padded
scores of parts of different size cannot be compared. *Untouched*: on data by which nothing was chosen.
Shapes: K candidates, R rows that are scored, C species.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from birdclef_core.ensemble.parts import jackknife_error, parts_of
from birdclef_core.ensemble.record import EnsembleScore, EnsembleScores, Metric, Source
from birdclef_core.ensemble.selection import (
    Cost,
    Rows,
    Rules,
    Selected,
    Weighted,
    equal_weights,
    normalised,
    select,
)
from birdclef_core.evaluation.jackknife import figures_without_groups
from birdclef_core.evaluation.metrics import per_class_ap, summarise

ENSEMBLE, SINGLE, EQUAL_BEST, EQUAL, EQUAL_MEMBERS, OF_RECIPES = (
    "ensemble",
    "best single",
    "equal weights, the best",
    "equal weights, all candidates",
    "equal weights, its members",
    "weights of the recipes",
)
"""Ways of combining candidates."""
DEFAULT_METRIC: Mapping[Source, Metric] = {"soundscapes": "auroc", "recordings": "cmap"}
_GROUPS: Mapping[Source, str] = {"soundscapes": "soundscape file", "recordings": "author"}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is to be decided: which of the candidates hear together."""

    rows: Rows
    """What is selected on."""
    metric: Metric
    cost: Cost
    rules: Rules
    recipes: Sequence[str]
    """The recipe of each candidate."""
    recipe_weights: Sequence[float | None]
    """The weight that each candidate's recipe gives its model; None where it is not known."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of combining the candidates, with what it scored."""

    name: str
    members: Weighted
    cost_ms: float
    """Milliseconds of CPU time for a window."""
    scores: EnsembleScores


@dataclass(frozen=True, kw_only=True)
class Point:
    """A candidate alone, or the first members of the ensemble."""

    members: Weighted
    cost_ms: float
    apparent: float
    cross_fitted: float | None
    """None for a candidate alone, in whose choice nothing was fitted, and where there is none."""


@dataclass(frozen=True, kw_only=True)
class SpeciesGain:
    """The average precision of a species, by the best single candidate and by the ensemble."""

    species: int
    """Its place among the species."""
    num_rows: int
    """Number of rows in which it is heard."""
    single: float
    ensemble: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The ensemble, what it is worth, and what it is compared with."""

    selected: Selected
    ways: tuple[Way, ...]
    """The ensemble first."""
    first: tuple[Point, ...]
    """The first members of the ensemble, for each number of them."""
    singles: tuple[Point, ...]
    """Each candidate alone."""
    correlation_KK: NDArray[np.float32]
    species: tuple[SpeciesGain, ...]
    """Those that are heard in some rows, by cross-fitted predictions where there are any; the largest gain first."""

    def way(self, name: str) -> Way:
        """Return a way of combining by its name."""
        return next(way for way in self.ways if way.name == name)

    @property
    def better(self) -> Way | None:
        """The simpler way whose cross-fitted score is the highest and above that of the ensemble; None where there is none."""

        def score(way: Way) -> float:
            value = way.scores.cross_fitted.value
            return -np.inf if value is None else value

        best = max(self.ways, key=score)
        return best if score(best) > score(self.way(ENSEMBLE)) else None


def judge(problem: Problem, untouched: Rows | str) -> Verdict:
    """Select an ensemble and score it. `untouched`: rows by which nothing was chosen, or why there are none.

    Raises InputError as `select` does.
    """
    rows = problem.rows
    part_R, why_not = parts_of(rows.group_R), f"all rows are of one {_GROUPS[rows.source]}"
    whole, others = _combine(problem, rows), list[_Combined]()
    pooled: dict[str, NDArray[np.float32]] = {}
    if part_R is not None:
        chosen_on = [part_R != part for part in range(int(part_R.max()) + 1)]
        with ThreadPoolExecutor(2) as pool:  # numpy sorts without holding the interpreter
            others = list(pool.map(lambda chosen_R: _combine(problem, rows.only(chosen_R)), chosen_on))
        for name in whole.ways:
            pooled[name] = _pooled(rows, part_R, [other.ways[name] for other in others])
    ways = tuple(
        Way(
            name=name,
            members=members,
            cost_ms=problem.cost([candidate for candidate, _ in members]),
            scores=EnsembleScores(
                apparent=score_of(rows, rows.mixture(members), problem.metric),
                cross_fitted=score_of(rows, pooled[name], problem.metric)
                if name in pooled
                else _no_score(rows.source, problem.metric, why_not),
                untouched=_untouched(untouched, members, rows.source),
            ),
        )
        for name, members in whole.ways.items()
    )
    return Verdict(
        selected=whole.selected,
        ways=ways,
        first=tuple(_first(problem, whole, others, part_R)),
        singles=tuple(
            Point(members=((candidate, 1.0),), cost_ms=problem.cost([candidate]), apparent=score, cross_fitted=None)
            for candidate, score in enumerate(whole.selected.singles)
        ),
        correlation_KK=correlation(rows),
        species=_species(rows, pooled or {name: rows.mixture(members) for name, members in whole.ways.items()}),
    )


def score_of(rows: Rows, logits_RC: NDArray[np.float32], metric: Metric) -> EnsembleScore:
    """Return the score of logits on rows, with its standard error by a jackknife over files or authors."""
    figure_G = figures_without_groups(rows.truth_RC, expit(logits_RC.astype(np.float64)), rows.group_R)[metric]
    value, error = float(figure_G[-1]), jackknife_error(figure_G[:-1])
    reasons = []
    if np.isnan(value):
        reasons.append("no species is heard in some but not all rows")
    elif np.isnan(error):
        reasons.append(f"no error is known, because fewer than two {_GROUPS[rows.source]}s can be left out")
    return EnsembleScore(
        value=None if np.isnan(value) else value,
        error=None if np.isnan(error) else error,
        reason="; ".join(reasons),
        metric=metric,
        source=rows.source,
        num_rows=len(rows.group_R),
        num_groups=rows.num_groups,
    )


def correlation(rows: Rows) -> NDArray[np.float32]:
    """Return how alike the logits of each two candidates are (K, K): the mean over species of their correlation over rows."""
    heard_C = rows.truth_RC.any(axis=0)
    logits_KRC = rows.logits_KRC[:, :, heard_C]
    logits_KRC = logits_KRC - logits_KRC.mean(axis=1, keepdims=True)
    deviation_KC = np.sqrt(np.square(logits_KRC).mean(axis=1, keepdims=True))
    logits_KRC /= np.maximum(deviation_KC, np.finfo(np.float32).tiny)
    flat = logits_KRC.reshape(len(logits_KRC), -1)
    return np.asarray(flat @ flat.T / max(flat.shape[1], 1), np.float32)


@dataclass(frozen=True)
class _Combined:
    """What came of choosing on some rows."""

    selected: Selected
    ways: dict[str, Weighted]


def _combine(problem: Problem, rows: Rows) -> _Combined:
    selected = select(rows, problem.metric, problem.cost, problem.rules)
    single_K = selected.singles
    affordable = [
        candidate
        for candidate in range(len(single_K))
        if problem.rules.budget_ms is None or problem.cost([candidate]) <= problem.rules.budget_ms
    ]
    ways = {
        ENSEMBLE: selected.members,
        SINGLE: equal_weights([max(affordable, key=single_K.__getitem__)]),
        EQUAL_BEST: equal_weights(_best(problem, affordable, single_K)),
        EQUAL: equal_weights(range(len(single_K))),
        EQUAL_MEMBERS: equal_weights([candidate for candidate, _ in selected.members]),
    }
    if of_recipes := _of_recipes(problem, single_K):
        ways[OF_RECIPES] = of_recipes
    return _Combined(selected, ways)


def _best(problem: Problem, affordable: Sequence[int], single_K: Sequence[float]) -> list[int]:
    """Return the candidates with the best scores of their own, as many as an ensemble may have."""
    best: list[int] = []
    for candidate in sorted(affordable, key=single_K.__getitem__, reverse=True):
        within = problem.rules.budget_ms is None or problem.cost([*best, candidate]) <= problem.rules.budget_ms
        if len(best) < problem.rules.max_members and within:
            best.append(candidate)
    return best


def _of_recipes(problem: Problem, single_K: Sequence[float]) -> Weighted:
    """Return the best candidate of each recipe with the recipe's weight; nothing where no recipe has one."""
    best: dict[str, int] = {}
    for candidate, recipe in enumerate(problem.recipes):
        if problem.recipe_weights[candidate] and (recipe not in best or single_K[candidate] > single_K[best[recipe]]):
            best[recipe] = candidate
    return normalised([(candidate, problem.recipe_weights[candidate] or 0.0) for candidate in best.values()]) if best else ()


def _pooled(rows: Rows, part_R: NDArray[np.intp], members: Sequence[Weighted]) -> NDArray[np.float32]:
    """Return the logits of each part's rows by the members that were chosen without it."""
    logits_RC = np.empty(rows.logits_KRC.shape[1:], np.float32)
    for part, weighted in enumerate(members):
        logits_RC[part_R == part] = rows.only(part_R == part).mixture(weighted)
    return logits_RC


def _first(problem: Problem, whole: _Combined, others: Sequence[_Combined], part_R: NDArray[np.intp] | None) -> list[Point]:
    points = []
    for count in range(1, len(whole.selected.members) + 1):
        members = whole.selected.first(count)
        cross_fitted = None
        if part_R is not None:
            pooled_RC = _pooled(
                problem.rows, part_R, [other.selected.first(min(count, len(other.selected.members))) for other in others]
            )
            cross_fitted = summarise(problem.rows.truth_RC, expit(pooled_RC.astype(np.float64)))[problem.metric]
        points.append(
            Point(
                members=members,
                cost_ms=problem.cost([candidate for candidate, _ in members]),
                apparent=whole.selected.scores[count - 1],
                cross_fitted=cross_fitted,
            )
        )
    return points


def _untouched(untouched: Rows | str, members: Weighted, selected_on: Source) -> EnsembleScore:
    if isinstance(untouched, str):
        other: Source = "recordings" if selected_on == "soundscapes" else "soundscapes"
        return _no_score(other, DEFAULT_METRIC[other], f"no untouched data: {untouched}")
    return score_of(untouched, untouched.mixture(members), DEFAULT_METRIC[untouched.source])


def _no_score(source: Source, metric: Metric, reason: str) -> EnsembleScore:
    return EnsembleScore(value=None, error=None, reason=reason, metric=metric, source=source, num_rows=0, num_groups=0)


def _species(rows: Rows, logits: Mapping[str, NDArray[np.float32]]) -> tuple[SpeciesGain, ...]:
    single_C, support_C = per_class_ap(rows.truth_RC, logits[SINGLE])
    ensemble_C, _ = per_class_ap(rows.truth_RC, logits[ENSEMBLE])
    gains = [
        SpeciesGain(
            species=species,
            num_rows=int(support_C[species]),
            single=float(single_C[species]),
            ensemble=float(ensemble_C[species]),
        )
        for species in np.flatnonzero(support_C).tolist()
    ]
    return tuple(sorted(gains, key=lambda gain: gain.single - gain.ensemble))
