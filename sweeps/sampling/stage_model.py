"""Foretells the final score of a trial from its parameters and from the scores of the stages that it shares.

Two models, mixed by how well each has foretold scores that it had not seen:

- by stages: for each stage a Gaussian process of the score at its end, from the parameters that matter so far and, linearly, from the score
  at the end of the stage before. From any stage of the tree the processes are chained to a mean and a variance of the final score.
- direct: one process of the final score on all parameters.

Where trials are compared by a cost too, that of a candidate is known before it is trained. So what it is expected to add to the area under the
Pareto front is a sum over the ranges of costs from its own on: the width of the range times the expected improvement over the best score so
far at such costs.

Shapes: C candidates, D columns of the encoding, R ranges of costs.
"""

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr

from sweeps.objective import pareto_front
from sweeps.sampling.encoding import Array, Encoding
from sweeps.sampling.facts import TrialFacts
from sweeps.sampling.gaussian_process import GaussianProcess

BY_STAGES, DIRECT = "by stages", "direct"
MODELS = (BY_STAGES, DIRECT)
MIN_FINALS = 4
"""Without this many different final scores nothing is foretold."""
_FEW = 8
"""The spread of fewer scores than this says little."""
_MAX_POINTS = 240
"""A process sees at most this many observations: the best, the newest and some others."""
_SETTLED, _NEWEST, _REFITTED_EVERY = 48, 8, 8
"""Length scales and variances of so many scores change little: they are those of all but the newest ones, and fitted every so many scores."""
_MAX_PENDING = 64
_LENGTH, _LONGER, _LONGEST = 0.7, 0.4, 1.2
"""Prior median of a length scale in the stage where its parameter first matters; growth of its logarithm a stage later, and limit of that."""
_FORGETTING, _CLIP = 0.97, 3.0
_LOWEST_COST = 1e-9
COSTLIER = 2.0
"""The last range of costs ends at this many times the cost of the costliest model of the space, or that model could improve nothing."""


@dataclass(frozen=True, kw_only=True)
class _Observation:
    """The score at the end of one stage of the tree."""

    trial: TrialFacts
    """A trial that has the stage."""
    index: int
    """Its place in the trial's chain."""
    score: float
    before: float = math.nan
    """Score at the end of the stage before; NaN for the first stage of a chain."""


@dataclass(frozen=True, kw_only=True)
class Foretold:
    """Means and standard deviations of the final scores of C candidates by each model."""

    mean: Mapping[str, Array]
    deviation: Mapping[str, Array]
    noise: float
    """Standard deviation of the noise of a final score, which a score that is measured has on top."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What a new trial must beat: in each range of costs the best final score of the trials that cost no more.

    Without costs there is one range. In the range below the cheapest trial, the lowest final score is to be beaten.
    """

    score_R: Array
    log_cost_R: Array
    """Logarithm of the lowest cost of each range; minus infinity for the first."""
    log_end: float
    """Logarithm of the highest cost of the last range."""

    @classmethod
    def of(cls, scores: Sequence[float], costs: Sequence[float] | None, costliest: float = 0.0) -> "Bar":
        """Return the bar that trials with these final scores set. `costs`: of their models; `costliest`: of the costliest in the space."""
        if costs is None:
            return cls(score_R=np.array([max(scores)]), log_cost_R=np.array([-math.inf]), log_end=math.inf)
        front = pareto_front(list(zip(scores, costs, strict=True)))
        rising = [(scores[index], math.log(max(costs[index], _LOWEST_COST))) for index in reversed(front)]
        return cls(
            score_R=np.array([min(scores), *(score for score, _ in rising)]),
            log_cost_R=np.array([-math.inf, *(log_cost for _, log_cost in rising)]),
            log_end=math.log(COSTLIER * max(*costs, costliest, _LOWEST_COST)),
        )

    def log_width(self, cost_C: Array | None) -> Array:
        """Return the logarithm of the width of the part of each range in which a candidate is no costlier (C or 1, R)."""
        if cost_C is None:
            return np.zeros((1, 1))
        end_R = np.append(self.log_cost_R[1:], self.log_end)
        log_cost_C = np.log(np.maximum(cost_C, _LOWEST_COST))
        width_CR = end_R - np.maximum(self.log_cost_R, log_cost_C[:, None])
        with np.errstate(divide="ignore"):
            return np.log(np.maximum(width_CR, 0.0))


