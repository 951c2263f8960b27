"""Successive halving at rungs: the lower share stops once enough have arrived, and goes on when it turns out not to be lower."""

import math
import random
from dataclasses import replace

import pytest

from birdclef_core.errors import InputError
from birdclef_core.recipes import cnn_b0ns, sed_v2s
from sweeps.objective import CPU_SECONDS
from sweeps.schedule.pruning import (
    Rung,
    RungScore,
    StageHalving,
    StageVerdicts,
    Stopped,
    chosen_pruning,
    make_pruning,
    rung_at,
)
from sweeps.search import Search

STAGE = sed_v2s().stages[2]
END = Rung("train_ce", kind="train_ce target ce")


def at(rung: Rung, stage_id: str, score: float, error: float = 0.0, ancestors=()) -> RungScore:
    return RungScore(rung=rung, stage_id=stage_id, score=score, error=error, ancestors=ancestors)


def why(pruning: StageHalving, rung: Rung, stage_id: str, score: float, error: float = 0.0, ancestors=()) -> str:
    """Why a stage with that score stops; empty when it goes on."""
    stopped = pruning.judge(at(rung, stage_id, score, error, ancestors))
    return stopped.reason if stopped else ""


def judge(pruning: StageHalving, *scores: float, rung: Rung = END) -> list[str]:
    return [why(pruning, rung, f"{rung.name}-{score}-{index}", score) for index, score in enumerate(scores)]


def test_nobody_stops_during_the_grace():
    assert judge(StageHalving(grace=4), 0.9, 0.5, 0.1) == ["", "", ""]


def test_the_lower_half_stops_and_the_message_says_why():
    pruning = StageHalving(grace=4)
    judge(pruning, 0.9, 0.5, 0.1)
    assert why(pruning, END, "fourth", 0.6) == ""
    assert "at the end of train_ce its 0.400 was below 0.500, the best 50% of 5 stages" in why(pruning, END, "fifth", 0.4)
    assert pruning.stopped["fifth"].score == 0.4


def test_rungs_are_at_the_end_and_in_the_middle_of_long_stages():
    assert rung_at(STAGE, 3, 3) == END
    assert rung_at(STAGE, 1, 3) is None
    middle = rung_at(STAGE, 30, 60)
    assert middle.keep > END.keep
    assert middle != rung_at(STAGE, 30, 61), "another schedule is another rung"
    assert rung_at(STAGE, 29, 60) is None
    assert rung_at(STAGE, 5, 10) is not None and rung_at(STAGE, 4, 9) is None, "a stage is long from 10 epochs on"


def test_stages_are_not_compared_with_each_other():
    pruning = StageHalving(grace=2)
    judge(pruning, 0.9, 0.95)
    others = sed_v2s().stages[1], replace(STAGE, label_space="all"), replace(STAGE, loss="bce")
    for config in others:
        assert judge(pruning, 0.1, rung=rung_at(config, 3, 3)) == [""]
        assert judge(pruning, 0.1, rung=rung_at(config, 30, 60)) == [""]
    assert judge(pruning, 0.1, rung=rung_at(replace(STAGE, learning_rate=1e-3), 3, 3)) != [""]


def test_a_stage_says_what_it_is_compared_with():
    """Stages of different names, where they say so and have label space and loss in common; or nothing, which stops no trial."""
    pruning = StageHalving(grace=2)
    student = replace(STAGE, name="student", compared_with="train_ce")
    judge(pruning, 0.9, 0.95)
    assert "at the end of student its 0.100 was below" in judge(pruning, 0.1, rung=rung_at(student, 3, 3))[0]
    assert judge(pruning, 0.1, rung=rung_at(replace(student, loss="bce"), 3, 3)) == [""]
    alone = replace(STAGE, compared_with="nothing")
    assert rung_at(alone, 3, 3) is None and rung_at(alone, 30, 60) is None
    with pytest.raises(InputError, match="compared_with must be of small letters"):
        replace(STAGE, compared_with="Train CE")


def test_a_stage_that_many_trials_share_counts_once():
    pruning = StageHalving(grace=3)
    assert [why(pruning, END, "shared", 0.9) for _ in range(5)] == [""] * 5
    assert why(pruning, END, "second", 0.1) == ""


def test_equal_scores_all_go_on():
    assert judge(StageHalving(grace=2), 0.5, 0.5, 0.5, 0.5) == [""] * 4


def test_a_score_that_is_not_a_number_stops_and_is_not_remembered():
    pruning = StageHalving(grace=2)
    assert "nan" in why(pruning, END, "first", float("nan"))
    pruning.add(at(END, "of an earlier driver", float("nan")))
    assert judge(pruning, 0.1, 0.2) == ["", ""]


def test_what_was_stopped_goes_on_when_later_ones_are_worse():
    pruning = StageHalving(grace=2)
    judge(pruning, 0.9, 0.9, 0.9)
    assert why(pruning, END, "middling", 0.7)
    assert pruning.take_risen() == []
    judge(pruning, 0.1, 0.2, 0.3)
    assert pruning.take_risen() == ["middling"]
    assert pruning.take_risen() == []
    assert "middling" not in pruning.stopped


