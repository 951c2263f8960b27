"""Costs are epochs times clips times their length, at the rate of what was measured."""

from dataclasses import replace

import pytest
from made_up_facts import trial_of

from birdclef_core.recipes import cnn_b0ns, sed_v2s
from sweeps.sampling.stage_costs import StageCosts
from sweeps.search import Choice, Range, Search

SEARCH = Search(
    name="x",
    recipes=(sed_v2s(), cnn_b0ns()),
    space={
        "train_ce.epochs": Range(10, 60, step=10),
        "train_ce.learning_rate": Range(1e-4, 1e-2, log=True),
        "pretrain.clip_s": Choice((5.0, 10.0)),
    },
)
POINT = {"train_ce.epochs": 60, "train_ce.learning_rate": 1e-3, "pretrain.clip_s": 10.0}


def learnt(*trials, search: Search = SEARCH) -> StageCosts:
    costs = StageCosts(search)
    costs.learn(trials)
    return costs


def test_before_anything_is_measured_costs_are_in_units_of_work():
    costs = learnt()
    whole = costs.remaining("sed_v2s", POINT, 0)
    parts = [costs.remaining("sed_v2s", POINT, depth) for depth in range(6)]
    assert not costs.known and parts == sorted(parts, reverse=True) and parts[5] == 0
    assert (whole - parts[1]) / (parts[1] - parts[2]) == pytest.approx(70 / 40), "epochs of pretraining"
    shorter = costs.remaining("sed_v2s", {**POINT, "pretrain.clip_s": 5.0}, 0)
    assert whole - shorter == pytest.approx((whole - parts[2]) / 2)


def test_the_rate_is_that_of_the_same_stage_then_of_the_recipe_then_of_all():
    trial = trial_of(SEARCH, 0, "sed_v2s", POINT, [0.1, 0.1], spent_s=[700.0, 800.0, 5.0, 0.0, 0.0])
    costs = learnt(trial)
    assert costs.known
    assert costs.remaining("sed_v2s", POINT, 0) - costs.remaining("sed_v2s", POINT, 1) == pytest.approx(700)
    fewer = {**POINT, "pretrain.clip_s": 5.0}
    assert costs.remaining("sed_v2s", fewer, 1) - costs.remaining("sed_v2s", fewer, 2) == pytest.approx(400)
    rate = 1500 / (70 + 40)
    train_ce = costs.remaining("sed_v2s", POINT, 2) - costs.remaining("sed_v2s", POINT, 3)
    assert train_ce == pytest.approx(60 * rate), "an unfinished stage does not count"
    assert costs.remaining("cnn_b0ns", {"train_ce.epochs": 50}, 0) == pytest.approx(50 * 2 * rate), "clips of 20 s and not of 10"


def test_a_stage_that_many_trials_share_counts_once_whoever_has_spent_it():
    own = trial_of(SEARCH, 0, "sed_v2s", POINT, [0.1], spent_s=[700.0, 0.0, 0.0, 0.0, 0.0])
    reuses = replace(own, trial="t0001", spent_s=[0.0] * 5, reused_s=[7000.0, 0, 0, 0, 0])
    other = {**POINT, "pretrain.clip_s": 5.0}
    another = trial_of(SEARCH, 2, "sed_v2s", other, [0.1], spent_s=[0.0] * 5, reused_s=[350.0, 0, 0, 0, 0])
    for trials in ((own, reuses), (own, reuses, another), (another,)):
        costs = learnt(*trials)
        assert costs.remaining("sed_v2s", POINT, 0) - costs.remaining("sed_v2s", POINT, 1) == pytest.approx(700)


def test_an_encoder_has_its_own_rate():
    search = replace(
        SEARCH,
        recipes=(sed_v2s(),),
        space={
            **SEARCH.space,
            "model.encoder": Choice(("resnet18d.ra2_in1k", "tf_efficientnetv2_s.in21k", "resnet34d.ra2_in1k")),
        },
    )
    slow, fast, unseen = ({**POINT, "model.encoder": name} for name in search.space["model.encoder"].values[::-1])
    trials = [
        trial_of(search, number, "sed_v2s", params, [0.1] * 5, spent_s=[seconds] * 5)
        for number, (params, seconds) in enumerate(((slow, 900.0), (fast, 100.0)))
    ]
    costs = learnt(*trials, search=search)
    assert costs.remaining("sed_v2s", slow, 4) == pytest.approx(900) and costs.remaining("sed_v2s", fast, 4) == pytest.approx(100)
    assert costs.remaining("sed_v2s", unseen, 4) == pytest.approx(500), "what the stage costs with the others"
    assert set(costs.keys["sed_v2s"]) == {"train_ce.epochs", "pretrain.clip_s", "model.encoder"}


def test_variants_and_inactive_parameters_count_by_what_they_make():
    search = replace(
        SEARCH,
        recipes=(sed_v2s(),),
        space={"pretrain_ce.epochs": Choice((35, 70)), "train_ce.epochs": Range(10, 60, step=10, when="train_ce.clip_s > 99")},
        pools={"pretrain": 4},
    )
    costs, recipe = learnt(search=search), search.recipes[0]
    for variant in range(4):
        epochs = search.stages(recipe, {"pretrain.variant": variant})[0].epochs
        cost = costs.remaining("sed_v2s", {"pretrain.variant": variant}, 0) - costs.remaining(
            "sed_v2s", {"pretrain.variant": variant}, 1
        )
        assert cost == pytest.approx(epochs * 10 * 10_000)


def test_values_that_break_a_rule_together_end_nothing():
    """Candidates are rated before it is asked whether they are allowed."""
    space = {
        "train_ce.epochs": Choice((20, 60)),
        "model.spectrogram.f_min_hz": Choice((0.0, 9000.0)),
        "model.spectrogram.f_max_hz": Choice((8000.0, 16000.0)),
    }
    search = replace(SEARCH, recipes=(sed_v2s(),), space=space)
    params = {"train_ce.epochs": 20, "model.spectrogram.f_min_hz": 9000.0, "model.spectrogram.f_max_hz": 8000.0}
    assert search.problem(search.recipes[0], params)
    assert learnt(search=search).remaining("sed_v2s", params, 0) > 0
