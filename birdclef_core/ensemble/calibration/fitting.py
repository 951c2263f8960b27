"""Fits a calibration: one slope for all species and an intercept for each, by penalised maximum likelihood.

The model is logit = a_s + b x with a_s ~ N(m, 1), as a species with few positives says little about its own intercept. The mean m is fitted
too: in soundscapes most species are rare, and intercepts that were drawn towards 0 would bend the slope. It has the prior N(0, 10^2),
which only says that it is finite where nothing is heard.
Shapes: R rows, C species.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from birdclef_core.errors import BirdclefError
from birdclef_core.evaluation.reliability import ReliabilityBin, calibration_error, reliability

_MOST_STEPS = 500
_MEAN_PRECISION = 0.01
"""One over the variance of the mean intercept's prior."""


@dataclass(frozen=True)
class Fitted:
    """A calibration's numbers."""

    slope: float
    intercept_C: NDArray[np.float64]

    def apply(self, logits_RC: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities."""
        return expit(self.slope * logits_RC + self.intercept_C)


def fit(truth_RC: NDArray[np.bool_], logits_RC: NDArray[np.float64]) -> Fitted:
    """Return the slope (0 or more) and intercepts with the largest penalised likelihood; the problem is convex."""
    found = _Likelihood(truth_RC.astype(np.float64), logits_RC).largest()
    if found[0] < 0:  # the detector is worse than chance: of slopes from 0 on, 0 is the best
        found = _Likelihood(truth_RC.astype(np.float64), np.zeros_like(logits_RC)).largest()
        found[0] = 0.0
    return Fitted(float(found[0]), found[1] + found[2:])


class _Likelihood:
    """The penalised negative log-likelihood of (slope, mean intercept, each species' distance to it), with its derivatives.

    Its matrix of second derivatives is full in the rows and columns of the first two, and diagonal elsewhere, so that a product with it
    costs nothing once the weights have been summed.
    """

    def __init__(self, truth_RC: NDArray[np.float64], logits_RC: NDArray[np.float64]) -> None:
        self._truth_RC, self._logits_RC = truth_RC, logits_RC
        self._curved_at: NDArray[np.float64] | None = None

    def largest(self) -> NDArray[np.float64]:
        """Return the values with the largest likelihood. Raises BirdclefError when they cannot be found."""
        start = np.concatenate([[1.0, 0.0], np.zeros(self._truth_RC.shape[1])])
        options = {"maxiter": _MOST_STEPS, "gtol": 1e-6 * len(self._truth_RC)}
        found = minimize(self._loss, start, jac=True, hessp=self._curvature_times, method="trust-ncg", options=options)
        if not np.isfinite(found.x).all():
            raise BirdclefError(f"The calibration could not be fitted: {found.message}.")
        return found.x

    def _loss(self, values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope, mean, distance_C = values[0], values[1], values[2:]
        z_RC = slope * self._logits_RC + (mean + distance_C)
        value = np.logaddexp(0, z_RC).sum() - (self._truth_RC * z_RC).sum()
        value += 0.5 * (distance_C**2).sum() + 0.5 * _MEAN_PRECISION * mean**2
        error_RC = expit(z_RC) - self._truth_RC
        error_C = error_RC.sum(axis=0)
        of_first = [(error_RC * self._logits_RC).sum(), error_C.sum() + _MEAN_PRECISION * mean]
        return float(value), np.concatenate([of_first, error_C + distance_C])

    def _curvature_times(self, values: NDArray[np.float64], vector: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._curved_at is None or not np.array_equal(self._curved_at, values):
            probability_RC = expit(values[0] * self._logits_RC + (values[1] + values[2:]))
            weight_RC = probability_RC * (1 - probability_RC)
            weighted_RC = weight_RC * self._logits_RC
            self._of_slope = float((weighted_RC * self._logits_RC).sum())
            self._mixed_C, self._weight_C = weighted_RC.sum(axis=0), weight_RC.sum(axis=0)
            self._curved_at = values.copy()
        of_slope, of_mean, of_distance_C = vector[0], vector[1], vector[2:]
        intercept_C = self._mixed_C * of_slope + self._weight_C * (of_mean + of_distance_C)
        of_first = [
            self._of_slope * of_slope + self._mixed_C @ (of_mean + of_distance_C),
            intercept_C.sum() + _MEAN_PRECISION * of_mean,
        ]
        return np.concatenate([of_first, intercept_C + of_distance_C])


def cross_fit(truth_RC: NDArray[np.bool_], logits_RC: NDArray[np.float64], part_R: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return calibrated probabilities, those of each part by a fit to the others."""
    probability_RC = np.empty(logits_RC.shape)
    for part in np.unique(part_R):
        is_part_R = part_R == part
        fitted = fit(truth_RC[~is_part_R], logits_RC[~is_part_R])
        probability_RC[is_part_R] = fitted.apply(logits_RC[is_part_R])
    return probability_RC


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How good probabilities and the decisions made of them are."""

    nll: float
    """Mean negative log-likelihood of a row and species, in nats."""
    brier: float
    """Mean squared distance of a probability and the truth."""
    ece: float
    """Expected calibration error: mean distance of predicted and observed share, in ten bins."""
    macro_f1: float
    """Mean F1 of the decisions over the species that are heard."""
    bins: tuple[ReliabilityBin, ...]


def quality(truth_RC: NDArray[np.bool_], probability_RC: NDArray[np.float64], decision_RC: NDArray[np.bool_]) -> Quality:
    """Return how good probabilities are, and decisions, which may be of other thresholds than .5."""
    eps = np.finfo(np.float64).tiny
    likelihood_RC = np.where(truth_RC, probability_RC, 1 - probability_RC)
    bins = reliability(truth_RC, probability_RC)
    return Quality(
        nll=float(-np.log(np.maximum(likelihood_RC, eps)).mean()),
        brier=float(((probability_RC - truth_RC) ** 2).mean()),
        ece=calibration_error(bins),
        macro_f1=macro_f1(truth_RC, decision_RC),
        bins=tuple(bins),
    )


def macro_f1(truth_RC: NDArray[np.bool_], decision_RC: NDArray[np.bool_]) -> float:
    """Return the mean F1 over the species that are heard; NaN when none is."""
    right_C, support_C = (truth_RC & decision_RC).sum(axis=0), truth_RC.sum(axis=0)
    is_heard_C = support_C > 0
    f1_C = 2 * right_C[is_heard_C] / (support_C + decision_RC.sum(axis=0))[is_heard_C]
    return float(f1_C.mean()) if len(f1_C) else float("nan")
