"""Draws are a function of what is known, gain most for what they still cost, and stay within the space, the budget and what is open."""

import math
import random
import time
from dataclasses import replace

import numpy as np
import pytest
from made_up_facts import facts_of, trial_of

from birdclef_core.recipes import RECIPES, cnn_b0ns, sed_b3ns, sed_v2s
from sweeps.sampling import stage_sampler
from sweeps.sampling.facts import SweepFacts, TrialFacts
from sweeps.sampling.stage_model import BY_STAGES, DIRECT
from sweeps.sampling.stage_sampler import STARTUP_CHILDREN, StageSampler, Worth
from sweeps.search import Choice, Range, Search

SEARCH = Search(
    name="x",
    recipes=(sed_v2s(),),
    space={
        "pretrain_ce.learning_rate": Range(1e-4, 1e-2, log=True),
        "train_ce.learning_rate": Range(1e-4, 1e-2, log=True),
        "finetune.learning_rate": Range(1e-4, 1e-2, log=True),
    },
)
NAME = "sed_v2s"
PRETRAIN, TRAIN, FINETUNE = SEARCH.space
OWN = SEARCH.baseline(SEARCH.recipes[0])


def score(params) -> float:
    """Best at 1e-3 in each of the stages."""
    return 0.6 - 0.05 * sum((math.log10(value) + 3) ** 2 for value in params.values() if isinstance(value, float) and value > 0)


def sweep(search: Search = SEARCH, count: int = 8, num_scores: int = 5, *, seed: int = 0, departing: int = 0) -> list[TrialFacts]:
    """Each recipe at its own values, then trials anywhere; the last `departing` ones are completions of the first one's third stage."""
    generator = random.Random(seed)
    trials = []
    for number in range(count):
        recipe = search.recipes[number % len(search.recipes)]
        params = search.baseline(recipe) if number < len(search.recipes) else search.draw(recipe, generator)
        departs = number >= count - departing
        if departs:
            params = {**trials[0].params, FINETUNE: params[FINETUNE]}
        stages = min(num_scores, len(recipe.stages))
        trial = trial_of(search, number, recipe.name, params, [score(params)] * stages)
        trials.append(replace(trial, spent_s=[0.0] * 4 + [10.0]) if departs else trial)
    return trials


def propose(trials, search: Search = SEARCH, number: int = 50, *, seed: int = 0, **changes):
    return StageSampler(search, seed).propose(facts_of(trials, **changes), number)


# Before anything can be foretold.


@pytest.mark.parametrize("finished", [0, 5], ids=["while nothing is known", "though scores are known"])
def test_the_first_draws_are_the_recipes_at_their_own_values(finished):
    search = replace(SEARCH, recipes=tuple(recipe() for recipe in RECIPES.values()))
    trials: list[TrialFacts] = []
    for number, recipe in enumerate(search.recipes):
        found = propose(trials, search, number)
        assert (found.recipe, found.params) == (recipe.name, search.baseline(recipe))
        trials.append(
            trial_of(search, number, recipe.name, found.params, [0.1] * len(recipe.stages) if number < finished else [])
        )
    assert propose(trials, search, 7).params not in [search.baseline(recipe) for recipe in search.recipes]


def test_first_draws_fill_the_space():
    places = [propose([trial_of(SEARCH, 0, NAME, OWN)], number=number).params for number in range(8)]
    for key in SEARCH.space:
        shares = sorted(math.log10(params[key]) / 2 + 2 for params in places)
        assert all(index / 8 - 0.13 < share < (index + 1) / 8 + 0.13 for index, share in enumerate(shares))


def test_first_draws_share_the_stages_that_are_published_and_no_more_than_a_few_share_one():
    trials = [trial_of(SEARCH, 0, NAME, OWN, [0.1])]
    for number in range(1, 9):
        found = propose(trials, number=number)
        trials.append(trial_of(SEARCH, number, NAME, found.params))
    shared = [trial for trial in trials if trial.stage_ids[0] == trials[0].stage_ids[0]]
    assert len(shared) == STARTUP_CHILDREN + 1 and shared == trials[: STARTUP_CHILDREN + 1]
    assert len({trial.stage_ids[-1] for trial in trials}) == 9
    assert len({trial.stage_ids[0] for trial in trials}) == 6


def test_first_draws_depart_from_no_stage_that_was_removed_or_is_closed():
    trial = trial_of(SEARCH, 0, NAME, OWN, [0.1])
    for gone in ({"removed": trial.stage_ids[:1]}, {"closed": trial.stage_ids[:1]}):
        assert propose([trial], number=1, **gone).params[PRETRAIN] != OWN[PRETRAIN]


