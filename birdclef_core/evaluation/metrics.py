"""How well recordings are ranked by species, and species by recording: scikit-learn's numbers, fast enough for every epoch.

Truth is 0 or 1. Whether a species in the background (target .9) is true is for the caller to say and to show: the competition's
soundscapes count whatever is heard (`target > 0`), the seed counted primary labels only (`target == 1`).

Shapes: R recordings, C species, M true entries (recording and species), G groups that are ranked by themselves (a column or a row).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from birdclef_core.errors import InputError

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class _Ranks:
    """How the entries of each group stand against its true ones: all that precision, recall and ROC are made of."""

    size: int
    """Entries of a group."""
    group_M: IntArray
    true_above_M: IntArray
    """True entries of the group that score at least as much, this one among them."""
    true_tied_M: IntArray
    all_above_M: IntArray
    all_tied_M: IntArray
    support_G: IntArray
    """True entries of each group."""


def padded_cmap(truth_RC: ArrayLike, score_RC: ArrayLike, k: int) -> float:
    """Macro average precision after k rows of ones are appended to truth and scores (BirdCLEF 2023, with k = 5).

    A species without a recording scores 1 and one with n recordings at least about k / (k + n): show `cmap` beside it.
    Raises InputError for scores outside 0 to 1, as the ones would not rank first any more.
    """
    truth, score = _checked(truth_RC, score_RC)
    return float(_padded(_column_ranks(truth, score), truth, score, k).mean())


def cmap(truth_RC: ArrayLike, score_RC: ArrayLike) -> float:
    """Macro average precision over the species that have a recording; NaN where none has."""
    return _mean(per_class_ap(truth_RC, score_RC)[0])


def per_class_ap(truth_RC: ArrayLike, score_RC: ArrayLike) -> tuple[NDArray[np.float64], IntArray]:
    """(average precision, number of recordings) of each species; NaN for one without a recording."""
    ranks = _column_ranks(*_checked(truth_RC, score_RC))
    return _average_precision(ranks), ranks.support_G


def auroc(truth_RC: ArrayLike, score_RC: ArrayLike) -> float:
    """Macro area under the ROC curve over the species that are in some recordings and not in all (BirdCLEF 2024); else NaN."""
    return _mean(_auroc(_column_ranks(*_checked(truth_RC, score_RC))))


def lrap(truth_RC: ArrayLike, score_RC: ArrayLike) -> float:
    """Label ranking average precision: of the species ranked at or above a true one, the share that is true.

    A recording without labels scores 1, as in scikit-learn.
    """
    truth, score = _checked(truth_RC, score_RC)
    return _lrap(truth, score)


def chance_cmap(truth_RC: ArrayLike) -> float:
    """What `cmap` is on average when each species' recordings are shuffled.

    For n recordings of which p are true, a true one stands at each rank r with probability 1/n, and each of the r - 1 above it
    is true with probability (p - 1) / (n - 1). The mean of (1 + (r - 1) (p - 1) / (n - 1)) / r over r is
    H/n + (1 - H/n) (p - 1) / (n - 1) with H = 1 + 1/2 + ... + 1/n: somewhat above the prevalence p / n.
    """
    truth = _checked_truth(truth_RC)
    size, support_C = len(truth), truth.sum(axis=0)
    harmonic = np.sum(1 / np.arange(1, size + 1)) / size
    share_C = (support_C - 1) / max(size - 1, 1)
    return _mean(np.where(support_C > 0, harmonic + (1 - harmonic) * share_C, np.nan))


def summarise(truth_RC: ArrayLike, score_RC: ArrayLike) -> dict[str, float]:
    """All figures that are shown together; scores are probabilities. `cmap`, `cmap_chance` and `auroc` are NaN where undefined.

    Raises InputError where shapes differ, there is no recording, truth is not 0 or 1, or a score is no number from 0 to 1.
    """
    truth, score = _checked(truth_RC, score_RC)
    ranks = _column_ranks(truth, score)
    return {
        "cmap_pad5": float(_padded(ranks, truth, score, 5).mean()),
        "cmap_pad3": float(_padded(ranks, truth, score, 3).mean()),
        "cmap": _mean(_average_precision(ranks)),
        "cmap_chance": chance_cmap(truth),
        "lrap": _lrap(truth, score),
        "auroc": _mean(_auroc(ranks)),
        "num_recordings": float(len(truth)),
        "num_scored_species": float((ranks.support_G > 0).sum()),
    }


def _checked_truth(truth_RC: ArrayLike) -> NDArray[np.bool_]:
    truth = np.asarray(truth_RC)
    if truth.ndim != 2 or not truth.size:
        raise InputError(f"Truth must have a row a recording and a column a species, but its shape is {truth.shape}.")
    if truth.dtype != np.bool_ and not np.isin(truth, (0, 1)).all():
        values = np.setdiff1d(truth, (0, 1))[:3].tolist()
        raise InputError(
            f"Truth must be 0 or 1, but holds {values}: take `target > 0`, or `target == 1` for primary labels only."
        )
    return truth.astype(np.bool_)


def _checked(truth_RC: ArrayLike, score_RC: ArrayLike) -> tuple[NDArray[np.bool_], FloatArray]:
    truth, score = _checked_truth(truth_RC), np.asarray(score_RC)
    if score.dtype not in (np.float32, np.float64):
        score = score.astype(np.float64)
    if score.shape != truth.shape:
        raise InputError(f"Scores must have the shape of the truth, {truth.shape}, but have {score.shape}.")
    if np.isnan(score).any():
        raise InputError(f"Scores must be numbers, but {int(np.isnan(score).any(axis=1).sum())} of {len(score)} rows hold NaN.")
    return truth, score


def _column_ranks(truth_RC: NDArray[np.bool_], score_RC: FloatArray) -> _Ranks:
    return _rank(np.ascontiguousarray(truth_RC.T), np.ascontiguousarray(score_RC.T))


def _rank(truth_GN: NDArray[np.bool_], score_GN: FloatArray) -> _Ranks:
    """Ranks within each row. Values are sorted, not indices: true entries are few, and are looked up among the sorted values."""
    size = truth_GN.shape[1]
    group_M, entry_M = np.nonzero(truth_GN)
    value_M = score_GN[group_M, entry_M]
    sorted_GN = np.sort(score_GN, axis=1)
    below_M = _search(sorted_GN, group_M, value_M, equal_too=False)
    below_or_tied_M = _search(sorted_GN, group_M, value_M, equal_too=True)
    order_M = np.lexsort((value_M, group_M))
    group_M, value_M = group_M[order_M], value_M[order_M]
    support_G = np.bincount(group_M, minlength=len(truth_GN))
    first_M, last_M = _runs(group_M, value_M)
    end_M = np.cumsum(support_G)[group_M]
    return _Ranks(
        size=size,
        group_M=group_M,
        true_above_M=end_M - first_M,
        true_tied_M=last_M - first_M,
        all_above_M=size - below_M[order_M],
        all_tied_M=(below_or_tied_M - below_M)[order_M],
        support_G=support_G,
    )


def _search(sorted_GN: FloatArray, group_M: IntArray, value_M: FloatArray, *, equal_too: bool) -> IntArray:
    """numpy's searchsorted, each value in its own sorted row: how many entries lie below it (or are equal)."""
    low_M = np.zeros(len(group_M), np.intp)
    high_M = np.full(len(group_M), sorted_GN.shape[1], np.intp)
    while (open_M := low_M < high_M).any():
        middle_M = (low_M + high_M) // 2
        found_M = sorted_GN[group_M, np.minimum(middle_M, sorted_GN.shape[1] - 1)]
        right_M = open_M & ((found_M <= value_M) if equal_too else (found_M < value_M))
        low_M = np.where(right_M, middle_M + 1, low_M)
        high_M = np.where(open_M & ~right_M, middle_M, high_M)
    return low_M


