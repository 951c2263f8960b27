"""Parts of rows for cross-fitting, and what a figure may vary with the files that there happen to be.

Shapes: R rows, G groups.
"""

import numpy as np
from numpy.typing import NDArray

FOLDS = 4


def parts_of(group_R: NDArray) -> NDArray[np.int64] | None:
    """Return the part of each row, 0 to 3 at most: whole groups, about as many rows in each. None where all rows are of one group."""
    groups, place_R, counts = np.unique(group_R, return_inverse=True, return_counts=True)
    if len(groups) < 2:
        return None
    sizes = np.zeros(min(FOLDS, len(groups)), dtype=np.int64)
    part_G = np.empty(len(groups), dtype=np.int64)
    for group in np.argsort(-counts, kind="stable"):
        part_G[group] = np.argmin(sizes)
        sizes[part_G[group]] += counts[group]
    return part_G[place_R]


def jackknife_error(figure_G: NDArray[np.float64]) -> float:
    """Return the standard error of a figure, or of a difference of two, from its values without each group.

    It is that of `evaluation/jackknife.py`. NaN where fewer than two groups can be left out.
    """
    figure_G = figure_G[~np.isnan(figure_G)]
    others = len(figure_G) - 1
    return float(np.sqrt(others * np.var(figure_G)) * (1 + 1 / (4 * others))) if others >= 1 else float("nan")