def test_first_draws_are_points_that_the_search_allows():
    constrained = replace(SEARCH, constraints=("train_ce.learning_rate < 0.2 * finetune.learning_rate",))
    generator = random.Random(0)
    trials = [trial_of(constrained, 0, NAME, constrained.baseline(constrained.recipes[0]), [0.1] * 4)]
    for number in range(1, 12):
        found = propose(trials, constrained, number)
        assert not constrained.problem(constrained.recipes[0], found.params)
        trials.append(trial_of(constrained, number, NAME, found.params, [0.1] * generator.randrange(4)))
    rules = {"train.min_learning_rate": Choice((1e-6, 3e-4)), "train.learning_rate": Range(1e-4, 1e-3)}
    search = replace(SEARCH, space=rules)
    for number in range(12):
        assert not search.problem(search.recipes[0], propose([], search, number).params)


# What is drawn.


def test_a_draw_is_a_function_of_what_is_known_the_seed_and_its_number():
    """A sampler that has drawn before draws the same as a new one: a resumed sweep goes on as it would have."""
    trials, used = sweep(count=9), StageSampler(SEARCH, 0)
    own = replace(trials[1], scores=trials[1].scores[:2])
    for number in (5, 9):
        facts, fresh = facts_of(trials[:number]), StageSampler(SEARCH, 0)
        assert used.propose(facts, number) == fresh.propose(facts, number) == used.propose(facts, number)
        assert used.worth(facts, own, 3) == fresh.worth(facts, own, 3)
    assert used.propose(facts, 1) != used.propose(facts, 2)
    assert propose(trials, number=1, seed=1).params != used.propose(facts, 1).params


def test_a_proposal_says_what_each_model_foretells_of_a_measured_score():
    trials = sweep()
    found = propose(trials)
    assert set(found.foretold) == {BY_STAGES, DIRECT}
    sampler = StageSampler(SEARCH, 0)
    model = sampler._model(facts_of(trials))
    assert model is not None
    for mean, deviation in found.foretold.values():
        assert 0.3 < mean < 0.7 and model._direct.scale * math.sqrt(model._direct.noise2) < deviation < 1
    assert propose(trials[:3]).foretold == {}


def test_good_regions_are_tried_again():
    trials = sweep(count=16)
    sampler = StageSampler(SEARCH, 0)
    found = [sampler.propose(facts_of(trials), number).params for number in range(8)]
    anywhere = np.mean([score(trial.params) for trial in trials])
    assert np.mean([score(params) for params in found]) > anywhere + 0.02


def test_a_completion_is_drawn_where_pretraining_costs_most():
    """Nothing hangs on pretraining, and it takes nearly all of the time: a completion gains as much for a hundredth of it."""
    trials = [replace(trial, spent_s=[4000.0, 10, 10, 10, 10]) for trial in sweep()]
    seen = {trial.params[PRETRAIN] for trial in trials}
    assert all(propose(trials, number=number).params[PRETRAIN] in seen for number in range(5))


def test_the_root_gets_its_share_of_the_time():
    trials = sweep(count=30, departing=26)
    seen = {trial.params[PRETRAIN] for trial in trials}
    spent = [replace(trial, spent_s=[0.0] * 4 + [90.0]) if trial.spent_s[0] == 0 else trial for trial in trials]
    assert all(propose(spent, number=number).params[PRETRAIN] not in seen for number in range(5)), (
        "less than a quarter of the time"
    )
    assert any(propose(trials, number=number).params[PRETRAIN] in seen for number in range(5)), "it has had its share"


POOLED = replace(SEARCH, pools={"pretrain": 2})


def test_where_all_pretrainings_are_there_completions_are_drawn_although_nobody_trains_one_any_more():
    """Two variants, which were trained once each: the root's share of the time can only fall, and must not bind the search for ever."""
    trials = sweep(POOLED, 12)
    variants = {trial.params["pretrain.variant"]: trial for trial in reversed(trials)}
    reuse = [trial if trial in variants.values() else replace(trial, spent_s=[0.0, 0.0, 500.0, 10.0, 10.0]) for trial in trials]
    assert stage_sampler._root_share(reuse) < stage_sampler.ROOT_SHARE
    seen = {trial.params[TRAIN] for trial in reuse}
    assert any(propose(reuse, POOLED, number).params[TRAIN] in seen for number in range(4)), "train_ce costs most and is shared"