def test_rising_at_another_rung_does_not_let_a_stage_go_on():
    pruning, middle = StageHalving(grace=2), rung_at(STAGE, 30, 60)
    assert why(pruning, middle, "s", 0.5) == ""
    judge(pruning, 0.9, 0.8, 0.7, rung=middle)
    judge(pruning, 0.9, 0.8, 0.7)
    assert why(pruning, END, "s", 0.5)
    assert "s" not in [stage_id for _, stage_id in pruning._scores[middle].upper]
    judge(pruning, 0.1, rung=middle)
    assert "s" in [stage_id for _, stage_id in pruning._scores[middle].upper], "it rises in the middle"
    assert "s" in pruning.stopped and "s" not in pruning.take_risen()
    judge(pruning, 0.4, 0.3, 0.2, 0.1)
    assert "s" in pruning.take_risen(), "it rises at the end, where it was stopped"


def test_verdicts_name_the_first_stage_of_a_chain_that_failed_or_stopped():
    verdicts = StageVerdicts(StageHalving(grace=1))
    assert verdicts.failure(["a", "b"]) == "" and verdicts.stopped(["a", "b"]) is None
    verdicts.add_failure("b", "loss is not finite")
    assert verdicts.failure(["a", "b"]) == "loss is not finite" and verdicts.failure(["a"]) == ""
    assert verdicts.pruning.judge(at(END, "good", 0.9)) is None
    stopped = verdicts.pruning.judge(at(END, "poor", 0.1))
    assert stopped is not None and stopped.score == 0.1
    assert verdicts.stopped(["good", "poor"]) is stopped


@pytest.mark.parametrize("epochs", [(0, 0), (30, 60)])
def test_in_the_end_exactly_the_upper_share_may_go_on(epochs):
    """Whatever the order of arrival: the cut is that of sorting all scores, and nobody above it stays stopped."""
    pruning, rung, generator = StageHalving(grace=1), Rung("train_ce", *epochs), random.Random(0)
    scores = {f"s{index}": generator.random() for index in range(101)}
    for stage_id, score in scores.items():
        why(pruning, rung, stage_id, score)
    best = sorted(scores, key=lambda stage_id: -scores[stage_id])
    kept = math.ceil(len(scores) * rung.keep)
    assert not set(best[:kept]) & set(pruning.stopped)


def test_the_stage_that_completes_the_grace_may_be_stopped():
    assert [bool(reason) for reason in judge(StageHalving(grace=4), 0.9, 0.5, 0.6, 0.1)] == [False, False, False, True]


def test_a_shared_stage_that_is_judged_again_takes_no_place_of_another():
    pruning = StageHalving(grace=2)
    assert [why(pruning, END, "shared", 0.9) for _ in range(3)] == [""] * 3
    assert why(pruning, END, "second", 0.8)
    judge(pruning, 0.1)
    assert pruning.take_risen() == ["second"], "it is among the better half of three"


def test_an_earlier_drivers_verdict_holds_unless_the_scores_say_otherwise():
    pruning = StageHalving(grace=2)
    judge(pruning, 0.9, 0.1, 0.2, 0.1)
    good, poor, undefined = (
        Stopped(stage_id=name, rung=END, score=score, reason=f"what was said of {name}")
        for name, score in (("good", 0.8), ("poor", 0.05), ("undefined", math.nan))
    )
    for stopped in (good, poor, undefined):
        pruning.recall(stopped)
    assert pruning.take_risen() == ["good"]
    assert "good" not in pruning.stopped and pruning.stopped["poor"] is poor and pruning.stopped["undefined"] is undefined


def test_a_stage_stops_only_where_its_score_is_below_the_cut_by_more_than_its_standard_error():
    pruning = StageHalving(grace=2)
    judge(pruning, 0.9, 0.8, 0.5)
    assert why(pruning, END, "within", 0.78, error=0.03) == ""
    reason = why(pruning, END, "beyond", 0.7, error=0.03)
    assert "its 0.700 was below 0.780, the best 50% of 5 stages, by more than its standard error of 0.030" in reason


def test_a_stopped_stage_goes_on_once_the_cut_is_within_its_standard_error():
    pruning = StageHalving(grace=2)
    judge(pruning, 0.9, 0.85, 0.8, 0.75, 0.65)
    assert why(pruning, END, "noisy", 0.6, error=0.1) and why(pruning, END, "sure", 0.61)
    judge(pruning, 0.1)
    assert not {"noisy", "sure"} & set(pruning.take_risen()), "the cut is .75"
    judge(pruning, 0.11)
    assert "noisy" in pruning.take_risen() and "sure" in pruning.stopped, "the cut is .65, and the noisy one may be as good"


