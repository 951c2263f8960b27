"""Scores thousands of mixtures of the same logits: the figures of `metrics`, computed with what does not change prepared once.

Of a mixture, only ranks count, so logits are summed and never divided, and no sigmoid is taken.
Shapes: K candidates, R rows that are scored, C species, G groups that are ranked separately (species; for LRAP rows), N entries of a
group, M true entries.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from birdclef_core.ensemble.record import Metric
from birdclef_core.errors import InputError

_PADDING = {"cmap_pad5": 5, "cmap_pad3": 3}

Values = NDArray[np.float32]


class RankedLogits:
    """The logits of candidates on the same rows, arranged so that a mixture is scored in milliseconds."""

    def __init__(self, truth_RC: NDArray, logits_KRC: Values, metric: Metric) -> None:
        """Keep what counts for the metric: species that have a true row, for LRAP rows that have a true species.

        Raises InputError when there are none, so that the metric is not defined.
        """
        self._metric, self._num_all = metric, truth_RC.shape[1]
        by_row = metric == "lrap"
        truth_GN = np.asarray(truth_RC, dtype=np.bool_) if by_row else np.asarray(truth_RC, dtype=np.bool_).T
        support_G = truth_GN.sum(axis=1)
        used_G = (support_G > 0) & (support_G < truth_GN.shape[1]) if metric == "auroc" else support_G > 0
        if not used_G.any():
            raise InputError(
                f"At least one species must be heard in some of the scored rows for {metric} to be defined, but none is."
            )
        kept = logits_KRC[:, used_G] if by_row else logits_KRC[:, :, used_G].transpose(0, 2, 1)
        self.values_KGN: Values = np.ascontiguousarray(kept, dtype=np.float32)
        self._group_M, self._entry_M = np.nonzero(truth_GN[used_G])
        self._support_G = support_G[used_G]
        self._ends_G = np.cumsum(self._support_G)
        self._starts_G = self._ends_G - self._support_G
        self._size = truth_GN.shape[1]
        # New arrays of this size cost more than what is computed in them.
        self._sum_GN, self._term_GN = np.empty_like(self.values_KGN[0]), np.empty_like(self.values_KGN[0])

    @property
    def num_candidates(self) -> int:
        """Number of candidates."""
        return len(self.values_KGN)

    def mixture(self, weights: Sequence[tuple[int, float]]) -> float:
        """Return the metric of a mixture of candidates."""
        self._sum_GN[:] = 0
        for candidate, weight in weights:
            self._sum_GN += np.multiply(self.values_KGN[candidate], np.float32(weight), out=self._term_GN)
        return self._score()

    def singles(self) -> list[float]:
        """Return the metric of each candidate alone."""
        return [self.mixture([(candidate, 1.0)]) for candidate in range(self.num_candidates)]

    def addition(self, total_GN: Values, candidate: int) -> float:
        """Return the metric of the sum of `total_GN`, which is laid out as `values_KGN`, and a candidate."""
        np.add(total_GN, self.values_KGN[candidate], out=self._sum_GN)
        return self._score()

    def _score(self) -> float:
        """Return the metric of the sum, which is sorted by it: as `metrics` computes it, the padded ones without rows that score exactly 1."""
        value_M = self._sum_GN[self._group_M, self._entry_M]
        self._sum_GN.sort(axis=1)
        left_M, right_M = self._places(self._sum_GN, value_M)
        if self._metric == "auroc":
            return float(self._auroc(left_M, right_M).mean())
        true_above_M, order_M = self._true_above(left_M)
        all_above_M = self._size - left_M[order_M]
        k = _PADDING.get(self._metric, 0)
        sum_G = np.add.reduceat((true_above_M + k) / (all_above_M + k), self._starts_G)
        if not k:
            return float((sum_G / self._support_G).mean())
        padded_G = (sum_G + k) / (self._support_G + k)
        return float((padded_G.sum() + self._num_all - len(padded_G)) / self._num_all)

    def _places(self, sorted_GN: Values, value_M: Values) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return for each true entry how many entries of its group are lower, and how many are not higher."""
        left_M = np.empty(len(value_M), np.intp)
        for values_N, start, end in zip(sorted_GN, self._starts_G, self._ends_G, strict=True):
            left_M[start:end] = values_N.searchsorted(value_M[start:end])
        right_M = left_M + 1
        next_M = np.minimum(right_M, self._size - 1)
        is_tied_M = (sorted_GN[self._group_M, next_M] == value_M) & (next_M == right_M)
        for group in np.unique(self._group_M[is_tied_M]):  # Equal values are rare, and this is slow.
            start, end = self._starts_G[group], self._ends_G[group]
            right_M[start:end] = sorted_GN[group].searchsorted(value_M[start:end], side="right")
        return left_M, right_M

    def _auroc(self, left_M: NDArray[np.intp], right_M: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the area for each group from the mean ranks of its true entries (Mann and Whitney 1947)."""
        middle_G = np.add.reduceat((left_M + right_M - 1) / 2, self._starts_G)
        pairs_G = self._support_G * (self._size - self._support_G)
        return (middle_G - self._support_G * (self._support_G - 1) / 2) / pairs_G

    def _true_above(self, left_M: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return how many true entries of the group are not lower than each, itself included, and the order of these numbers."""
        order_M = np.lexsort((left_M, self._group_M))
        left_M = left_M[order_M]
        is_first_M = np.ones(len(left_M), np.bool_)
        is_first_M[1:] = (left_M[1:] != left_M[:-1]) | (self._group_M[1:] != self._group_M[:-1])
        first_M = np.maximum.accumulate(np.where(is_first_M, np.arange(len(left_M)), 0))
        return self._ends_G[self._group_M] - first_M, order_M