def _runs(group_M: IntArray, value_M: FloatArray) -> tuple[IntArray, IntArray]:
    """First place of each entry's run of equal group and value, and the place after the last."""
    places_M = np.arange(len(group_M))
    starts_M = np.ones(len(group_M), np.bool_)
    starts_M[1:] = (group_M[1:] != group_M[:-1]) | (value_M[1:] != value_M[:-1])
    starts = np.flatnonzero(starts_M)
    run_M = np.cumsum(starts_M) - 1
    ends = np.append(starts[1:], len(places_M))
    return starts[run_M], ends[run_M]


def _average_precision(ranks: _Ranks) -> NDArray[np.float64]:
    """Mean over a group's true entries of the share of true ones among all that score at least as much; NaN without any."""
    return _group_mean(ranks, ranks.true_above_M / ranks.all_above_M)


def _padded(ranks: _Ranks, truth_RC: NDArray[np.bool_], score_RC: FloatArray, k: int) -> NDArray[np.float64]:
    """Average precision of each species with k more recordings that are true and score 1."""
    low, high = score_RC.min(), score_RC.max()
    if low < 0 or high > 1:
        raise InputError(f"Scores must be probabilities, 0 to 1, but lie in {low:.4g} to {high:.4g}: take the sigmoid of logits.")
    precision_M = (ranks.true_above_M + k) / (ranks.all_above_M + k)
    sum_C = np.bincount(ranks.group_M, precision_M, minlength=len(ranks.support_G))
    certain_RC = score_RC == 1
    appended_C = ((certain_RC & truth_RC).sum(axis=0) + k) / (certain_RC.sum(axis=0) + k)
    return (sum_C + k * appended_C) / (ranks.support_G + k)


def _auroc(ranks: _Ranks) -> NDArray[np.float64]:
    """Share of pairs of a true and a false entry that stand in the right order, ties counting half; NaN without such pairs."""
    false_above_M = ranks.all_above_M - ranks.true_above_M
    false_tied_M = ranks.all_tied_M - ranks.true_tied_M
    false_G = ranks.size - ranks.support_G
    with np.errstate(invalid="ignore", divide="ignore"):
        wrong_M = (false_above_M - 0.5 * false_tied_M) / false_G[ranks.group_M]
        return 1 - _group_mean(ranks, wrong_M)


def _lrap(truth_RC: NDArray[np.bool_], score_RC: FloatArray) -> float:
    return float(np.nan_to_num(_average_precision(_rank(truth_RC, score_RC)), nan=1.0).mean())


def _group_mean(ranks: _Ranks, value_M: NDArray[np.float64]) -> NDArray[np.float64]:
    sum_G = np.bincount(ranks.group_M, value_M, minlength=len(ranks.support_G))
    with np.errstate(invalid="ignore"):
        return sum_G / ranks.support_G


def _mean(value_C: NDArray[np.float64]) -> float:
    """Mean of what is defined; NaN where nothing is."""
    defined = value_C[~np.isnan(value_C)]
    return float(defined.mean()) if len(defined) else float("nan")