class FittedProcesses:
    """The processes that were fitted last. A stage without new scores keeps its process."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, GaussianProcess]] = {}

    def get(self, name: str, seen: object, fit: Callable[[], GaussianProcess]) -> GaussianProcess:
        """Return the process of a name; fit it if what it has seen is something else than before."""
        known = self._known.get(name)
        if known is None or known[0] != seen:
            self._known[name] = known = (seen, fit())
        return known[1]


class StageModel:
    """Both models, fitted to what is known of the trials of a sweep. The same trials give the same model."""

    def __init__(
        self,
        stages: Mapping[str, Sequence[str]],
        encoding: Encoding,
        trials: Sequence[TrialFacts],
        x_by_trial: Mapping[str, Array],
        fitted: FittedProcesses,
        costliest: float = 0.0,
    ) -> None:
        """`stages`: names of the stages of each recipe. `x_by_trial`: the vector of every trial. `costliest`: what the costliest model of the
        space costs, where trials are compared by that too.
        """
        self._encoding, self._stages, self._x = encoding, stages, x_by_trial
        finals = [trial for trial in trials if trial.final is not None]
        self._front = _front_of(finals)
        self._direct, observed = self._direct_process(trials, fitted)
        self._processes = {stage: self._process(stage, items, fitted) for stage, items in self._observations(trials).items()}
        without_noise = {item.trial.trial: float(score) for item, score in zip(observed, self._direct.smoothed_N, strict=True)}
        costs = {trial.trial: trial.cost for trial in finals if trial.cost is not None and trial.trial in without_noise}
        scores = [without_noise[name] for name in costs] or [max(without_noise.values())]
        self.bar = Bar.of(scores, list(costs.values()) or None, costliest)
        """What a new trial must beat, by final scores without their noise."""
        self.stage_share = share_of_stages(finals)
        """Weight of the model by stages in the mixture, 0 to 1."""
        self._await([trial for trial in trials if trial.state == "open"][-_MAX_PENDING:])

    def foretell(self, recipe: str, x_CD: Array, depth_C: NDArray[np.int_], score_C: Array) -> Foretold:
        """Foretell the final scores of candidates of one recipe.

        `depth_C`: the number of stages that each candidate shares with the tree; `score_C`: the score at the end of the last of them
        (any number where it shares none).
        """
        mean_C = np.where(depth_C > 0, score_C, math.nan)
        variance_C = np.zeros(len(x_CD))
        for index, stage in enumerate(self._stages[recipe]):
            trained = np.flatnonzero(depth_C <= index)
            process = self._processes.get(stage)
            if not len(trained):
                continue
            if process is None:  # nothing is known of the stage: it may end anywhere between the known final scores
                mean_C[trained], variance_C[trained] = self._direct.centre, self._direct.scale**2
                continue
            terms = process.terms(self._encoding.until(recipe, index, x_CD[trained]))
            mean, variance = terms.chained(
                process.standardise(mean_C[trained]), process.standardise_variance(variance_C[trained])
            )
            if index < len(self._stages[recipe]) - 1:
                variance = variance + process.noise2
            mean_C[trained], variance_C[trained] = process.centre + process.scale * mean, process.scale**2 * variance
        terms = self._direct.terms(x_CD)
        direct_mean = self._direct.centre + self._direct.scale * terms.mean_C
        deviations = {BY_STAGES: np.sqrt(variance_C), DIRECT: self._direct.scale * np.sqrt(terms.variance_C)}
        noise = self._direct.scale * math.sqrt(self._direct.noise2)
        return Foretold(mean={BY_STAGES: mean_C, DIRECT: direct_mean}, deviation=deviations, noise=noise)

    @property
    def best(self) -> float:
        """The best final score so far, without its noise."""
        return float(self.bar.score_R[-1])

    def log_improvement(self, foretold: Foretold, cost_C: Array | None = None) -> Array:
        """Return the logarithm of the expected improvement over the best final score (C,).

        `cost_C`: what the models of the candidates cost, where trials are compared by that too; then it is the improvement of the area
        under the Pareto front, with costs as logarithms: half the cost is worth the same everywhere.
        """
        log_width_CR = self.bar.log_width(cost_C)
        logs = []
        for name, share in ((BY_STAGES, self.stage_share), (DIRECT, 1 - self.stage_share)):
            mean_C1, deviation_C1 = foretold.mean[name][:, None], foretold.deviation[name][:, None]
            log_CR = log_expected_improvement((mean_C1 - self.bar.score_R) / deviation_C1) + np.log(deviation_C1)
            logs.append(np.logaddexp.reduce(log_CR + log_width_CR, axis=1) + math.log(max(share, 1e-12)))
        return np.logaddexp(*logs)

    def _observations(self, trials: Sequence[TrialFacts]) -> dict[str, list[_Observation]]:
        """The scores at the ends of stages, by the stage's name; those of a stage that several trials share once."""
        found: dict[str, list[_Observation]] = {}
        seen: set[str] = set()
        scored = {stage_id for trial in trials for stage_id in trial.stage_ids[: len(trial.scores)]}
        for trial in trials:
            before = math.nan
            failed = [math.nan] if trial.state == "failed" and trial.stage_ids[len(trial.scores)] not in scored else []
            for index, (stage_id, score) in enumerate(zip(trial.stage_ids, [*trial.scores, *failed], strict=False)):
                if stage_id not in seen:
                    seen.add(stage_id)
                    observation = _Observation(trial=trial, index=index, score=score, before=before)
                    found.setdefault(self._stages[trial.recipe][index], []).append(observation)
                before = score
        return {stage: known for stage, items in found.items() if (known := _with_failures(items))}

    def _process(self, stage: str, observations: list[_Observation], fitted: FittedProcesses) -> GaussianProcess:
        places = {recipe: stages.index(stage) for recipe, stages in self._stages.items() if stage in stages}
        return self._fitted(stage, observations, places, fitted)

    def _direct_process(
        self, trials: Iterable[TrialFacts], fitted: FittedProcesses
    ) -> tuple[GaussianProcess, Sequence[_Observation]]:
        items = [
            _Observation(trial=trial, index=len(trial.stage_ids) - 1, score=math.nan if trial.final is None else trial.final)
            for trial in trials
            if trial.final is not None or trial.state == "failed"
        ]
        observed, places = _with_failures(items), {recipe: len(stages) - 1 for recipe, stages in self._stages.items()}
        process = self._fitted(DIRECT, observed, places, fitted)
        return process, _capped(observed, self._front)

    def _fitted(
        self,
        name: str,
        observations: list[_Observation],
        places: Mapping[str, int],
        fitted: FittedProcesses,
        *,
        are_older: bool = False,
    ) -> GaussianProcess:
        """`places`: index of the stage in each recipe that has it. `are_older`: the newest observations are not among them."""
        usual_spread = self._direct.scale if name != DIRECT and len(observations) < _FEW else 0.0
        items = _capped(observations, self._front)

        def fit() -> GaussianProcess:
            chained = name != DIRECT and any(places.values())
            lengths = [_LENGTH * math.exp(min(_LONGER * lag, _LONGEST)) for lag in self._encoding.lags(places)]
            like = None
            if len(observations) >= _SETTLED and not are_older:
                num = (len(observations) - _NEWEST) // _REFITTED_EVERY * _REFITTED_EVERY
                like = self._fitted(name, observations[:num], places, fitted, are_older=True)
            return GaussianProcess(
                np.array([self._until(item.trial, item.index) for item in items]),
                np.array([item.score for item in items]),
                np.array([item.before for item in items]) if chained else None,
                self._encoding.groups_D,
                lengths,
                usual_spread,
                like,
            )

        seen = (usual_spread, *((item.trial.stage_ids[item.index], item.score) for item in items))
        return fitted.get(f"{name}, older" if are_older else name, seen, fit)

    def _until(self, trial: TrialFacts, index: int) -> Array:
        """The vector of a trial without the parameters that matter only after a stage."""
        return self._encoding.until(trial.recipe, index, self._x[trial.trial])

    def _await(self, pending: Sequence[TrialFacts]) -> None:
        """Let open trials narrow the variances of the stages that they are going to train."""
        by_stage: dict[str, list[tuple[Array, float]]] = {}
        for trial in pending:
            stages = self._stages[trial.recipe]
            for index in range(len(trial.scores), len(stages)):
                before = trial.scores[index - 1] if 0 < index == len(trial.scores) else math.nan
                by_stage.setdefault(stages[index], []).append((self._until(trial, index), before))
        for stage, points in by_stage.items():
            if stage in self._processes:
                x_PD, before_P = np.array([x_D for x_D, _ in points]), np.array([before for _, before in points])
                self._processes[stage] = self._processes[stage].awaiting(x_PD, before_P)
        if pending:
            x_PD = np.array([self._x[trial.trial] for trial in pending])
            self._direct = self._direct.awaiting(x_PD, np.zeros(len(pending)))


