"""Reliability of probabilities: are about 30 % of the predictions true that have a probability of about 30 %?

Shapes: R recordings, C species.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ReliabilityBin:
    """The predictions between two probabilities, for all recordings and species."""

    predicted: float
    """Mean probability."""
    observed: float
    """Share of predictions that are true."""
    count: int


def reliability(truth_RC: NDArray, score_RC: NDArray[np.floating], *, num_bins: int = 10) -> list[ReliabilityBin]:
    """Return bins of equal width from 0 to 1, without empty ones."""
    place = np.minimum((score_RC * num_bins).astype(np.intp), num_bins - 1).ravel()
    counts = np.bincount(place, minlength=num_bins)
    predicted = np.bincount(place, weights=score_RC.ravel(), minlength=num_bins)
    observed = np.bincount(place, weights=np.asarray(truth_RC, dtype=np.float64).ravel(), minlength=num_bins)
    filled = np.flatnonzero(counts)
    return [ReliabilityBin(float(predicted[i] / counts[i]), float(observed[i] / counts[i]), int(counts[i])) for i in filled]


def calibration_error(bins: list[ReliabilityBin]) -> float:
    """Return the expected calibration error: mean distance of predicted and observed share, bins weighted by their counts."""
    return sum(item.count * abs(item.predicted - item.observed) for item in bins) / sum(item.count for item in bins)
