"""The three scores say what they are named by, and simpler ways of combining stand beside the ensemble."""

from dataclasses import replace

import numpy as np
import pytest
from made_up_ensembles import made_up_rows

from birdclef_core.ensemble.parts import parts_of
from birdclef_core.ensemble.scores import (
    ENSEMBLE,
    EQUAL,
    EQUAL_BEST,
    EQUAL_MEMBERS,
    OF_RECIPES,
    SINGLE,
    Problem,
    judge,
    score_of,
)
from birdclef_core.ensemble.selection import Rules
from birdclef_core.evaluation.metrics import auroc, cmap


def problem(rows, *, rules=None, weights=None, metric="auroc") -> Problem:
    count = len(rows.logits_KRC)
    return Problem(
        rows=rows,
        metric=metric,
        cost=lambda members: 10.0 * len(members),
        rules=rules or Rules(),
        recipes=[f"recipe{candidate % 2}" for candidate in range(count)],
        recipe_weights=weights or [None] * count,
    )


@pytest.fixture(scope="module")
def rows():
    return made_up_rows(own=(1.0, 1.1, 1.2, 1.3))


@pytest.fixture(scope="module")
def verdict(rows):
    return judge(problem(rows, weights=[0.75, 0.25] * 2), made_up_rows(own=(1.0, 1.1, 1.2, 1.3), seed=5))


def test_an_ensemble_is_judged_beside_simpler_ways(rows, verdict):
    assert [way.name for way in verdict.ways] == [ENSEMBLE, SINGLE, EQUAL_BEST, EQUAL, EQUAL_MEMBERS, OF_RECIPES]
    assert dict(verdict.way(EQUAL).members) == dict.fromkeys(range(4), 0.25)
    assert dict(verdict.way(OF_RECIPES).members) == {0: 0.75, 1: 0.25}, "the best of each recipe"
    best = int(np.argmax(verdict.selected.singles))
    assert verdict.way(SINGLE).members == ((best, 1.0),) and verdict.way(SINGLE).cost_ms == 10
    mean_RC = rows.logits_KRC.mean(axis=0)
    assert verdict.way(EQUAL).scores.apparent.value == pytest.approx(auroc(rows.truth_RC, mean_RC), abs=1e-6)


def test_a_way_that_chooses_nothing_scores_the_same_cross_fitted(verdict):
    scores = verdict.way(EQUAL).scores
    assert scores.cross_fitted.value == pytest.approx(scores.apparent.value, abs=1e-9)


def test_each_part_is_predicted_by_what_was_chosen_without_it(rows):
    """Each of four candidates knows the answers in one part: whoever chose with it would choose that candidate."""
    part_R = parts_of(rows.group_R)
    logits_KRC = np.random.default_rng(1).normal(0, 1, (4, *rows.truth_RC.shape)).astype(np.float32)
    for candidate in range(4):
        logits_KRC[candidate][part_R == candidate] += 4 * rows.truth_RC[part_R == candidate]
    known = replace(rows, logits_KRC=logits_KRC)
    single = judge(problem(known, rules=Rules(max_members=1, bag_share=1.0)), "none").way(SINGLE).scores
    assert single.apparent.value > 0.6
    assert single.cross_fitted.value < 0.8
    by_hand_RC = np.empty_like(logits_KRC[0])
    for part in range(4):
        others = part_R != part
        best = max(range(4), key=lambda candidate: auroc(rows.truth_RC[others], logits_KRC[candidate][others]))
        assert best != part
        by_hand_RC[~others] = logits_KRC[best][~others]
    assert single.cross_fitted.value == pytest.approx(auroc(rows.truth_RC, by_hand_RC), abs=1e-9)


def test_the_apparent_score_is_too_good_and_the_cross_fitted_one_is_not():
    """Many candidates that are alike, few windows to choose by, and many that nobody has seen."""
    apparent, cross_fitted, never_seen = [], [], []
    for seed in range(4):
        seen = made_up_rows(own=(2.0,) * 10, files=8, windows=8, seed=seed)
        unseen = made_up_rows(own=(2.0,) * 10, files=10, windows=60, seed=seed + 100)
        way = judge(problem(seen), "none").way(ENSEMBLE)
        apparent.append(way.scores.apparent.value)
        cross_fitted.append(way.scores.cross_fitted.value)
        never_seen.append(auroc(unseen.truth_RC, unseen.mixture(way.members)))
    truth = np.mean(never_seen)
    assert np.mean(apparent) - truth > 0.03
    assert abs(np.mean(cross_fitted) - truth) < 0.015