def log_expected_improvement(z_C: Array) -> Array:
    """Return log(phi(z) + z Phi(z)), also far below zero, where the plain formula is 0.

    Source: Ament et al., Unexpected improvements to expected improvement for Bayesian optimization, NeurIPS 2023.
    """
    log_phi = -0.5 * z_C**2 - 0.5 * math.log(2 * math.pi)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        plain = np.log(np.exp(log_phi) + z_C * ndtr(z_C))
        ratio = np.exp(log_ndtr(z_C) - log_phi)  # Phi / phi, without underflow
        far = log_phi + np.log1p(np.maximum(z_C * ratio, -1 + 1e-15))
    # Below -50, phi / z^2 is exact to a thousandth.
    return np.where(z_C > -1, plain, np.where(z_C > -50, far, log_phi - 2 * np.log(np.maximum(-z_C, 1))))


def _with_failures(items: list[_Observation]) -> list[_Observation]:
    """Observations in which a failure, whose score is NaN, counts as much as the lowest score: the sampler is to keep away from there."""
    lowest = min((item.score for item in items if not math.isnan(item.score)), default=None)
    return [] if lowest is None else [replace(item, score=lowest) if math.isnan(item.score) else item for item in items]


def _capped(items: list[_Observation], front: Container[str] = ()) -> list[_Observation]:
    """At most 240 observations in their order: the best third, the newest third, and every n-th of the others.

    The best are those of trials of the Pareto front, then those with the highest scores.
    """
    if len(items) <= _MAX_POINTS:
        return items
    third = _MAX_POINTS // 3
    best_first = sorted(range(len(items)), key=lambda index: (items[index].trial.trial not in front, -items[index].score, index))
    chosen = set(best_first[:third])
    newest = [index for index in reversed(range(len(items))) if index not in chosen][:third]
    chosen.update(newest)
    others = [index for index in range(len(items)) if index not in chosen]
    step = len(others) / (_MAX_POINTS - len(chosen))
    chosen.update(others[int(number * step)] for number in range(_MAX_POINTS - len(chosen)))
    return [items[index] for index in sorted(chosen)]


def _front_of(finals: Sequence[TrialFacts]) -> set[str]:
    """The trials of the Pareto front; none where trials are compared by their scores alone."""
    known = [(trial, (trial.final, trial.cost)) for trial in finals if trial.final is not None and trial.cost is not None]
    return {known[index][0].trial for index in pareto_front([(score, cost) for _, (score, cost) in known])}


def share_of_stages(finals: Iterable[TrialFacts]) -> float:
    """The weight of the model by stages, from how likely each model had held the final scores."""
    evidence = 0.0
    for trial in finals:
        if trial.final is not None and BY_STAGES in trial.foretold and DIRECT in trial.foretold:
            likely = {name: _log_density(trial.final, *trial.foretold[name]) for name in (BY_STAGES, DIRECT)}
            evidence = _FORGETTING * evidence + min(max(likely[BY_STAGES] - likely[DIRECT], -_CLIP), _CLIP)
    return 1 / (1 + math.exp(-evidence))


def _log_density(value: float, mean: float, deviation: float) -> float:
    return -0.5 * ((value - mean) / deviation) ** 2 - math.log(deviation)
