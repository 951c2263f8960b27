"""How much parameters matter."""

from dataclasses import replace

import pytest
from made_up_sweep import made_up_sweep

from sweeps.report.page.importance import MIN_TRIALS, final_scores, importances


@pytest.fixture(scope="module")
def sweep():
    record, trials = made_up_sweep(200)
    return record.parts[0].search.space, trials


def test_what_makes_the_scores_comes_first_and_what_does_nothing_is_no_better_than_chance(sweep):
    space, trials = sweep
    found = importances(trials, final_scores(trials), space)
    assert [item.name for item in found.parameters[:2]] == ["train_ce.learning_rate", "recipe"]
    by_name = {item.name: item for item in found.parameters}
    assert by_name["train_ce.learning_rate"].low > by_name["recipe"].high > by_name["recipe"].low > 2 * found.chance
    assert by_name["model.drop_rate"].share < 2 * found.chance < 0.05
    assert all(item.low <= item.share <= item.high for item in found.parameters)
    assert 0.5 < found.explained < 1 and found.num_finished + found.num_stopped > 150


def test_a_stopped_trial_counts_with_the_score_that_others_came_to_from_there(sweep):
    _, trials = sweep
    scores = final_scores(trials)
    finished = [trial for trial in trials if trial.score is not None]
    stopped = [trial for trial in trials if trial.status == "pruned"]
    assert all(scores[trial.trial] == trial.score for trial in finished)
    # The made-up score of an earlier stage is .05 lower for each stage that is missing.
    for trial in stopped:
        missing = len(trial.stages) - 1 - trial.stages.index(trial.stopped.rung.stage)
        assert scores[trial.trial] == pytest.approx(trial.stopped.score + 0.05 * missing, abs=0.07)
    assert set(final_scores([*finished[:4], *stopped])) == {trial.trial for trial in finished[:4]}, "too few have been there"


def test_a_trial_that_went_on_after_a_stop_counts_once(sweep):
    _, trials = sweep
    stopped = next(trial for trial in trials if trial.status == "pruned")
    risen = replace(stopped, status="finished", score=0.9)
    assert final_scores([risen if trial is stopped else trial for trial in trials])[stopped.trial] == 0.9


def test_nothing_is_said_of_few_trials_or_of_equal_scores(sweep):
    space, trials = sweep
    scores = final_scores(trials)
    few = [trial for trial in trials if trial.trial in scores][: MIN_TRIALS - 1]
    assert importances(few, scores, space) is None
    assert importances(trials, dict.fromkeys(scores, 0.5), space) is None
