"""Standard errors of scores: how much they vary with the authors whose recordings happen to be in the validation set.

Recordings of one author have a microphone, a place and some birds in common, so they are right or wrong together, and the split
takes authors as a whole. Errors that take recordings for independent are two to three times too small.

Each group of recordings (an author, or the windows of one soundscape) is left out in turn, which is called the jackknife (Tukey 1958;
Efron and Stein 1981): the square of the error is (G - 1) / G times the sum of the squared distances of the G figures to their mean. A
bootstrap of authors gives errors that are up to 40% too small: a draw lacks a third of the authors, and with them rare species, while
others are in it twice and rank beside themselves. With weights that are never zero (the Bayesian bootstrap) they are up to 46% too
small, because no draw ever loses a species. `docs/benchmarks/metrics.md` has the figures.

Shapes: R recordings, C species, P true recordings of one species, G groups. Axes of G + 1 entries have figures without each group, then
one without none.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from birdclef_core.evaluation.metrics import per_recording_precision

_PADDING = {"cmap_pad5": 5, "cmap_pad3": 3}
_SHRINKING: Mapping[str, float] = MappingProxyType({"cmap": 1 / 4, "auroc": 1 / 8})
_NORMAL_95 = 1.96


def standard_errors(truth_RC: NDArray, score_RC: NDArray[np.floating], group_R: NDArray) -> dict[str, float]:
    """Return the standard errors of `cmap_pad5`, `cmap_pad3`, `cmap`, `lrap` and `auroc` (see `metrics`).

    Recordings with equal values in `group_R` are alike; groups are independent. An error is NaN where fewer than two groups can be left
    out. In simulated validation sets with long-tailed authors, the mean error is .8 to 1.2 of the true one, also with five authors.
    """
    return {name: _error(figure_G[:-1]) for name, figure_G in figures_without_groups(truth_RC, score_RC, group_R).items()}


def interval_95(figure: float, error: float) -> tuple[float, float]:
    """Return the figure minus and plus 1.96 standard errors, cut at 0 and 1: 0 and 1 for an error that is not known."""
    if np.isnan(error):
        return 0.0, 1.0
    return max(0.0, figure - _NORMAL_95 * error), min(1.0, figure + _NORMAL_95 * error)


def figures_without_groups(
    truth_RC: NDArray, score_RC: NDArray[np.floating], group_R: NDArray, *, shrinking: Mapping[str, float] = _SHRINKING
) -> dict[str, NDArray[np.float64]]:
    """Return the figures (G + 1,) of all recordings but those of each group, in the order of the groups' values, then of all recordings.

    A figure is NaN where it is not defined. Where the last author of a species is left out, the mean is over the other species.

    The average precision of a species is nearly a mean over its recordings, and a mean of few authors changes too much when one is left
    out: of m equal authors, the sum of squares is m / (m - 1) times what it should be. So what a species' figure changes is multiplied
    by (1 - h) ** `shrinking`, where h is the group's share of the recordings of the species. 1/2 is right for equal authors, and too
    little remains where one author has most recordings; 1/4 is between, and in simulations right for `cmap`. For `auroc` 1/8 is, because
    a few authors whose recordings are found badly count more in it. Padding limits what an author can change, so nothing is multiplied.
    """
    truth_CR = np.ascontiguousarray(np.asarray(truth_RC).T).astype(np.bool_)
    score_CR = np.ascontiguousarray(np.asarray(score_RC).T)
    values, place_R = np.unique(group_R, return_inverse=True)
    num_groups = len(values) + 1
    by_species = [
        _species_figures(truth_R, score_R, place_R, num_groups) for truth_R, score_R in zip(truth_CR, score_CR, strict=True)
    ]
    figures = {name: np.array([figures[name] for figures in by_species]) for name in by_species[0]}
    share_CG = figures.pop("share")
    for name, power in shrinking.items():
        whole_C1 = figures[name][:, -1:]
        figures[name] = whole_C1 + (figures[name] - whole_C1) * (1 - share_CG) ** power
    return {name: _mean(figure_CG) for name, figure_CG in figures.items()} | {
        "lrap": _lrap(truth_RC, score_RC, place_R, num_groups)
    }


def _species_figures(
    truth_R: NDArray[np.bool_], score_R: NDArray[np.floating], group_R: NDArray[np.intp], num_groups: int
) -> Mapping[str, NDArray[np.float64]]:
    """Return the figures of one species without each group, and each group's share of its recordings (share)."""
    true = np.flatnonzero(truth_R)
    true = true[np.argsort(score_R[true], kind="stable")]
    true_score_P, own_P = score_R[true], group_R[true]
    false_score, false_group = score_R[~truth_R], group_R[~truth_R]
    true_above_PG = _others_above(true_score_P, own_P, true_score_P, num_groups)
    false_above_PG = _others_above(false_score, false_group, true_score_P, num_groups)
    false_higher_PG = _others_above(false_score, false_group, true_score_P, num_groups, side="left")
    is_other_PG = own_P[:, None] != np.arange(num_groups)
    true_G, false_G = is_other_PG.sum(axis=0), len(false_group) - np.bincount(false_group, minlength=num_groups)
    above_PG = true_above_PG + false_above_PG
    with np.errstate(invalid="ignore", divide="ignore"):
        figures = {
            "share": np.nan_to_num(1 - true_G / len(true)),
            "cmap": (is_other_PG * (true_above_PG / np.maximum(above_PG, 1))).sum(axis=0) / true_G,
            "auroc": 1 - (is_other_PG * (false_above_PG + false_higher_PG)).sum(axis=0) / (2.0 * true_G * false_G),
        }
    is_certain_R = score_R == 1
    certain_G = _others(group_R[is_certain_R], num_groups)
    certain_true_G = _others(group_R[is_certain_R & truth_R], num_groups)
    for name, k in _PADDING.items():
        sum_G = (is_other_PG * ((true_above_PG + k) / (above_PG + k))).sum(axis=0)
        figures[name] = (sum_G + k * (certain_true_G + k) / (certain_G + k)) / (true_G + k)
    return figures


