"""Candidates depart from the root and from published stages, near good trials and anywhere, and share what they really share."""

import random
from dataclasses import replace

import numpy as np
import pytest
from made_up_facts import facts_of, trial_of

from birdclef_core.recipes import cnn_b0ns, sed_v2s
from sweeps.sampling import candidates
from sweeps.sampling.candidates import (
    COMPLETIONS,
    MAX_PAUSED,
    NUM_BEST,
    PREFIXES_A_DEPTH,
    ROOT_CANDIDATES,
    CandidateMaker,
    KnownStages,
)
from sweeps.sampling.encoding import Encoding
from sweeps.search import Choice, Range, Search

SEARCH = Search(
    name="x",
    recipes=(sed_v2s(),),
    space={
        "pretrain_ce.learning_rate": Range(1e-4, 1e-2, log=True),
        "pretrain_bce.clip_s": Choice((5.0, 10.0)),
        "train_ce.head_transfer": Choice(("by_species", "drop")),
        "train_ce.learning_rate": Range(1e-4, 1e-2, log=True),
        "finetune.learning_rate": Range(1e-4, 1e-2, log=True),
    },
)
NAME = "sed_v2s"
EARLY = ("pretrain_ce.learning_rate", "pretrain_bce.clip_s")
BOTH = replace(SEARCH, recipes=(sed_v2s(), cnn_b0ns()))


def maker_of(search: Search) -> CandidateMaker:
    return CandidateMaker(search, Encoding(search))


def drawn(search: Search, count: int, num_scores: int = 5, *, seed: int = 0, recipe: str = NAME) -> list:
    generator = random.Random(seed)
    return [
        trial_of(search, number, recipe, search.draw(search.recipe(recipe), generator), [generator.random()] * num_scores)
        for number in range(count)
    ]


def every(maker: CandidateMaker, groups) -> list[tuple]:
    """Each candidate's group, index and parameters."""
    return [(group, index, maker.params(group, index)) for group in groups for index in range(len(group.place_CP))]


