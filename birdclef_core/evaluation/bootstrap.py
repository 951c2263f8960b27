"""Standard error of cmAP: how much it varies with the recordings that happen to be in the validation set.

Recordings are drawn with replacement many times; the standard deviation of the resulting figures is the standard error. All draws
are computed at once: a draw is a weight for each recording, and average precision consists of sums of weights.

Shapes: R recordings, C species, D draws, M true entries (recording and species).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

_MAX_DRAWS, _MIN_DRAWS = 200, 50
_MAX_WORK = 5e9
"""Most pairs of a true entry and a recording, times draws, that take about a second."""
_CHUNK = 4_000_000
"""Pairs of scores that are compared at once."""
_NORMAL_95 = 1.96


def cmap_errors(truth_RC: NDArray, score_RC: NDArray[np.floating], *, seed: int) -> dict[str, float]:
    """Return standard errors of `cmap` and `cmap_pad5` (see `metrics`) from 200 draws, or fewer if these take over a second."""
    pairs = len(truth_RC) * max(1, int(np.count_nonzero(truth_RC)))
    draws = int(np.clip(_MAX_WORK / pairs, _MIN_DRAWS, _MAX_DRAWS))
    figures = weighted_cmaps(truth_RC, score_RC, draw_weights(len(truth_RC), draws, seed))
    return {name: float(np.std(figure_D, ddof=1)) for name, figure_D in figures.items()}


def interval_95(figure: float, error: float) -> tuple[float, float]:
    """Return the figure minus and plus 1.96 standard errors, cut at 0 and 1.

    Percentiles of the draws would be biased: a recording that is drawn twice ranks beside itself, so the draws are somewhat too high,
    and their percentiles may even exclude the figure itself.
    """
    return max(0.0, figure - _NORMAL_95 * error), min(1.0, figure + _NORMAL_95 * error)


def draw_weights(num_recordings: int, draws: int, seed: int) -> NDArray[np.float32]:
    """Draw how often each recording is in each draw (R, D)."""
    rng = np.random.default_rng(seed)
    chosen_DR = rng.integers(num_recordings, size=(draws, num_recordings)) + num_recordings * np.arange(draws)[:, None]
    counts = np.bincount(chosen_DR.ravel(), minlength=draws * num_recordings)
    return counts.reshape(draws, num_recordings).T.astype(np.float32)


def weighted_cmaps(truth_RC: NDArray, score_RC: NDArray[np.floating], weight_RD: NDArray[np.float32]) -> dict[str, NDArray]:
    """Return `cmap` and `cmap_pad5` (D,), with each recording counted as often as its weight says, for every column of weights."""
    score_CR = np.ascontiguousarray(score_RC.T)
    truth_CR = np.ascontiguousarray(truth_RC.T).astype(bool)
    species_M, recording_M = np.nonzero(truth_CR)
    above_MD, true_above_MD = _weights_above(score_CR, truth_CR, species_M, recording_M, weight_RD)
    weight_MD = weight_RD[recording_M]
    support_CD = _sum_by_species(weight_MD, species_M, len(truth_CR))
    with np.errstate(invalid="ignore", divide="ignore"):
        precision_CD = _sum_by_species(weight_MD * (true_above_MD / np.maximum(above_MD, 1)), species_M, len(truth_CR))
        cmap_D = np.nanmean(precision_CD / support_CD, axis=0)
    padded_CD = _sum_by_species(weight_MD * (true_above_MD + 5) / (above_MD + 5), species_M, len(truth_CR))
    certain_CD = (score_CR == 1).astype(np.float32) @ weight_RD
    certain_true_CD = ((score_CR == 1) & truth_CR).astype(np.float32) @ weight_RD
    appended_CD = (certain_true_CD + 5) / (certain_CD + 5)
    return {"cmap": cmap_D, "cmap_pad5": ((padded_CD + 5 * appended_CD) / (support_CD + 5)).mean(axis=0)}


def _weights_above(
    score_CR: NDArray[np.floating],
    truth_CR: NDArray[np.bool_],
    species_M: NDArray[np.intp],
    recording_M: NDArray[np.intp],
    weight_RD: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The weight of all recordings that score at least as high as an entry (M, D), and of the true ones among them (M, D)."""
    step = max(1, _CHUNK // score_CR.shape[1])
    above, true_above = [], []
    for first in range(0, len(species_M), step):
        species = species_M[first : first + step]
        own = score_CR[species, recording_M[first : first + step]]
        is_above_MR = score_CR[species] >= own[:, None]
        above.append(is_above_MR.astype(np.float32) @ weight_RD)
        # Few recordings are true, so this product is sparse: a second dense one would double the time.
        true_above.append(csr_array((is_above_MR & truth_CR[species]).astype(np.float32)) @ weight_RD)
    empty = [np.empty((0, weight_RD.shape[1]), np.float32)]
    return np.concatenate(empty + above), np.concatenate(empty + true_above)


def _sum_by_species(value_MD: NDArray, species_M: NDArray[np.intp], num_species: int) -> NDArray[np.float64]:
    """Sums by species (C, D). The entries must be in the order of their species."""
    starts = np.searchsorted(species_M, np.arange(num_species + 1))
    total = np.concatenate((np.zeros((1, value_MD.shape[1])), np.cumsum(value_MD, axis=0, dtype=np.float64)))
    return total[starts[1:]] - total[starts[:-1]]