def _others_above(
    score: NDArray[np.floating],
    group: NDArray[np.intp],
    threshold_P: NDArray[np.floating],
    num_groups: int,
    side: Literal["left", "right"] = "right",
) -> NDArray[np.int64]:
    """Return how many scores outside each group are above each of the sorted thresholds (P, G); `right` counts equal ones too."""
    passed = np.searchsorted(threshold_P, score, side)
    size = len(threshold_P) + 1
    counts = np.bincount(passed * num_groups + group, minlength=size * num_groups).reshape(size, num_groups)
    own_PG = counts[::-1].cumsum(axis=0)[-2::-1]
    return own_PG.sum(axis=1, keepdims=True) - own_PG


def _others(group: NDArray[np.intp], num_groups: int) -> NDArray[np.int64]:
    """Return the number of entries outside each group (G,)."""
    return len(group) - np.bincount(group, minlength=num_groups)


def _lrap(truth_RC: NDArray, score_RC: NDArray[np.floating], group_R: NDArray[np.intp], num_groups: int) -> NDArray[np.float64]:
    precision_R = per_recording_precision(truth_RC, score_RC)
    has_label_R = ~np.isnan(precision_R)
    sum_G = np.bincount(group_R[has_label_R], precision_R[has_label_R], minlength=num_groups)
    with np.errstate(invalid="ignore"):
        return (sum_G.sum() - sum_G) / _others(group_R[has_label_R], num_groups)


def _mean(figure_CG: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the species for which a figure is defined (G,); NaN if there are none."""
    is_defined_CG = ~np.isnan(figure_CG)
    with np.errstate(invalid="ignore"):
        return np.where(is_defined_CG, figure_CG, 0).sum(axis=0) / is_defined_CG.sum(axis=0)


def _error(figure_G: NDArray[np.float64]) -> float:
    """Return the jackknife's error, times what the root of a variance lacks on average when it is estimated from few groups."""
    figure_G = figure_G[~np.isnan(figure_G)]
    others = len(figure_G) - 1
    if others < 1:
        return float("nan")
    return float(np.sqrt(others * np.var(figure_G)) * (1 + 1 / (4 * others)))
