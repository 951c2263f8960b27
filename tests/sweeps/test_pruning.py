"""Successive halving at stage ends: the lower half stops, once enough have arrived."""

from sweeps.pruning import StageHalving


def judge(pruning: StageHalving, stage: str, *scores: float) -> list[str]:
    return [pruning.judge(stage, f"{stage}-{score}-{index}", score) for index, score in enumerate(scores)]


def test_nobody_stops_during_the_grace():
    assert judge(StageHalving(grace=4), "train_ce", 0.9, 0.5, 0.1) == ["", "", ""]


def test_the_lower_half_stops_and_the_message_says_why():
    pruning = StageHalving(grace=4)
    judge(pruning, "train_ce", 0.9, 0.5, 0.1)
    assert pruning.judge("train_ce", "fourth", 0.6) == ""
    assert "0.400 was below 0.500, the best 50% of 5 stages" in pruning.judge("train_ce", "fifth", 0.4)


def test_stages_are_not_compared_with_each_other():
    pruning = StageHalving(grace=2)
    judge(pruning, "pretrain_ce", 0.9, 0.95)
    assert pruning.judge("pretrain_bce", "other", 0.1) == ""


def test_a_stage_that_many_trials_share_counts_once():
    pruning = StageHalving(grace=3)
    assert [pruning.judge("train_ce", "shared", 0.9) for _ in range(5)] == [""] * 5
    assert pruning.judge("train_ce", "second", 0.1) == ""


def test_equal_scores_all_go_on():
    assert judge(StageHalving(grace=2), "train_ce", 0.5, 0.5, 0.5, 0.5) == [""] * 4


def test_a_score_that_is_not_a_number_stops_and_is_not_remembered():
    pruning = StageHalving(grace=2)
    assert "nan" in pruning.judge("train_ce", "first", float("nan"))
    assert judge(pruning, "train_ce", 0.1, 0.2) == ["", ""]