def test_a_variant_that_is_trained_costs_only_what_is_left():
    """Of two variants one is published. Pretraining costs nearly everything, so the other one is not begun."""
    trials = [trial for trial in sweep(POOLED, 24) if trial.params["pretrain.variant"] == 0]
    dear = [replace(trial, spent_s=[4000.0 if index == 0 else 0.0, 0.0, 1.0, 1.0, 1.0]) for index, trial in enumerate(trials)]
    sampler = StageSampler(POOLED, 0)
    assert all(sampler.propose(facts_of(dear), number).params["pretrain.variant"] == 0 for number in range(4))


def test_a_candidate_that_shares_its_pretraining_by_chance_does_not_count_as_a_departure_from_the_root():
    """Two variants, one of which is published. Trials of it alone have had nearly all of the time, so the other one is begun though it is
    dear."""
    trials = [trial for trial in sweep(POOLED, 24) if trial.params["pretrain.variant"] == 0]
    reuse = [replace(trial, spent_s=[400.0 if index == 0 else 0.0, 0.0, 99.0, 99.0, 99.0]) for index, trial in enumerate(trials)]
    assert 0 < stage_sampler._root_share(reuse) < stage_sampler.ROOT_SHARE
    assert all(propose(reuse, POOLED, number).params["pretrain.variant"] == 1 for number in range(4))


THREE = replace(SEARCH, pools={"pretrain": 3})


def waiting(left_s: float, **changes) -> SweepFacts:
    """Of three variants the first is published, and a trial trains the second for so many seconds more."""
    trials = [trial for trial in sweep(THREE, 36) if trial.params["pretrain.variant"] == 0]
    spent = [[90_000.0 if index == 0 else 0.0, 10.0, 100.0, 100.0, 100.0] for index in range(len(trials))]
    known = [
        replace(trial, spent_s=item, scores=[0.1, 0.1, *trial.scores[2:]]) for trial, item in zip(trials, spent, strict=True)
    ]
    other = trial_of(THREE, 99, NAME, {"pretrain.variant": 1, TRAIN: 1e-3, FINETUNE: 1e-3})
    return facts_of([*known, other], left_s={other.stage_ids[0]: left_s}, **changes)


def waited(left_s: float, **changes) -> set[int]:
    """The variants that are drawn then."""
    facts, sampler = waiting(left_s, **changes), StageSampler(THREE, 0)
    return {sampler.propose(facts, number).params["pretrain.variant"] for number in range(6)}


def test_a_stage_that_a_trial_is_training_costs_its_waiting():
    assert 1 in waited(0.0) and 1 not in waited(90_000.0)


def test_a_candidate_whose_first_stage_is_being_trained_does_not_count_as_a_departure_from_the_root():
    facts, sampler = waiting(0.0), StageSampler(THREE, 0)
    model = sampler._model(facts)
    assert model is not None
    (group,) = sampler._maker.from_root(facts, np.random.default_rng(0))
    rated = sampler._rate(group, model, None)
    variants = [sampler._maker.params(group, index)["pretrain.variant"] for index in range(len(group.place_CP))]
    assert rated.departs_C.tolist() == [variant == 2 for variant in variants] and set(variants) == {0, 1, 2}


def test_waiting_takes_no_device_seconds():
    """Its own stages take 310 s, and waiting for the stage before them 1000."""
    assert 1 in waited(1000.0, remaining_s=320.0) and 1 not in waited(1000.0, remaining_s=305.0)


def test_a_paused_trial_is_drawn_again_with_its_own_parameters():
    search = replace(SEARCH, space={**SEARCH.space, FINETUNE: Choice((1e-4, 1e-3))})
    trials = [replace(trial, spent_s=[4000.0, 4000, 4000, 4000, 10]) for trial in sweep(search)]
    best = {PRETRAIN: 1e-3, TRAIN: 1e-3, FINETUNE: 1e-3}
    paused = trial_of(search, 9, NAME, best, [0.62] * 4, state="paused", spent_s=[4000.0] * 4 + [0.0])
    assert propose([*trials, paused], search).params == best
    assert propose([*trials, replace(paused, state="open")], search).params != best


# What is not drawn.


def costs_of(search: Search, trials, found) -> float:
    sampler = StageSampler(search, 0)
    facts = facts_of(trials)
    sampler._model(facts)
    ids = trial_of(search, 999, found.recipe, found.params).stage_ids
    depth = max((index + 1 for index, stage_id in enumerate(ids) if facts.is_published(stage_id)), default=0)
    return sampler._costs.remaining(found.recipe, found.params, depth)


