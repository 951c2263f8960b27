"""Probabilities that are true as often as they say lie on the diagonal."""

import numpy as np
import pytest

from birdclef_core.evaluation.reliability import ReliabilityBin, calibration_error, reliability


def test_bins_hold_means_shares_and_counts():
    score = np.array([[0.02, 0.04], [0.95, 1.0], [0.0, 0.5]])
    truth = np.array([[0, 1], [1, 1], [0, 1]])
    bins = reliability(truth, score)
    assert [item.count for item in bins] == [3, 1, 2]
    assert [item.predicted for item in bins] == pytest.approx([0.02, 0.5, 0.975])
    assert [item.observed for item in bins] == pytest.approx([1 / 3, 1, 1])


def test_well_calibrated_scores_have_little_error_and_overconfident_ones_more():
    rng = np.random.default_rng(0)
    score = rng.random((2000, 20))
    truth = rng.random(score.shape) < score
    assert calibration_error(reliability(truth, score)) < 0.02
    assert calibration_error(reliability(rng.random(score.shape) < score / 2, score)) == pytest.approx(0.25, abs=0.02)


def test_the_error_weighs_bins_by_their_counts():
    assert calibration_error([ReliabilityBin(0.1, 0.2, 30), ReliabilityBin(0.9, 0.5, 10)]) == pytest.approx(0.175)
