"""Chooses which candidates hear together, with which weights: greedy selection with replacement in bags (Caruana et al., Ensemble
Selection from Libraries of Models, ICML 2004), made careful.

Greedy selection among many candidates of nearly equal worth finds those that the scored rows happen to like. So bags only propose. A
candidate becomes a member if the gain that it brings exceeds the standard error of that gain, and weights go halfway back to
equal ones.
Shapes: K candidates, R rows that are scored, C species, G + 1 figures without each group of rows and of all rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from birdclef_core.ensemble.parts import jackknife_error
from birdclef_core.ensemble.ranks import RankedLogits
from birdclef_core.ensemble.record import Metric, Source
from birdclef_core.errors import InputError
from birdclef_core.evaluation.jackknife import figures_without_groups

Cost = Callable[[Sequence[int]], float]
"""Milliseconds of CPU time for one window that candidates take together."""
Weighted = tuple[tuple[int, float], ...]
"""Candidates with their weights, which sum to 1."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The settings of a selection."""

    max_members: int = 6
    budget_ms: float | None = None
    """Most milliseconds of CPU time for one window; None: any."""
    rounds: int = 20
    """Most candidates, counted with repetition, in the mixture of a bag."""
    bags: int = 6
    bag_share: float = 0.5
    """Share of the candidates that a bag sees."""
    seed: int = 0
    """Random seed of the bags."""

    def __post_init__(self) -> None:
        if self.max_members < 1:
            raise InputError(f"--max-members >= 1 must hold, but got {self.max_members}.")
        if self.budget_ms is not None and not self.budget_ms > 0:
            raise InputError(f"--budget must be more than 0, but got {self.budget_ms} ms a window.")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows that are scored, with the logits of all candidates."""

    source: Source
    truth_RC: NDArray[np.bool_]
    logits_KRC: NDArray[np.float32]
    group_R: NDArray
    """Equal for rows of one soundscape file, or of one author."""

    def only(self, chosen_R: NDArray[np.bool_]) -> "Rows":
        """Return some of the rows."""
        return Rows(
            source=self.source,
            truth_RC=self.truth_RC[chosen_R],
            logits_KRC=self.logits_KRC[:, chosen_R],
            group_R=self.group_R[chosen_R],
        )

    def mixture(self, weighted: Weighted) -> NDArray[np.float32]:
        """Return the weighted mean of the logits of candidates (R, C)."""
        return mixture(self.logits_KRC, weighted)

    @property
    def num_groups(self) -> int:
        """Number of files or authors."""
        return len(np.unique(self.group_R))


@dataclass(frozen=True)
class Selected:
    """The outcome of a selection."""

    members: Weighted
    """In the order in which they should be kept when time is short."""
    scores: tuple[float, ...]
    """What the first k members score on the rows of the selection, for each k."""
    singles: tuple[float, ...]
    """What each candidate scores alone."""
    refused_gain: tuple[float, float] | None
    """The gain of the best candidate that did not enter, and its standard error; None where none had a gain, or there was no room."""

    def first(self, count: int) -> Weighted:
        """Return the first members with the weights that they have when only these run."""
        return normalised(self.members[:count])


def select(rows: Rows, metric: Metric, cost: Cost, rules: Rules) -> Selected:
    """Return the members of an ensemble, chosen on `rows`.

    Raises InputError when no candidate is within the budget, or nothing is heard in the rows.
    """
    ranked = RankedLogits(rows.truth_RC, rows.logits_KRC, metric)
    return _Selection(rows, ranked, metric, cost, rules).run()


def mixture(logits_KRC: NDArray[np.float32], weighted: Weighted) -> NDArray[np.float32]:
    """Return the weighted mean of the logits of candidates (R, C)."""
    total_RC = np.zeros(logits_KRC.shape[1:], np.float32)
    for candidate, weight in weighted:
        total_RC += np.float32(weight) * logits_KRC[candidate]
    return total_RC


def normalised(weighted: Sequence[tuple[int, float]]) -> Weighted:
    """Return weights that sum to 1."""
    total = sum(weight for _, weight in weighted)
    return tuple((candidate, weight / total) for candidate, weight in weighted)


def equal_weights(candidates: Sequence[int]) -> Weighted:
    """Return candidates with equal weights."""
    return normalised([(candidate, 1.0) for candidate in candidates])


def figures(rows: Rows, weighted: Weighted, metric: Metric) -> NDArray[np.float64]:
    """Return the metric of a mixture without each group, then of all rows (G + 1,)."""
    return figures_without_groups(rows.truth_RC, expit(rows.mixture(weighted).astype(np.float64)), rows.group_R)[metric]


class _Selection:
    """One selection."""

    def __init__(self, rows: Rows, ranked: RankedLogits, metric: Metric, cost: Cost, rules: Rules) -> None:
        self._rows, self._ranked, self._metric, self._cost, self._rules = rows, ranked, metric, cost, rules
        self._single_K = ranked.singles()

    def run(self) -> Selected:
        affordable = [candidate for candidate in range(self._ranked.num_candidates) if self._fits([candidate])]
        if not affordable:
            cheapest = min(self._cost([candidate]) for candidate in range(self._ranked.num_candidates))
            raise InputError(
                f"--budget must leave time for one candidate: the cheapest takes {cheapest:.1f} ms of CPU time for a window, and the "
                f"budget is {self._rules.budget_ms:.1f} ms."
            )
        counts_K = self._counts(affordable)
        members, refused = self._enter(max(affordable, key=self._single_K.__getitem__), counts_K)
        ordered = self._ordered(self._weights(members, counts_K))
        scores = tuple(self._score(ordered[:count]) for count in range(1, len(ordered) + 1))
        return Selected(ordered, scores, tuple(self._single_K), refused)

    def _counts(self, affordable: Sequence[int]) -> NDArray[np.float64]:
        """Return how much of the mixtures of all bags each candidate is."""
        generator = np.random.default_rng(self._rules.seed)
        size = max(1, round(self._rules.bag_share * len(affordable)))
        counts_K = np.zeros(self._ranked.num_candidates)
        for _ in range(self._rules.bags):
            counts_K += self._bag(sorted(generator.choice(affordable, size, replace=False).tolist()))
        return counts_K

    def _bag(self, pool: Sequence[int]) -> NDArray[np.float64]:
        """Return the shares of candidates in a mixture that grows by whatever candidate makes it best, until none does.

        Gains nearly always shrink as the mixture grows. So candidates are tried in the order of their last gains, until none of those left
        had a larger gain than the best that was found (Minoux 1978).
        """
        values_KGN = self._ranked.values_KGN
        best = max(pool, key=self._single_K.__getitem__)
        total_GN, score = values_KGN[best].copy(), self._single_K[best]
        counts_K = np.zeros(len(values_KGN))
        counts_K[best] = 1
        last_gain = dict.fromkeys(pool, np.inf)
        for _ in range(self._rules.rounds - 1):
            found, found_gain = -1, 0.0
            for candidate in sorted(pool, key=last_gain.__getitem__, reverse=True):
                if found >= 0 and last_gain[candidate] <= found_gain:
                    break
                last_gain[candidate] = self._ranked.addition(total_GN, candidate) - score
                if last_gain[candidate] > found_gain:
                    found, found_gain = candidate, last_gain[candidate]
            if found < 0:
                break
            total_GN += values_KGN[found]
            counts_K[found] += 1
            score += found_gain
        return counts_K / counts_K.sum()

    def _enter(self, first: int, counts_K: NDArray[np.float64]) -> tuple[list[int], tuple[float, float] | None]:
        """Return the members, and the gain of the best that did not enter with its error.

        The best candidate enters if its gain exceeds the standard error of the gain. If it does not, the next best are added to it for as
        long as each improves the score, and they enter together as soon as their common gain exceeds its error: of many candidates
        that are about as good, none has a clear gain alone, and all together have.
        """
        members, score = [first], self._single_K[first]
        before_G: NDArray[np.float64] | None = None
        waiting, last_score, refused = list[int](), score, None
        while len(members) + len(waiting) < self._rules.max_members:
            best, best_score = self._best_addition([*members, *waiting], counts_K)
            if best_score <= last_score:
                break
            waiting, last_score = [*waiting, best], best_score
            before_G = self._figures(members, counts_K) if before_G is None else before_G
            after_G = self._figures([*members, *waiting], counts_K)
            gain, error = last_score - score, jackknife_error((after_G - before_G)[:-1])
            if gain > error:
                members, score, before_G, waiting, refused = [*members, *waiting], last_score, after_G, [], None
            else:  # also where the error is not known
                refused = refused or (gain, error)
        return members, refused

    def _best_addition(self, members: Sequence[int], counts_K: NDArray[np.float64]) -> tuple[int, float]:
        """Return the candidate that makes the members best, and their score with it; minus infinity where there is none.

        Tried are those that are the most in the bags, twice as many as there may be members.
        """
        most_first = np.argsort(-counts_K, kind="stable")[: 2 * self._rules.max_members].tolist()
        proposed = [
            candidate
            for candidate in most_first
            if counts_K[candidate] and candidate not in members and self._fits([*members, candidate])
        ]
        tried = {candidate: self._score(self._weights([*members, candidate], counts_K)) for candidate in proposed}
        best = max(tried, key=tried.__getitem__, default=-1)
        return best, tried.get(best, -np.inf)

    def _figures(self, members: Sequence[int], counts_K: NDArray[np.float64]) -> NDArray[np.float64]:
        return figures(self._rows, self._weights(members, counts_K), self._metric)

    def _weights(self, members: Sequence[int], counts_K: NDArray[np.float64]) -> Weighted:
        """Return weights halfway between the shares in the bags and equal ones."""
        total = counts_K[list(members)].sum() or 1.0
        return normalised([(member, float(counts_K[member] / total) + 1 / len(members)) for member in members])

    def _ordered(self, members: Weighted) -> Weighted:
        """Return the members in the order in which they are kept: the last is the one whose loss matters least for what it costs."""
        kept, dropped = list(members), []
        while len(kept) > 1:
            score, cost_ms = self._score(kept), self._cost([member for member, _ in kept])

            def loss(item: tuple[int, float], kept: list[tuple[int, float]] = kept) -> float:
                rest = [other for other in kept if other is not item]
                saved_ms = cost_ms - self._cost([member for member, _ in rest])  # noqa: B023
                return (score - self._score(rest)) / max(saved_ms, 1e-9)  # noqa: B023

            least = min(kept, key=loss)
            kept.remove(least)
            dropped.append(least)
        return tuple(kept + dropped[::-1])

    def _score(self, weighted: Sequence[tuple[int, float]]) -> float:
        return self._ranked.mixture(weighted)

    def _fits(self, members: Sequence[int]) -> bool:
        return self._rules.budget_ms is None or self._cost(members) <= self._rules.budget_ms