@pytest.mark.parametrize("count", [3, 8], ids=["first draws", "later"])
def test_nothing_is_drawn_that_does_not_fit_into_the_remaining_time(count):
    """A whole chain takes 50 s. All stages but the last can be shared."""
    trials = sweep(count=count)
    sampler = StageSampler(SEARCH, 0)
    for remaining_s in (45.0, 25.0, 12.0):
        for number in range(2):
            found = sampler.propose(facts_of(trials, remaining_s=remaining_s), number)
            assert found is not None and costs_of(SEARCH, trials, found) <= remaining_s
    assert sampler.propose(facts_of(trials, remaining_s=9.0), 0) is None


def test_a_recipes_own_values_are_left_out_where_they_do_not_fit():
    search = replace(SEARCH, recipes=(sed_v2s(), sed_b3ns()))
    trials = [trial_of(search, 0, NAME, OWN, [0.1] * 5)]
    assert propose(trials, search, 1).recipe == "sed_b3ns"
    assert propose(trials, search, 1, remaining_s=12.0).recipe == NAME
    assert propose(trials[:0], search, remaining_s=1.0).recipe == NAME, "nothing was measured yet"


def test_a_root_that_does_not_fit_leaves_its_share_to_completions():
    trials = [
        replace(trial, spent_s=[0.0] * 4 + [90.0]) if trial.spent_s[0] == 0 else trial for trial in sweep(count=30, departing=26)
    ]
    assert propose(trials, remaining_s=95.0).params[PRETRAIN] in {trial.params[PRETRAIN] for trial in trials}


def test_nothing_is_drawn_that_needs_a_closed_stage():
    trials = sweep(POOLED, 16)
    closed = next(trial for trial in trials if trial.params["pretrain.variant"] == 0).stage_ids[0]
    for number in range(6):
        assert propose(trials, POOLED, number, closed=[closed]).params["pretrain.variant"] == 1


def test_what_became_no_trial_is_not_drawn_again():
    trials = sweep()
    first = propose(trials)
    second = propose(trials, refused=[(first.recipe, first.params)])
    assert second.params != first.params
    assert propose([], refused=[(NAME, OWN)]).params != OWN


FEW = replace(
    SEARCH,
    recipes=(sed_v2s(), cnn_b0ns()),
    space={"train_ce.clip_s": Choice((5.0, 10.0)), "train_ce.freeze_encoder": Choice((True, False)), TRAIN: Range(1e-3, 1e-3)},
    constraints=("train_ce.clip_s < 10 or not train_ce.freeze_encoder",),
)


def test_a_finite_space_is_drawn_to_its_last_point():
    trials: list[TrialFacts] = []
    while (found := propose(trials, FEW, len(trials))) is not None:
        recipe = FEW.recipe(found.recipe)
        trials.append(trial_of(FEW, len(trials), found.recipe, found.params, [0.1] * len(recipe.stages)))
    points = [(trial.recipe, trial.params) for trial in trials]
    every = list(FEW.points() or ())
    assert len(points) == len(every) == 6 and all(point in every for point in points)


def test_constraints_hold_for_later_draws_too():
    constrained = replace(SEARCH, constraints=("train_ce.learning_rate < 0.2 * finetune.learning_rate",))
    trials = sweep(constrained, 8)
    sampler = StageSampler(constrained, 0)
    for number in range(3):
        assert not constrained.problem(constrained.recipes[0], sampler.propose(facts_of(trials), number).params)
    assert propose(trials, replace(constrained, constraints=("train_ce.learning_rate > 1",))) is None


def test_values_that_break_a_rule_together_are_not_drawn():
    space = {
        "model.spectrogram.f_min_hz": Choice((0.0, 9000.0)),
        "model.spectrogram.f_max_hz": Choice((8000.0, 16000.0)),
        FINETUNE: Range(1e-4, 1e-2, log=True),
    }
    search = replace(SEARCH, space=space)
    trials = sweep(search, 8)
    for number in range(5):
        assert not search.problem(search.recipes[0], propose(trials, search, number).params)


# What may go wrong.


@pytest.mark.parametrize("recipes", [1, 2, 7])
def test_a_search_without_parameters_has_as_many_draws_as_recipes(recipes):
    search = replace(SEARCH, recipes=tuple(recipe() for recipe in RECIPES.values())[:recipes], space={})
    trials: list[TrialFacts] = []
    while (found := propose(trials, search, len(trials))) is not None:
        stages = len(search.recipe(found.recipe).stages)
        trials.append(trial_of(search, len(trials), found.recipe, found.params, [0.1 + len(trials) / 10] * stages))
    assert len(trials) == recipes