def test_untouched_data_are_scored_by_what_is_usual_there(verdict):
    untouched = verdict.way(ENSEMBLE).scores.untouched
    other = made_up_rows(own=(1.0, 1.1, 1.2, 1.3), seed=5)
    assert untouched.value == pytest.approx(auroc(other.truth_RC, other.mixture(verdict.selected.members)), abs=1e-6)
    assert untouched.num_rows == 320 and untouched.error > 0


def test_without_untouched_data_it_says_so(rows):
    untouched = judge(problem(rows), "there are none").way(ENSEMBLE).scores.untouched
    assert untouched.value is None and untouched.reason == "no untouched data: there are none"
    assert untouched.source == "recordings" and untouched.metric == "cmap"


def test_with_one_file_nothing_is_cross_fitted():
    verdict = judge(problem(made_up_rows(own=(1.0, 1.0), files=1, windows=100)), "none")
    scores = verdict.way(ENSEMBLE).scores
    assert scores.cross_fitted.value is None and scores.cross_fitted.reason == "all rows are of one soundscape file"
    assert scores.apparent.value is not None and "no error is known" in scores.apparent.reason
    assert verdict.first[0].cross_fitted is None


def test_the_first_members_are_points_of_the_curve(rows, verdict):
    assert [len(point.members) for point in verdict.first] == list(range(1, len(verdict.selected.members) + 1))
    assert [point.apparent for point in verdict.first] == list(verdict.selected.scores)
    whole = verdict.way(ENSEMBLE).scores
    assert verdict.first[-1].cross_fitted == pytest.approx(whole.cross_fitted.value)
    assert verdict.first[-1].apparent == pytest.approx(whole.apparent.value, abs=1e-6)
    assert [point.apparent for point in verdict.singles] == list(verdict.selected.singles)


def test_the_gain_of_each_species_is_that_of_its_average_precision(rows, verdict):
    assert len(verdict.species) == rows.truth_RC.shape[1]
    gains = [gain.ensemble - gain.single for gain in verdict.species]
    assert gains == sorted(gains, reverse=True)
    assert all(gain.num_rows == rows.truth_RC[:, gain.species].sum() for gain in verdict.species)


def test_candidates_that_are_alike_correlate():
    logits_KRC = made_up_rows(own=(1.0, 1.0)).logits_KRC
    alike = np.concatenate([logits_KRC, 2 * logits_KRC[:1] + 3, -logits_KRC[:1]])
    rows = made_up_rows(own=(1.0, 1.0), logits_KRC=alike)
    correlation_KK = judge(problem(rows), "none").correlation_KK
    assert np.allclose(np.diag(correlation_KK), 1, atol=1e-4)
    assert correlation_KK[0, 2] == pytest.approx(1, abs=1e-4) and correlation_KK[0, 3] == pytest.approx(-1, abs=1e-4)
    assert 0.1 < correlation_KK[0, 1] < 0.7


def test_a_score_without_anything_to_find_has_a_reason(rows):
    empty = replace(rows, truth_RC=np.zeros_like(rows.truth_RC))
    score = score_of(empty, rows.logits_KRC[0], "cmap")
    assert score.value is None and "no species is heard" in score.reason
    full = score_of(rows, rows.logits_KRC[0], "cmap")
    assert full.value == pytest.approx(cmap(rows.truth_RC, 1 / (1 + np.exp(-rows.logits_KRC[0].astype(np.float64)))))


def test_a_simpler_way_that_scores_more_is_named(rows, verdict):
    own = verdict.way(ENSEMBLE).scores.cross_fitted.value
    scores = {way.name: way.scores.cross_fitted.value for way in verdict.ways}
    best = max(scores, key=scores.__getitem__)
    assert (verdict.better is None) == (scores[best] <= own)
    poor = judge(problem(rows, rules=Rules(max_members=1)), "none")
    assert poor.better is not None and poor.better.name in (EQUAL, EQUAL_BEST)
    assert judge(problem(made_up_rows(own=(1.0, 1.0), files=1)), "none").better is None
