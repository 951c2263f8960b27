"""How much each parameter matters: the share of the differences between scores that it makes, with an interval.

A random forest learns the score from the parameters. The share of a parameter is its total Sobol index in the forest: how much the
forest's prediction varies when this parameter alone is taken from another trial, relative to how much it varies at all (Saltelli et
al. 2010, equation f). Unlike functional ANOVA (Hutter et al. 2014) it works with parameters that not all trials have: a trial without
one is a trial with one more value of it. Each round learns from trials drawn with replacement; the interval is that of the rounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.schedule.records import TrialRecord
from sweeps.search.parameters import Parameter, Range

MIN_TRIALS = 12
"""With fewer trials nothing is said: any split of them would look important."""
MIN_FINISHED = 5
"""A stopped trial counts if at least so many finished trials have been through the place where it stopped."""
ROUNDS = 10
TREES = 16
MAX_DRAWN = 500
"""Trials that a round learns from at most."""
PAIRS = 256
"""Pairs of trials between which a parameter is exchanged, in each round."""
RECIPE = "recipe"


@dataclass(frozen=True, kw_only=True)
class Importance:
    """How much a parameter matters."""

    name: str
    share: float
    """Mean over the rounds, from 0; the shares of parameters that act together may sum to more than 1."""
    low: float
    high: float
    """The 10th and the 90th percentile of the rounds."""


@dataclass(frozen=True, kw_only=True)
class Importances:
    """How much the parameters of a group of trials matter."""

    num_finished: int
    num_stopped: int
    """Stopped trials that count."""
    explained: float
    """Share of the differences between trials that the forests did not see which they foretell; at most 1, below 0 if none."""
    chance: float
    """The share that a parameter without any influence gets; the forest takes some luck for a rule."""
    parameters: list[Importance]
    """The most important first."""


def final_scores(trials: Sequence[TrialRecord]) -> dict[str, float]:
    """Return the score of each finished trial, and of each stopped one the score at which it would have ended, by trial.

    Stopped trials are the bad ones: without them, what makes a trial bad would seem to matter little. Their score where they stopped
    cannot be compared with a final one, so a straight line through the finished trials of the same stages that have been through the
    same place says what that score became. Where fewer than MIN_FINISHED have, the trial is left out.
    """
    finished = [record for record in trials if record.score is not None]
    scores = {record.trial: float(record.score or 0.0) for record in finished}
    lines: dict[tuple[str, bool, tuple[str, ...]], tuple[float, float] | None] = {}
    for record in trials:
        if record.stopped is None or record.status != "pruned":
            continue
        rung, stages = record.stopped.rung, tuple(record.stages)
        place = (rung.stage, bool(rung.epoch), stages)
        if place not in lines:
            alike = [item for item in finished if tuple(item.stages) == stages]
            lines[place] = _line([(item.score_at(rung), float(item.score or 0.0)) for item in alike])
        line = lines[place]
        if line is not None and np.isfinite(record.stopped.score):
            scores[record.trial] = line[0] * record.stopped.score + line[1]
    return scores


def importances(
    trials: Sequence[TrialRecord], scores: Mapping[str, float], space: Mapping[str, Parameter], *, seed: int = 0
) -> Importances | None:
    """Return how much the recipe and each parameter of `space` matter; None where there are too few trials or they do not differ.

    `scores`: see `final_scores`. Parameters that have one value in all trials are left out.
    """
    known = [record for record in trials if record.trial in scores]
    columns = _columns(known, space)
    score_N = np.array([scores[record.trial] for record in known])
    if len(known) < MIN_TRIALS or not columns or np.ptp(score_N) == 0:
        return None
    generator = np.random.default_rng(seed)
    names = [*columns, ""]  # the last one is noise, to see what luck alone gives
    groups = np.repeat(np.arange(len(names)), [*(column.shape[1] for column in columns.values()), 1])
    value_NF = np.hstack([*columns.values(), np.zeros((len(known), 1))])
    rounds = [_round(value_NF, score_N, groups, generator) for _ in range(ROUNDS)]
    share_RP = np.array([shares for shares, _ in rounds])
    low_P, high_P = np.quantile(share_RP, (0.1, 0.9), axis=0)
    found = [
        Importance(name=name, share=float(share), low=float(low), high=float(high))
        for name, share, low, high in zip(names[:-1], share_RP.mean(0), low_P, high_P, strict=False)
    ]
    num_finished = sum(record.score is not None for record in known)
    return Importances(
        num_finished=num_finished,
        num_stopped=len(known) - num_finished,
        explained=float(np.mean([explained for _, explained in rounds])),
        chance=float(share_RP[:, -1].mean()),
        parameters=sorted(found, key=lambda item: -item.share),
    )


def _round(
    value_NF: NDArray[np.float64], score_N: NDArray[np.float64], groups: NDArray[np.int64], generator: np.random.Generator
) -> tuple[NDArray[np.float64], float]:
    """Return the share of each group of columns, and how much of the trials that were not drawn is foretold."""
    from sklearn.ensemble import RandomForestRegressor  # takes a second to import, and small sweeps need it not

    number = len(score_N)
    drawn = generator.integers(number, size=min(number, MAX_DRAWN))
    value_NF = value_NF.copy()
    value_NF[:, -1] = generator.random(number)
    forest = RandomForestRegressor(
        TREES, max_features=0.6, min_samples_leaf=2, bootstrap=False, random_state=int(generator.integers(2**31)), n_jobs=1
    )
    forest.fit(value_NF[drawn], score_N[drawn])
    left = np.setdiff1d(np.arange(number), drawn)[:MAX_DRAWN]
    explained = 0.0
    if len(left) > 1 and (spread := np.mean((score_N[left] - score_N[drawn].mean()) ** 2)) > 0:
        explained = 1 - float(np.mean((forest.predict(value_NF[left]) - score_N[left]) ** 2) / spread)
    own, other = value_NF[generator.integers(number, size=PAIRS)], value_NF[generator.integers(number, size=PAIRS)]
    num_groups = int(groups[-1]) + 1
    mixed = [np.where(groups == group, other, own) for group in range(num_groups)]
    foretold = forest.predict(np.vstack([own, other, *mixed])).reshape(num_groups + 2, PAIRS)
    variance = foretold[:2].var()
    differences = ((foretold[2:] - foretold[0]) ** 2).mean(1) / 2
    return differences / variance if variance > 0 else np.zeros(num_groups), explained


def _columns(trials: Sequence[TrialRecord], space: Mapping[str, Parameter]) -> dict[str, NDArray[np.float64]]:
    """Return the columns of each parameter that differs between trials: of a number itself and whether it is missing, else one a value."""
    columns = {}
    for name in (RECIPE, *space):
        values = [record.recipe if name == RECIPE else record.params.get(name) for record in trials]
        kinds = list(dict.fromkeys(map(repr, values)))
        if len(kinds) < 2:
            continue
        parameter = space.get(name)
        if isinstance(parameter, Range):
            columns[name] = _numbers(values, log=parameter.log)
        else:
            columns[name] = np.array([[repr(value) == kind for kind in kinds] for value in values], dtype=float)
    return columns


def _numbers(values: Sequence[Any], *, log: bool) -> NDArray[np.float64]:
    missing_N = np.array([value is None for value in values])
    number_N = np.array([0.0 if value is None else float(np.log(value) if log else value) for value in values])
    number_N[missing_N] = np.mean(number_N[~missing_N])
    return np.stack([number_N, missing_N], axis=1) if missing_N.any() else number_N[:, None]


def _line(pairs: Sequence[tuple[float | None, float]]) -> tuple[float, float] | None:
    """Return slope and height of the straight line through pairs of an earlier and a final score; None with too few of them.

    The slope is 0 at least: a better stage makes no worse trial.
    """
    known = np.array([(early, final) for early, final in pairs if early is not None and np.isfinite(early)])
    if len(known) < MIN_FINISHED:
        return None
    early_N, final_N = known.T
    spread = early_N.var()
    slope = max(0.0, float(np.mean((early_N - early_N.mean()) * (final_N - final_N.mean())) / spread)) if spread > 0 else 0.0
    return slope, float(final_N.mean() - slope * early_N.mean())