def test_conditional_nominal_and_model_parameters_are_drawn():
    space = {
        "model.encoder": Choice(("resnet18d.ra2_in1k", "resnet34d.ra2_in1k")),
        "model.drop_path_rate": Range(0.0, 0.3),
        "train.mixing.spectrogram_prob": Choice((0.0, 0.5)),
        "train.mixing.spectrogram_beta": Range(1.0, 5.0, when="train.mixing.spectrogram_prob > 0"),
        "train_ce.epochs": Range(10, 60, step=10),
        "train_ce.head_transfer": Choice(("by_species", "drop")),
    }
    search = replace(SEARCH, recipes=(sed_v2s(), sed_b3ns()), space=space)
    trials, sampler = sweep(search, 12), StageSampler(search, 0)
    seen = set()
    for number in range(12):
        found = sampler.propose(facts_of(trials), number)
        assert search.point_of(found.recipe, found.params) == found.params
        seen.add("train.mixing.spectrogram_beta" in found.params)
        trials.append(trial_of(search, 100 + number, found.recipe, found.params))
    assert seen == {True, False}


def test_equal_scores_failed_trials_and_trials_without_scores_end_nothing():
    trials = [replace(trial, scores=[0.4] * 5, final=0.4) for trial in sweep(count=6)]
    failed = [
        replace(trial, trial=f"f{trial.trial}", scores=[], final=None, state="failed") for trial in sweep(count=4, seed=1)[1:]
    ]
    no_number = replace(sweep(count=2, seed=2)[1], trial="nan", scores=[0.4] * 4, final=None, state="failed")
    found = propose([*trials, *failed, no_number])
    assert found is not None and all(np.isfinite(pair).all() for pair in found.foretold.values())
    assert propose(failed).params == OWN


def test_draws_keep_away_from_where_trials_fail():
    """The best scores lie beside the learning rates with which training fails."""
    search = replace(SEARCH, space={TRAIN: SEARCH.space[TRAIN]})
    own = search.baseline(search.recipes[0])
    points = [{TRAIN: 10**-rate} for rate in (4, 3.5, 3, 2.7, 2.5, 2.3, 2.2, 2.1)]
    trials = [trial_of(search, 99, NAME, own), *(trial_of(search, number, NAME, point) for number, point in enumerate(points))]
    rates = {}
    for state in ("failed", "ended"):
        known = [
            replace(trial, scores=[0.5] * 2, state=state)
            if trial.params[TRAIN] > 10**-2.4
            else replace(trial, scores=[0.5, 0.5, *[0.8 + 0.1 * math.log10(trial.params[TRAIN])] * 3], state="ended")
            for trial in trials
        ]
        known = [replace(trial, final=trial.scores[4] if len(trial.scores) == 5 else None) for trial in known]
        sampler = StageSampler(search, 0)
        rates[state] = [sampler.propose(facts_of(known), number).params[TRAIN] for number in range(3)]
    assert max(rates["failed"]) < 10**-2.3 < min(rates["ended"])


def test_stages_that_were_removed_are_paid_for_again():
    trials = [replace(trial, spent_s=[4000.0, 10, 10, 10, 10]) for trial in sweep()]
    kept = trials[3]
    removed = [stage_id for trial in trials if trial is not kept for stage_id in trial.stage_ids]
    assert {propose(trials, number=number, removed=removed).params[PRETRAIN] for number in range(4)} == {kept.params[PRETRAIN]}


# Whether a trial goes on.


def judged(scores: float = 0.3, reached: int = 8) -> tuple[SweepFacts, TrialFacts]:
    """A sweep, and one of its trials at the end of its third stage."""
    trials = sweep(count=8)
    own = trial_of(SEARCH, 20, NAME, {PRETRAIN: 2e-4, TRAIN: 2e-4, FINETUNE: 2e-4}, [scores] * 3)
    some = [trial if number < reached else replace(trial, scores=[]) for number, trial in enumerate(trials)]
    return facts_of([*some, own]), own


def test_a_poor_trial_stops_and_a_good_one_goes_on():
    poor, good = (StageSampler(SEARCH, 0).worth(*judged(scores), 5) for scores in (0.3, 0.62))
    assert poor is not None and poor.stops
    assert good is not None and not good.stops and good.going_on > poor.going_on


