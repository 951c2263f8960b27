"""Metrics of how well recordings are ranked by species, and species by recording: scikit-learn's numbers, computed faster.

Truth is 0 or 1. The caller decides and shows whether a background species (target .9) is true: the competition's soundscapes count
every species that is heard (`target > 0`), its recordings have the primary label only (`target == 1`).

Shapes: R recordings, C species, M true entries (recording and species), G groups that are ranked separately (columns or rows).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from birdclef_core.errors import InputError

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class _Ranks:
    """Ranks of the true entries of each group: precision, recall and ROC are computed from these."""

    size: int
    """Number of entries of a group."""
    group_M: IntArray
    true_above_M: IntArray
    """Number of true entries of the group that score at least as high, this one included."""
    true_tied_M: IntArray
    all_above_M: IntArray
    all_tied_M: IntArray
    support_G: IntArray
    """Number of true entries of each group."""


def padded_cmap(truth_RC: ArrayLike, score_RC: ArrayLike, k: int) -> float:
    """Return the macro average precision after k rows of ones are appended to truth and scores (BirdCLEF 2023 has k = 5).

    A species without a recording scores 1, and one with n recordings at least about k / (k + n): show `cmap` beside it.
    Raises InputError for scores outside 0 to 1, as the appended rows would not rank first.
    """
    truth, score = _checked(truth_RC, score_RC)
    return float(_padded(_column_ranks(truth, score), truth, score, k).mean())


def cmap(truth_RC: ArrayLike, score_RC: ArrayLike) -> float:
    """Return the macro average precision over the species that have a recording; NaN if none has."""
    return _mean(per_class_ap(truth_RC, score_RC)[0])


def per_class_ap(truth_RC: ArrayLike, score_RC: ArrayLike) -> tuple[NDArray[np.float64], IntArray]:
    """Return average precision and number of recordings of each species; NaN for a species without a recording."""
    ranks = _column_ranks(*_checked(truth_RC, score_RC))
    return _average_precision(ranks), ranks.support_G


def auroc(truth_RC: ArrayLike, score_RC: ArrayLike) -> float:
    """Return the macro area under the ROC curve (BirdCLEF 2024) over the species that are in some but not all recordings.

    NaN if there is no such species.
    """
    return _mean(_auroc(_column_ranks(*_checked(truth_RC, score_RC))))


def lrap(truth_RC: ArrayLike, score_RC: ArrayLike) -> float:
    """Return the label ranking average precision: the share of true species among those ranked at or above a true one.

    Recordings without labels are left out, as there is nothing to rank; scikit-learn counts each of them as 1. NaN if none has one.
    """
    return _mean(per_recording_precision(truth_RC, score_RC))


def per_recording_precision(truth_RC: ArrayLike, score_RC: ArrayLike) -> NDArray[np.float64]:
    """Return the average precision (R,) with which each recording ranks its species; NaN for a recording without labels."""
    return _average_precision(_rank(*_checked(truth_RC, score_RC)))


def chance_cmap(truth_RC: ArrayLike) -> float:
    """Return the expected `cmap` of a random ranking of each species' recordings.

    Of n recordings, p are true. A true one has each rank r with probability 1/n, and each of the r - 1 above it is true with
    probability (p - 1) / (n - 1). The mean of (1 + (r - 1) (p - 1) / (n - 1)) / r over r is
    H/n + (1 - H/n) (p - 1) / (n - 1) with H = 1 + 1/2 + ... + 1/n: a little above the prevalence p / n.
    """
    truth = _checked_truth(truth_RC)
    size, support_C = len(truth), truth.sum(axis=0)
    harmonic = np.sum(1 / np.arange(1, size + 1)) / size
    share_C = (support_C - 1) / max(size - 1, 1)
    return _mean(np.where(support_C > 0, harmonic + (1 - harmonic) * share_C, np.nan))


def summarise(truth_RC: ArrayLike, score_RC: ArrayLike) -> dict[str, float]:
    """Return all figures that are shown together, for probabilities. All but the padded ones are NaN if undefined.

    Raises InputError if shapes differ, there is no recording, a truth is not 0 or 1, or a score is not a number from 0 to 1.
    """
    truth, score = _checked(truth_RC, score_RC)
    ranks = _column_ranks(truth, score)
    return {
        "cmap_pad5": float(_padded(ranks, truth, score, 5).mean()),
        "cmap_pad3": float(_padded(ranks, truth, score, 3).mean()),
        "cmap": _mean(_average_precision(ranks)),
        "cmap_chance": chance_cmap(truth),
        "lrap": _mean(_average_precision(_rank(truth, score))),
        "auroc": _mean(_auroc(ranks)),
        "num_recordings": float(len(truth)),
        "num_scored_species": float((ranks.support_G > 0).sum()),
    }


def _checked_truth(truth_RC: ArrayLike) -> NDArray[np.bool_]:
    truth = np.asarray(truth_RC)
    if truth.ndim != 2 or not truth.size:
        raise InputError(f"Truth must have one row per recording and one column per species, but its shape is {truth.shape}.")
    if truth.dtype != np.bool_ and not np.isin(truth, (0, 1)).all():
        values = np.setdiff1d(truth, (0, 1))[:3].tolist()
        raise InputError(f"Truth must be 0 or 1, but has {values}: take `target > 0`, or `target == 1` for primary labels only.")
    return truth.astype(np.bool_)


def _checked(truth_RC: ArrayLike, score_RC: ArrayLike) -> tuple[NDArray[np.bool_], FloatArray]:
    truth, score = _checked_truth(truth_RC), np.asarray(score_RC)
    if score.dtype not in (np.float32, np.float64):
        score = score.astype(np.float64)
    if score.shape != truth.shape:
        raise InputError(f"Scores must have the shape of the truth, {truth.shape}, but have {score.shape}.")
    if np.isnan(score).any():
        raise InputError(f"Scores must be numbers, but {int(np.isnan(score).any(axis=1).sum())} of {len(score)} rows have NaN.")
    return truth, score


def _column_ranks(truth_RC: NDArray[np.bool_], score_RC: FloatArray) -> _Ranks:
    return _rank(np.ascontiguousarray(truth_RC.T), np.ascontiguousarray(score_RC.T))


def _rank(truth_GN: NDArray[np.bool_], score_GN: FloatArray) -> _Ranks:
    """Rank within each row. Values are sorted, not indices: true entries are few, and are searched among the sorted values."""
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
    """Number of entries below each value (or equal) in its own sorted row, like numpy's searchsorted."""
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
    """First place of the run of entries with equal group and value that each entry is in, and the place after its last."""
    places_M = np.arange(len(group_M))
    starts_M = np.ones(len(group_M), np.bool_)
    starts_M[1:] = (group_M[1:] != group_M[:-1]) | (value_M[1:] != value_M[:-1])
    starts = np.flatnonzero(starts_M)
    run_M = np.cumsum(starts_M) - 1
    ends = np.append(starts[1:], len(places_M))
    return starts[run_M], ends[run_M]