def test_a_stage_is_judged_by_the_scores_that_are_known_when_it_is_asked_for():
    """It was the first of its kind and went on; nobody draws from it once others are better."""
    pruning = StageHalving(grace=2)
    assert why(pruning, END, "first", 0.3) == ""
    judge(pruning, 0.9, 0.8, 0.7)
    assert "first" not in pruning.stopped, "nothing has asked"
    assert pruning.verdict("first") is not None and "first" in pruning.stopped
    assert pruning.verdict("a stage without a score") is None


LAST = Rung("finetune", kind="finetune target bce")


def test_a_stage_goes_on_when_one_that_was_trained_from_it_is_among_the_better():
    """Its own first score was poor; what came of it is not."""
    pruning = StageHalving(grace=2)
    assert why(pruning, END, "parent", 0.3) == ""
    judge(pruning, 0.9, 0.8, 0.7)
    assert pruning.verdict("parent") is not None
    judge(pruning, 0.5, 0.4, rung=LAST)
    assert why(pruning, LAST, "poor child", 0.1, ancestors=["parent"])
    assert pruning.verdict("parent") is not None
    assert why(pruning, LAST, "child", 0.6, ancestors=["root", "parent"]) == ""
    assert "parent" in pruning.take_risen() and pruning.verdict("parent") is None
    judge(pruning, 0.95, 0.96)
    assert pruning.verdict("parent") is None, "also when others are better still"


def test_a_child_proves_its_parent_as_soon_as_enough_have_been_scored_and_not_before():
    pruning = StageHalving(grace=3)
    why(pruning, END, "parent", 0.3)
    judge(pruning, 0.9, 0.8, 0.7)
    assert pruning.verdict("parent") is not None
    why(pruning, LAST, "child", 0.6, ancestors=["parent"])
    judge(pruning, 0.5, rung=LAST)
    assert "parent" not in pruning.take_risen()
    judge(pruning, 0.4, rung=LAST)
    assert "parent" in pruning.take_risen()


def test_a_child_that_comes_to_be_among_the_better_later_proves_its_parent_then():
    pruning = StageHalving(grace=2)
    why(pruning, END, "parent", 0.3)
    judge(pruning, 0.9, 0.8, 0.7)
    assert pruning.verdict("parent") is not None
    judge(pruning, 0.9, 0.8, rung=LAST)
    assert why(pruning, LAST, "child", 0.6, ancestors=["parent"])
    judge(pruning, 0.1, 0.2, 0.3, rung=LAST)
    assert {"child", "parent"} <= set(pruning.take_risen())


def test_a_stage_that_was_stopped_in_its_middle_is_judged_by_its_end_once_another_sweep_has_trained_it():
    pruning, middle = StageHalving(grace=2), rung_at(STAGE, 30, 60)
    judge(pruning, *(0.9 - index / 100 for index in range(8)), rung=middle)
    judge(pruning, 0.9, 0.5, 0.4)
    assert why(pruning, middle, "good", 0.1) and why(pruning, middle, "poor", 0.1)
    pruning.take_risen()
    pruning.add(at(END, "poor", 0.2))
    assert "poor" not in pruning.take_risen() and pruning.stopped["poor"].rung == END
    pruning.add(at(END, "good", 0.8))
    assert "good" in pruning.take_risen() and "good" not in pruning.stopped


def test_the_sampler_that_knows_stages_stops_by_worth_and_others_by_rank():
    assert [chosen_pruning(None, search_with(sampler)) for sampler in ("stage", "tpe")] == ["worth", "halving"]
    assert [chosen_pruning(name, search_with("stage")) for name in ("worth", "halving", "off")] == ["worth", "halving", "off"]
    with pytest.raises(InputError, match="--pruning worth needs the sampler 'stage', but the search has 'random'"):
        chosen_pruning("worth", search_with("random"))


def test_with_a_cost_nothing_stops_by_its_score_alone():
    """A cheap model has lower scores than a large one at every rung, and is asked for all the same."""
    objective = f"val/cmap, {CPU_SECONDS}"
    assert [chosen_pruning(None, search_with(sampler, objective)) for sampler in ("stage", "tpe")] == ["worth", "off"]
    for sampler in ("stage", "tpe"):
        with pytest.raises(
            InputError, match=r"--pruning halving compares scores alone, so .* that val/cmap, cost/cpu_seconds_10min asks"
        ):
            chosen_pruning("halving", search_with(sampler, objective))


def search_with(sampler: str, objective: str | None = None) -> Search:
    return Search(name="x", recipes=(cnn_b0ns(),), space={}, sampler=sampler, objective=objective)


@pytest.mark.parametrize(("name", "stops"), [("halving", True), ("worth", False), ("off", False)])
def test_only_halving_stops_by_rank(name, stops):
    pruning = make_pruning(name)
    assert bool(judge(pruning, 0.9, 0.8, 0.7, 0.6, 0.1)[-1]) == stops
    assert why(pruning, END, "no number", math.nan), "what has no score stops in any case"