def test_nobody_is_judged_before_four_stages_have_a_score_there_and_four_trials_have_finished():
    sampler = StageSampler(SEARCH, 0)
    assert sampler.worth(*judged(reached=2), 5) is None
    assert sampler.worth(*judged(reached=3), 5) is not None, "its own is the fourth"
    facts, own = judged()
    unfinished = [
        replace(trial, final=None, scores=trial.scores[:4]) if number > 2 else trial for number, trial in enumerate(facts.trials)
    ]
    assert sampler.worth(replace(facts, trials=unfinished), own, 5) is None
    assert sampler.worth(facts, replace(own, scores=[]), 5) is None


def test_a_trial_that_runs_is_not_judged_by_what_a_limit_leaves_for_others():
    facts, own = judged(0.62)
    without, within = (StageSampler(SEARCH, 0).worth(replace(facts, remaining_s=left), own, 5) for left in (None, 15.0))
    assert without is not None and within is not None and within.going_on == without.going_on > -math.inf
    assert within.best_other < without.best_other


def test_a_trial_stops_for_what_is_more_than_six_tenths_better():
    assert Worth(going_on=math.log(0.59), best_other=0.0).stops
    assert not Worth(going_on=math.log(0.61), best_other=0.0).stops
    assert not Worth(going_on=-5.0, best_other=-math.inf).stops


def test_a_trial_does_not_compete_with_itself():
    """It is one of the open trials. Did it count as awaited, its own variance would be narrow and the others' would not."""
    facts, own = judged(0.5)
    with_it, without = (
        StageSampler(SEARCH, 0).worth(replace(facts, trials=trials), own, 5)
        for trials in (facts.trials, [replace(trial, state="ended") if trial is own else trial for trial in facts.trials])
    )
    assert with_it == without


def test_a_trial_stops_for_nothing_that_is_a_trial_already():
    """All points of a finite space are tried but the trial's own."""
    space = {TRAIN: Choice((1e-4, 1e-3, 2e-3, 1e-2)), FINETUNE: Choice((1e-4, 1e-3))}
    search = replace(SEARCH, space=space)
    points = [params for _, params in search.points() or ()]
    trials = [trial_of(search, number, NAME, params, [score(params)] * 5) for number, params in enumerate(points)]
    own = replace(trials[0], scores=[0.1] * 3, final=None, state="open")
    found = StageSampler(search, 0).worth(facts_of([own, *trials[1:]]), own, 5)
    assert found is not None and found.best_other == -math.inf and not found.stops


# How long it takes.


@pytest.mark.slow
def test_a_draw_among_ten_thousand_trials_takes_less_than_a_second_of_one_core():
    generator, numbers = random.Random(0), np.random.default_rng(0)
    sampler, trials = StageSampler(SEARCH, 0), sweep(count=1)
    for number in range(1, 10_000):
        given = trials[generator.randrange(len(trials))]
        depth = generator.choice([0, 1, 2, 3, 4])
        params = sampler._maker.at(NAME, given if depth else None, depth, numbers.random(3))
        ids = [*given.stage_ids[:depth], *(f"{number} {index}" for index in range(depth, 5))]
        scores = [*given.scores[:depth], *(score(params) for _ in range(depth, 5))][: generator.randint(1, 5)]
        final = scores[-1] if len(scores) == 5 else None
        trials.append(
            replace(given, trial=f"t{number:04d}", params=params, stage_ids=ids, scores=scores, final=final, state="ended")
        )
    facts = facts_of(trials)
    sampler.propose(facts, 0)
    started = time.process_time()
    for number in range(3):
        assert sampler.propose(facts, 1 + number) is not None
    assert (time.process_time() - started) / 3 < 1


def test_the_costliest_model_of_the_space_counts_before_any_trial_has_it():
    encoders = (sed_v2s().model.encoder, "resnet18d.ra2_in1k")
    space = {**SEARCH.space, "model.encoder": Choice(encoders)}
    search = replace(SEARCH, space=space, objective="val/cmap, cost/cpu_seconds_10min")
    sampler = StageSampler(search, 0, lambda model: 16.0 if model.encoder == encoders[0] else 4.0)
    trials = [replace(trial, cost=4.0) for trial in sweep(search)]
    model = sampler._model(facts_of(trials))
    assert model is not None and model.bar.log_end == pytest.approx(math.log(2 * 16.0))
    assert StageSampler(SEARCH, 0)._costliest() == 0.0, "where costs do not count"