def _average_precision(ranks: _Ranks) -> NDArray[np.float64]:
    """Mean over the true entries of a group of the share of true ones among all that score at least as high; NaN without any."""
    return _group_mean(ranks, ranks.true_above_M / ranks.all_above_M)


def _padded(ranks: _Ranks, truth_RC: NDArray[np.bool_], score_RC: FloatArray, k: int) -> NDArray[np.float64]:
    """Average precision of each species with k additional recordings that are true and score 1."""
    low, high = score_RC.min(), score_RC.max()
    if low < 0 or high > 1:
        raise InputError(f"Scores must be probabilities, 0 to 1, but lie in {low:.4g} to {high:.4g}: take the sigmoid of logits.")
    precision_M = (ranks.true_above_M + k) / (ranks.all_above_M + k)
    sum_C = np.bincount(ranks.group_M, precision_M, minlength=len(ranks.support_G))
    certain_RC = score_RC == 1
    appended_C = ((certain_RC & truth_RC).sum(axis=0) + k) / (certain_RC.sum(axis=0) + k)
    return (sum_C + k * appended_C) / (ranks.support_G + k)


def _auroc(ranks: _Ranks) -> NDArray[np.float64]:
    """Share of pairs of a true and a false entry in the right order, ties counted half; NaN without such pairs."""
    false_above_M = ranks.all_above_M - ranks.true_above_M
    false_tied_M = ranks.all_tied_M - ranks.true_tied_M
    false_G = ranks.size - ranks.support_G
    with np.errstate(invalid="ignore", divide="ignore"):
        wrong_M = (false_above_M - 0.5 * false_tied_M) / false_G[ranks.group_M]
        return 1 - _group_mean(ranks, wrong_M)


def _group_mean(ranks: _Ranks, value_M: NDArray[np.float64]) -> NDArray[np.float64]:
    sum_G = np.bincount(ranks.group_M, value_M, minlength=len(ranks.support_G))
    with np.errstate(invalid="ignore"):
        return sum_G / ranks.support_G


def _mean(value_C: NDArray[np.float64]) -> float:
    """Mean of the defined values; NaN if there are none."""
    defined = value_C[~np.isnan(value_C)]
    return float(defined.mean()) if len(defined) else float("nan")
