"""A calibration that is known is found again, and nothing of a part is used for that part."""

import numpy as np
import pytest
from made_up_labels import drawn
from sklearn.metrics import brier_score_loss, f1_score, log_loss

from birdclef_core.ensemble.calibration.fitting import cross_fit, fit, macro_f1, quality

INTERCEPTS = (-2.0, -1.0, 0.0, 1.0)


def test_a_known_calibration_is_found():
    fitted = fit(*drawn(20_000, INTERCEPTS))
    assert fitted.slope == pytest.approx(0.5, abs=0.01)
    np.testing.assert_allclose(fitted.intercept_C, INTERCEPTS, atol=0.07)


def test_species_that_are_all_rare_do_not_bend_the_slope():
    rare = tuple(intercept - 5.0 for intercept in INTERCEPTS)
    fitted = fit(*drawn(20_000, rare))
    assert fitted.slope == pytest.approx(0.5, abs=0.03)
    np.testing.assert_allclose(fitted.intercept_C, rare, atol=0.3)


def test_it_is_the_largest_penalised_likelihood():
    """The derivatives are those of the written formula, and vanish."""
    truth_RC, logits_RC = drawn(200, INTERCEPTS)
    fitted = fit(truth_RC, logits_RC)

    def loss(slope, intercept_C):
        z_RC = slope * logits_RC + intercept_C
        likelihood_RC = np.where(truth_RC, 1 / (1 + np.exp(-z_RC)), 1 / (1 + np.exp(z_RC)))
        # The mean with the largest likelihood, given the intercepts: its prior has a variance of 100.
        mean = np.sum(intercept_C) / (len(intercept_C) + 0.01)
        penalty = 0.5 * ((np.asarray(intercept_C) - mean) ** 2).sum() + 0.5 * 0.01 * mean**2
        return -np.log(likelihood_RC).sum() + penalty

    least = loss(fitted.slope, fitted.intercept_C)
    for change in (-1e-3, 1e-3):
        assert loss(fitted.slope + change, fitted.intercept_C) > least
        for column in range(len(INTERCEPTS)):
            assert loss(fitted.slope, fitted.intercept_C + change * np.eye(4)[column]) > least


def test_a_species_that_says_little_is_drawn_to_the_others():
    """A species of five rows without a positive has nearly the others' intercept; one of five thousand has its own."""
    truth_RC, logits_RC = drawn(5_000, (-1.0, -1.0, -1.0, 0.0))
    truth_RC[:, 3] = False
    few_RC = np.concatenate([logits_RC[:, :3], np.full((len(logits_RC), 1), -1e4)], axis=1)
    few_RC[:5, 3] = 0.0
    assert -2.0 < fit(truth_RC, few_RC).intercept_C[3] < -1.0
    assert fit(truth_RC, logits_RC).intercept_C[3] < -4


def test_where_nothing_is_heard_intercepts_are_finite():
    fitted = fit(np.zeros((50, 2), bool), np.zeros((50, 2)))
    assert (fitted.intercept_C < -3).all() and np.isfinite(fitted.intercept_C).all()


def test_a_detector_that_is_worse_than_chance_has_no_slope():
    truth_RC, logits_RC = drawn(500, INTERCEPTS, slope=-0.5)
    fitted = fit(truth_RC, logits_RC)
    assert fitted.slope == 0.0
    np.testing.assert_allclose(fitted.apply(logits_RC).mean(axis=0), truth_RC.mean(axis=0), atol=0.01)


def test_a_part_is_judged_by_what_the_others_say():
    truth_RC, logits_RC = drawn(400, INTERCEPTS)
    part_R = np.arange(400) % 4
    first_RC = cross_fit(truth_RC, logits_RC, part_R)
    changed_RC = np.where((part_R == 2)[:, None], ~truth_RC, truth_RC)
    second_RC = cross_fit(changed_RC, logits_RC, part_R)
    np.testing.assert_array_equal(first_RC[part_R == 2], second_RC[part_R == 2])
    assert (first_RC[part_R != 2] != second_RC[part_R != 2]).all()
    others = fit(truth_RC[part_R != 2], logits_RC[part_R != 2])
    np.testing.assert_array_equal(first_RC[part_R == 2], others.apply(logits_RC[part_R == 2]))


def test_figures_are_those_of_scikit_learn():
    truth_RC, logits_RC = drawn(300, INTERCEPTS)
    truth_RC[:, 3] = False
    probability_RC = 1 / (1 + np.exp(-logits_RC))
    found = quality(truth_RC, probability_RC, probability_RC >= 0.4)
    assert found.nll == pytest.approx(log_loss(truth_RC.ravel(), probability_RC.ravel()))
    assert found.brier == pytest.approx(brier_score_loss(truth_RC.ravel(), probability_RC.ravel()))
    assert found.macro_f1 == pytest.approx(f1_score(truth_RC[:, :3], probability_RC[:, :3] >= 0.4, average="macro"))
    assert 0 < found.ece < 1 and len(found.bins) == 10
    assert np.isfinite(quality(truth_RC, np.where(truth_RC, 0.0, 1.0), truth_RC).nll)
    assert np.isnan(macro_f1(np.zeros((2, 2), bool), np.zeros((2, 2), bool)))