def test_from_the_root_half_lie_near_the_best_and_half_anywhere():
    maker, trials = maker_of(SEARCH), drawn(SEARCH, 20)
    (group,) = maker.from_root(facts_of(trials), np.random.default_rng(0))
    assert len(group.place_CP) == ROOT_CANDIDATES and (group.depth_C == 0).all()
    best = {trial.trial for trial in sorted(trials, key=lambda trial: -trial.final)[:NUM_BEST]}
    near = [trial for _, trial in group.origin if trial is not None]
    assert len(near) == ROOT_CANDIDATES // 2 and {trial.trial for trial in near} == best
    kept = moved = 0
    for _, index, params in every(maker, [group]):
        assert SEARCH.point_of(NAME, params) == params, "a point of the space"
        _, trial = group.origin[index]
        if trial is not None:
            same = sum(params[key] == trial.params[key] for key in params)
            assert same < 5 or not group.own_CP[index, [0, 3, 4]].any(), "only a choice that is drawn again may come out the same"
            kept, moved = kept + same, moved + 5 - same
            step = np.abs(group.place_CP[index] - maker._places_of(trial))[[0, 3, 4]]
            assert np.median(step) < 0.6
    assert kept > 80 and moved > 80
    numbers = group.place_CP[: ROOT_CANDIDATES // 2, 0]
    assert numbers.min() < 0.1 and numbers.max() > 0.9 and (group.place_CP >= 0).all() and (group.place_CP <= 1).all()


def test_every_recipe_gets_its_candidates_and_lies_near_its_own_trials():
    maker, trials = maker_of(BOTH), drawn(BOTH, 3, 1, recipe="cnn_b0ns")
    of_sed, of_cnn = maker.from_root(facts_of(trials), np.random.default_rng(0))
    assert (of_sed.recipe, of_cnn.recipe) == ("sed_v2s", "cnn_b0ns")
    assert len(of_sed.place_CP) == 40 and len(of_cnn.place_CP) == 40 + 80
    assert not any(near for _, near in of_sed.origin)


def test_completions_of_a_stage_have_its_early_parameters_and_their_own_late_ones():
    maker, trials = maker_of(SEARCH), drawn(SEARCH, 4, 2)
    groups = maker.from_stages(facts_of(trials), np.random.default_rng(0))
    assert [group.depth_C[0] for group in groups] == [1] * 4 + [2] * 4
    for group, index, params in every(maker, groups):
        given, depth = group.origin[index][0], group.depth_C[index]
        assert all(params[key] == given.params[key] for key in EARLY[:depth])
        assert group.score_C[index] == given.scores[depth - 1]
        assert params["train_ce.learning_rate"] != given.params["train_ce.learning_rate"]
    assert all(len(group.place_CP) == COMPLETIONS for group in groups)
    clips = {params["pretrain_bce.clip_s"] for group, _, params in every(maker, groups) if group.depth_C[0] == 1}
    assert clips == {5.0, 10.0}, "it matters after the first stage, so it is free there"


def test_half_of_the_completions_lie_near_the_best_trials():
    maker, trials = maker_of(SEARCH), drawn(SEARCH, 6)
    for group in maker.from_stages(facts_of(trials), np.random.default_rng(0)):
        assert sum(near is not None for _, near in group.origin) == COMPLETIONS // 2


def test_no_more_than_a_few_stages_of_each_depth_are_completed_the_best_by_final_and_own_score_among_them():
    maker = maker_of(SEARCH)
    trials = [replace(trial, scores=[0.1, 0.1, 0.1, 0.1, 0.1], final=0.1) for trial in drawn(SEARCH, 30)]
    trials[7] = replace(trials[7], scores=[0.1] * 4 + [0.9], final=0.9)
    trials[11] = replace(trials[11], scores=[0.8] + [0.1] * 4)
    chosen = []
    for seed in range(6):
        groups = maker.from_stages(facts_of(trials), np.random.default_rng(seed))
        first = [group.origin[0][0].trial for group in groups if group.depth_C[0] == 1]
        assert len(first) == len(set(first)) == PREFIXES_A_DEPTH
        assert {"t0007", "t0011"} <= set(first)
        chosen += first
    assert len(set(chosen)) > 12, "others at random"


def test_a_stage_that_several_trials_share_is_completed_once_and_ranks_as_their_best():
    maker, (trial, *_) = maker_of(SEARCH), drawn(SEARCH, 1)
    late = [{**trial.params, "finetune.learning_rate": rate} for rate in (1e-3, 2e-3, 3e-3)]
    trials = [
        trial_of(SEARCH, number, NAME, params, [0.3, 0.3, 0.3, 0.3, final])
        for number, (params, final) in enumerate(zip(late, (0.2, 0.9, 0.4), strict=True))
    ]
    groups = maker.from_stages(facts_of(trials), np.random.default_rng(0))
    assert [int(group.depth_C[0]) for group in groups] == [1, 2, 3, 4]
    (departure,) = maker._departures(facts_of(trials), 4, [trials[1], trials[2], trials[0]])
    assert (departure.score, departure.rank) == (0.3, 0)


@pytest.mark.parametrize("how", ["removed", "closed"])
def test_nothing_departs_from_a_stage_that_was_removed_or_is_closed(how):
    maker, trials = maker_of(SEARCH), drawn(SEARCH, 2, 3)
    gone = trials[0].stage_ids[1]
    groups = maker.from_stages(facts_of(trials, **{how: [gone]}), np.random.default_rng(0))
    found = {(group.origin[0][0].trial, int(group.depth_C[0])) for group in groups}
    of_first = {(1,), (3,)} if how == "removed" else {(1,)}
    assert {(depth,) for name, depth in found if name == "t0000"} == of_first, "a later stage that is in the store still serves"
    assert {depth for name, depth in found if name == "t0001"} == {1, 2, 3}


def test_a_paused_trial_is_a_candidate_as_it_is_from_where_the_store_has_it():
    maker, (trial, other) = maker_of(SEARCH), drawn(SEARCH, 2, 3)
    trials = [replace(trial, state="paused"), other]
    paused = [group for group in maker.from_stages(facts_of(trials), np.random.default_rng(0)) if len(group.place_CP) == 1]
    assert len(paused) == 1 and paused[0].depth_C.tolist() == [3] and maker.params(paused[0], 0) == trial.params
    many = [replace(item, state="paused") for item in drawn(SEARCH, MAX_PAUSED + 3, 1)]
    later = [group for group in maker.from_stages(facts_of(many), np.random.default_rng(0)) if len(group.place_CP) == 1]
    assert [group.origin[0][0] for group in later] == many[3:], "the newest of many"
    nothing = facts_of(trials, removed=trial.stage_ids)
    (paused,) = [group for group in maker.from_stages(nothing, np.random.default_rng(0)) if len(group.place_CP) == 1]
    assert (paused.depth_C[0], paused.score_C[0]) == (0, 0.0)


CONDITIONAL = replace(
    SEARCH,
    space={
        "train_ce.mixing.spectrogram_prob": Choice((0.0, 0.5)),
        "train_ce.mixing.spectrogram_beta": Range(1.0, 5.0, when="train_ce.mixing.spectrogram_prob > 0"),
        "finetune.learning_rate": Range(1e-4, 1e-2, log=True),
    },
)


def test_a_parameter_whose_condition_does_not_hold_is_in_no_candidate_and_says_nothing_of_it():
    encoding = Encoding(CONDITIONAL)
    maker, trials = CandidateMaker(CONDITIONAL, encoding), drawn(CONDITIONAL, 6)
    generator = np.random.default_rng(0)
    groups = [*maker.from_root(facts_of(trials), generator), *maker.from_stages(facts_of(trials), generator)]
    seen = set()
    for group, index, params in every(maker, groups):
        assert CONDITIONAL.point_of(NAME, params) == params
        is_active = params["train_ce.mixing.spectrogram_prob"] > 0
        assert ("train_ce.mixing.spectrogram_beta" in params) == is_active
        np.testing.assert_allclose(encoding.places(NAME, params)[1:], group.place_CP[index, 1:], rtol=1e-9)
        seen.add(is_active)
    assert seen == {True, False}


def test_a_search_without_parameters_has_the_recipes_as_its_candidates():
    none = replace(BOTH, space={})
    maker, trials = maker_of(none), [trial_of(none, 0, NAME, {}, [0.1] * 5)]
    groups = [
        *maker.from_root(facts_of(trials), np.random.default_rng(0)),
        *maker.from_stages(facts_of(trials), np.random.default_rng(0)),
    ]
    assert {group.recipe for group in groups} == {"sed_v2s", "cnn_b0ns"}
    assert all(params == {} for _, _, params in every(maker, groups))


def known(search: Search, facts) -> tuple[CandidateMaker, Encoding, KnownStages]:
    encoding = Encoding(search)
    maker, stages = CandidateMaker(search, encoding), KnownStages(encoding)
    stages.learn(facts, {trial.trial: maker.vector(trial) for trial in facts.trials})
    return maker, encoding, stages


POOLED = replace(SEARCH, pools={"pretrain": 2})


def test_a_candidate_from_the_root_shares_the_published_stages_of_its_variant():
    """Two variants of pretraining: a candidate with the one that is trained costs only what comes after it."""
    own = POOLED.baseline(POOLED.recipes[0])
    facts = facts_of([trial_of(POOLED, 0, NAME, own, [0.1, 0.2, 0.3])])
    maker, encoding, stages = known(POOLED, facts)
    (group,) = maker.from_root(facts, np.random.default_rng(0))
    shared = stages.look_up(group, encoding.vectors(NAME, group.place_CP))
    variants = np.array([params["pretrain.variant"] for _, _, params in every(maker, [group])])
    assert set(shared.depth_C[variants == 0]) == {2} and set(shared.depth_C[variants == 1]) == {0}
    assert set(shared.score_C[variants == 0]) == {0.2} and not shared.is_closed_C.any()
    assert (group.depth_C == 0).all(), "its parameters stay its own"


@pytest.mark.parametrize("number", [1, 2])
def test_the_next_stage_of_a_candidate_may_be_in_training(number):
    """One variant of pretraining has its first stages; a trial is training the stage after them."""
    own = POOLED.baseline(POOLED.recipes[0])
    trial = trial_of(POOLED, 0, NAME, own, [0.1, 0.2, 0.3][: number - 1])
    maker, encoding, stages = known(POOLED, facts_of([trial], left_s={trial.stage_ids[number - 1]: 7.0}))
    (group,) = maker.from_root(facts_of([]), np.random.default_rng(0))
    shared = stages.look_up(group, encoding.vectors(NAME, group.place_CP))
    variants = np.array([params["pretrain.variant"] for _, _, params in every(maker, [group])])
    assert set(shared.depth_C[variants == 0]) == {number - 1} and set(shared.left_C[variants == 0]) == {7.0}
    assert np.isnan(shared.left_C[variants == 1]).all()
    later = stages.look_up(
        maker.of_trial(trial_of(POOLED, 1, NAME, own, [0.1] * 4), number + 1), encoding.vectors(NAME, group.place_CP[:1])
    )
    assert np.isnan(later.left_C).all(), "a stage after it is published"


def test_what_needs_a_closed_stage_is_known_by_its_parameters():
    own = POOLED.baseline(POOLED.recipes[0])
    trial = trial_of(POOLED, 0, NAME, own, [0.1])
    facts = facts_of([trial], closed=[trial.stage_ids[1]])
    maker, encoding, stages = known(POOLED, facts)
    (group,) = maker.from_root(facts, np.random.default_rng(0))
    is_closed_C = stages.look_up(group, encoding.vectors(NAME, group.place_CP)).is_closed_C
    variants = np.array([params["pretrain.variant"] for _, _, params in every(maker, [group])])
    assert (is_closed_C == (variants == 0)).all()


def test_a_stage_is_found_again_by_whole_numbers_and_inactive_parameters():
    search = replace(
        CONDITIONAL,
        space={
            "pretrain_ce.epochs": Range(10, 20, step=10),
            "pretrain_ce.mixing.spectrogram_prob": Choice((0.0, 0.5)),
            "pretrain_ce.mixing.spectrogram_beta": Range(1.0, 5.0, when="pretrain_ce.mixing.spectrogram_prob > 0"),
            "finetune.learning_rate": Range(1e-4, 1e-2, log=True),
        },
    )
    params = {"pretrain_ce.epochs": 20, "pretrain_ce.mixing.spectrogram_prob": 0.0, "finetune.learning_rate": 1e-3}
    facts = facts_of([trial_of(search, 0, NAME, params, [0.1, 0.2, 0.3, 0.4])])
    maker, encoding, stages = known(search, facts)
    (group,) = maker.from_root(facts, np.random.default_rng(0))
    depth_C = stages.look_up(group, encoding.vectors(NAME, group.place_CP)).depth_C
    shares = [
        item["pretrain_ce.epochs"] == 20 and not item["pretrain_ce.mixing.spectrogram_prob"]
        for _, _, item in every(maker, [group])
    ]
    assert depth_C.tolist() == [4 if share else 0 for share in shares] and any(shares)


def test_a_stage_that_was_removed_is_trained_again_unless_a_later_one_is_there():
    (trial,) = drawn(SEARCH, 1, 3)
    for removed, depth in [((0, 1), 3), ((2,), 2), ((0, 1, 2), 0)]:
        facts = facts_of([trial], removed=[trial.stage_ids[index] for index in removed])
        maker, encoding, stages = known(SEARCH, facts)
        group = maker.of_trial(trial, 0)
        shared = stages.look_up(group, encoding.vectors(NAME, group.place_CP))
        assert shared.depth_C.tolist() == [depth] and shared.score_C[0] == (trial.scores[depth - 1] if depth else 0.0)


def test_with_costs_candidates_lie_near_all_of_the_front_and_complete_what_led_to_it():
    """A cheap trial with a low score is on the front; by scores alone it would be the last."""
    trials = [replace(trial, final=0.5 + 0.01 * n, cost=10.0) for n, trial in enumerate(drawn(SEARCH, 30, 5))]
    trials[3] = replace(trials[3], final=0.1, cost=1.0)
    first = [candidates._best_first(trials, np.random.default_rng(seed))[0].trial for seed in range(20)]
    assert set(first) == {"t0003", "t0029"}
    order = candidates._best_first(trials, np.random.default_rng(0))
    assert [trial.trial for trial in order[2:5]] == ["t0028", "t0027", "t0026"], "then by their scores"
    by_score = candidates._best_first([replace(trial, cost=None) for trial in trials], np.random.default_rng(0))
    assert (by_score[0].trial, by_score[-1].trial) == ("t0029", "t0003")
    groups = maker_of(SEARCH).from_stages(facts_of(trials), np.random.default_rng(0))
    assert {"t0003", "t0029"} <= {group.origin[0][0].trial for group in groups if group.depth_C[0] == 2}
