"""Thresholds of scores: of each species its own where it has enough positives, else that of all species together.

Shapes: R rows, C species, N scores.
"""

import math
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from birdclef_core.errors import InputError

LEAST_SUPPORT = 10
"""Positives from which on a species has a threshold of its own."""
NEVER = 1.0
"""The threshold where no threshold reaches what is asked for: nothing is detected."""
_NORMAL_95 = 1.96
_PRECISION = re.compile(r"precision=(0?\.\d+|1(?:\.0*)?|0)", re.ASCII)


@dataclass(frozen=True)
class Target:
    """What thresholds are chosen for."""

    precision: float | None = None
    """The least precision, at the highest recall with it; None: the best F1."""

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Return the target that `f1` or `precision=.9` stands for. Raises InputError for anything else."""
        if text == "f1":
            return cls()
        found = _PRECISION.fullmatch(text)
        if not found or not 0 < float(found[1]) <= 1:
            raise InputError(f"--target must be f1 or a precision above 0 and up to 1, such as precision=.9, but got {text!r}.")
        return cls(float(found[1]))

    def __str__(self) -> str:
        return "f1" if self.precision is None else f"precision={self.precision:g}"


@dataclass(frozen=True)
class Thresholds:
    """A threshold for each species."""

    threshold_C: NDArray[np.float64]
    support_C: NDArray[np.int64]
    is_own_C: NDArray[np.bool_]
    """Whether it was chosen by the species' own rows."""
    threshold: float
    """Of all species together."""

    def decide(self, score_RC: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which scores are detections: a score that is equal to the threshold is one."""
        return (score_RC >= self.threshold_C) & (self.threshold_C < NEVER)


def choose(truth_RC: NDArray[np.bool_], score_RC: NDArray[np.float64], target: Target) -> Thresholds:
    """Return the thresholds that reach the target on these rows."""
    common = best_threshold(truth_RC.ravel(), score_RC.ravel(), target)
    support_C = truth_RC.sum(axis=0).astype(np.int64)
    is_own_C = support_C >= LEAST_SUPPORT
    threshold_C = np.full(truth_RC.shape[1], common)
    for column in np.flatnonzero(is_own_C):
        threshold_C[column] = best_threshold(truth_RC[:, column], score_RC[:, column], target)
    return Thresholds(threshold_C, support_C, is_own_C, common)


def best_threshold(truth_N: NDArray[np.bool_], score_N: NDArray[np.float64], target: Target) -> float:
    """Return the threshold with the best F1, or the lowest with the precision; NEVER if none has it, or nothing is true.

    It lies in the middle between the lowest score that it takes and the highest that it leaves, as scores vary a little by rounding.
    Of equally good ones, the highest counts.
    """
    order_N = np.argsort(-score_N, kind="stable")
    score_N, truth_N = score_N[order_N], truth_N[order_N]
    # A threshold takes all equal scores or none.
    last_N = np.append(np.flatnonzero(np.diff(score_N)), len(score_N) - 1)
    right_N, taken_N = np.cumsum(truth_N)[last_N], last_N + 1
    if not right_N[-1]:
        return NEVER
    if target.precision is None:
        place = int(np.argmax(2 * right_N / (taken_N + right_N[-1])))
    else:
        reaching = np.flatnonzero((right_N >= target.precision * taken_N) & (right_N > 0))
        if not len(reaching):
            return NEVER
        place = int(reaching[-1])
    taken = float(score_N[last_N[place]])
    left = float(score_N[last_N[place] + 1]) if last_N[place] + 1 < len(score_N) else taken
    return (taken + left) / 2


def wilson_lower(right: int, taken: int) -> float:
    """Return the lower end of the 95% interval of a share (Wilson 1927); 0 where nothing was taken."""
    if not taken:
        return 0.0
    share, square = right / taken, _NORMAL_95**2
    spread = _NORMAL_95 * math.sqrt(share * (1 - share) / taken + square / (4 * taken**2))
    return max(0.0, (share + square / (2 * taken) - spread) / (1 + square / taken))


def cross_fit_decisions(
    truth_RC: NDArray[np.bool_], score_RC: NDArray[np.float64], part_R: NDArray[np.int64], target: Target
) -> NDArray[np.bool_]:
    """Return which scores are detections, those of each part by thresholds of the others."""
    decision_RC = np.zeros(truth_RC.shape, dtype=bool)
    for part in np.unique(part_R):
        is_part_R = part_R == part
        decision_RC[is_part_R] = choose(truth_RC[~is_part_R], score_RC[~is_part_R], target).decide(score_RC[is_part_R])
    return decision_RC


def threshold_table(
    species: tuple[str, ...], thresholds: Thresholds, truth_RC: NDArray[np.bool_], decision_RC: NDArray[np.bool_]
) -> pd.DataFrame:
    """Return a row for each species: its threshold, its positives, and how good the decisions about it are.

    `birdclef predict --thresholds` reads the first two columns.
    """
    right_C, taken_C = (truth_RC & decision_RC).sum(axis=0), decision_RC.sum(axis=0)
    with np.errstate(invalid="ignore"):
        precision_C, recall_C = right_C / taken_C, right_C / thresholds.support_C
    return pd.DataFrame(
        {
            "species": list(species),
            "threshold": thresholds.threshold_C,
            "chosen_by": np.where(thresholds.is_own_C, "species", "all"),
            "support": thresholds.support_C,
            "detections": taken_C,
            "precision": precision_C,
            "precision_lower": [wilson_lower(int(right), int(taken)) for right, taken in zip(right_C, taken_C, strict=True)],
            "recall": recall_C,
        }
    )
