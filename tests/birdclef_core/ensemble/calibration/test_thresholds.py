"""Thresholds are the best that trying all of them finds, and a species with few positives has that of all."""

import numpy as np
import pytest
from made_up_labels import drawn
from scipy.stats import binomtest

from birdclef_core.ensemble.calibration.thresholds import (
    NEVER,
    Target,
    best_threshold,
    choose,
    cross_fit_decisions,
    threshold_table,
    wilson_lower,
)
from birdclef_core.errors import InputError
from birdclef_core.inference.results.species_files import read_thresholds

F1 = Target()


def f1(truth_N, taken_N) -> float:
    return 2 * (truth_N & taken_N).sum() / (truth_N.sum() + taken_N.sum())


def precision(truth_N, taken_N) -> float:
    return (truth_N & taken_N).sum() / taken_N.sum()


@pytest.mark.parametrize("seed", range(5))
def test_a_threshold_is_as_good_as_the_best_of_all(seed):
    truth_RC, logits_RC = drawn(200, (-1.0,), seed=seed)
    truth_N, score_N = truth_RC[:, 0], np.round(1 / (1 + np.exp(-logits_RC[:, 0])), 2)  # many are equal
    tried = np.unique(score_N)
    found = best_threshold(truth_N, score_N, F1)
    assert f1(truth_N, score_N >= found) == max(f1(truth_N, score_N >= value) for value in tried)
    assert found not in tried or found == tried[0], "in the middle between two scores"
    found = best_threshold(truth_N, score_N, Target(0.8))
    reaching = [value for value in tried if precision(truth_N, score_N >= value) >= 0.8]
    assert (score_N >= found).sum() == max((score_N >= value).sum() for value in reaching)


def test_where_nothing_reaches_the_target_nothing_is_detected():
    truth_N, score_N = np.array([False, True, False]), np.array([0.9, 0.5, 0.1])
    assert best_threshold(truth_N, score_N, Target(0.9)) == NEVER
    assert best_threshold(np.zeros(3, bool), score_N, F1) == NEVER
    thresholds = choose(np.zeros((3, 1), bool), np.ones((3, 1)), F1)
    assert not thresholds.decide(np.ones((3, 1))).any()


def test_species_with_few_positives_share_the_threshold_of_all():
    truth_RC, logits_RC = drawn(300, (0.0, 1.0, -1.0))
    truth_RC[np.flatnonzero(truth_RC[:, 1])[9:], 1] = False
    truth_RC[np.flatnonzero(truth_RC[:, 2])[10:], 2] = False
    score_RC = 1 / (1 + np.exp(-logits_RC))
    found = choose(truth_RC, score_RC, F1)
    assert found.support_C[1:].tolist() == [9, 10] and found.is_own_C.tolist() == [True, False, True]
    assert found.threshold_C[1] == found.threshold == best_threshold(truth_RC.ravel(), score_RC.ravel(), F1)
    assert found.threshold_C[0] == best_threshold(truth_RC[:, 0], score_RC[:, 0], F1)


def test_decisions_on_a_part_are_made_by_the_others():
    truth_RC, logits_RC = drawn(400, (0.0, -1.0))
    score_RC, part_R = 1 / (1 + np.exp(-logits_RC)), np.arange(400) % 4
    first_RC = cross_fit_decisions(truth_RC, score_RC, part_R, F1)
    changed_RC = np.where((part_R == 1)[:, None], False, truth_RC)
    assert (cross_fit_decisions(changed_RC, score_RC, part_R, F1)[part_R == 1] == first_RC[part_R == 1]).all()


@pytest.mark.parametrize(("right", "taken"), [(0, 5), (5, 5), (7, 10), (90, 100), (1, 1)])
def test_the_lower_end_of_a_share_is_wilsons(right, taken):
    expected = binomtest(right, taken).proportion_ci(method="wilson").low
    assert wilson_lower(right, taken) == pytest.approx(expected, abs=1e-4)


def test_of_nothing_nothing_is_known():
    assert wilson_lower(0, 0) == 0.0


def test_predict_reads_the_table(tmp_path):
    truth_RC, logits_RC = drawn(300, (0.0, -5.0))
    score_RC = 1 / (1 + np.exp(-logits_RC))
    thresholds = choose(truth_RC, score_RC, F1)
    table = threshold_table(("alpha", "beta"), thresholds, truth_RC, thresholds.decide(score_RC))
    table.to_csv(tmp_path / "thresholds.csv", index=False)
    assert read_thresholds(tmp_path / "thresholds.csv") == dict(zip(("alpha", "beta"), thresholds.threshold_C, strict=True))
    alpha = table.iloc[0]
    assert alpha["chosen_by"] == "species" and alpha["support"] == truth_RC[:, 0].sum()
    assert alpha["precision_lower"] < alpha["precision"] == precision(truth_RC[:, 0], thresholds.decide(score_RC)[:, 0])


def test_targets_are_read_and_others_refused():
    assert Target.parse("f1") == F1 and Target.parse("precision=.9") == Target(0.9) == Target.parse("precision=0.90")
    assert str(Target.parse("precision=1")) == "precision=1"
    for text in ("F1", "precision", "precision=0", "precision=1.1", "precision=-1", "precision=nan", "recall=.9", ""):
        with pytest.raises(InputError, match="--target must be f1 or a precision"):
            Target.parse(text)
