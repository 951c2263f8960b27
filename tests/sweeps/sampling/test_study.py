"""The sampler starts with each recipe as it is, goes on from a history, tells Optuna the truth, and forgets the oldest."""

from dataclasses import replace

import optuna
import pytest

from birdclef_core.errors import InputError
from birdclef_core.recipes import cnn_b0ns, sed_v2s
from sweeps.sampling import study as study_module
from sweeps.sampling.draws import Outcome, Told
from sweeps.sampling.study import Study, check_sampler
from sweeps.search.parameters import Choice, Range
from sweeps.search.space import Search

SEARCH = Search(
    name="x",
    recipes=(sed_v2s(), cnn_b0ns()),
    space={"pretrain.clip_s": Choice((5.0, 10.0)), "train_ce.learning_rate": Range(1e-4, 1e-3, log=True)},
    sampler="tpe",
)


def points(sampler: Study, number: int) -> list[tuple]:
    return [(draw.recipe, draw.params) for draw in (sampler.ask() for _ in range(number))]


def told(draw, score: float) -> Told:
    return Told(recipe=draw.recipe, params=draw.params, outcome=Outcome(kind="score", value=score))


def test_the_first_trials_are_the_recipes_themselves():
    assert points(Study(SEARCH, seed=0), 2) == [
        ("sed_v2s", {"pretrain.clip_s": 10.0, "train_ce.learning_rate": 3e-4}),
        ("cnn_b0ns", {"train_ce.learning_rate": 3e-4}),
    ]


def test_the_same_seed_asks_the_same():
    assert points(Study(SEARCH, seed=3), 6) == points(Study(SEARCH, seed=3), 6)
    assert points(Study(SEARCH, seed=3), 6) != points(Study(SEARCH, seed=4), 6)


def test_outcomes_reach_optuna_as_what_they_are():
    sampler = Study(SEARCH, seed=0)
    tickets = [sampler.ask().ticket for _ in range(3)]
    sampler.tell(tickets[0], Outcome(kind="score", value=0.7))
    sampler.tell(tickets[1], Outcome(kind="pruned", value=0.2, step=3))
    sampler.tell(tickets[2], Outcome(kind="failed"))
    study = sampler._state.study
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "FAIL"]
    assert study.best_value == 0.7
    assert study.trials[1].intermediate_values == {3: 0.2}


def test_a_history_is_known_and_what_was_under_way_can_be_taken_up():
    first = Study(SEARCH, seed=0)
    asked = [first.ask() for _ in range(3)]
    second = Study(SEARCH, seed=0, history=[told(asked[0], 0.5)])
    assert second._state.study.trials[0].state == optuna.trial.TrialState.COMPLETE
    again = second.take(asked[2].recipe, asked[2].params)
    assert (again.recipe, again.params) == (asked[2].recipe, asked[2].params)
    assert points(second, 1) == [(asked[1].recipe, asked[1].params)], "the recipe that has not been tried yet"


def test_a_recipe_that_was_taken_up_is_not_asked_for_again():
    first = Study(SEARCH, seed=0)
    second = Study(SEARCH, seed=0)
    baseline = first.ask()
    second.take(baseline.recipe, baseline.params)
    assert points(second, 1) == points(first, 1)


def test_what_is_seen_is_bounded_and_keeps_the_best_the_newest_and_the_open(monkeypatch):
    monkeypatch.setattr(study_module, "REMEMBERED_TRIALS", 20)
    sampler = Study(SEARCH, seed=0)
    open_draw = sampler.ask()
    scores = [0.9, 0.8, *(0.001 * index for index in range(98))]
    for score in scores:
        sampler.tell(sampler.ask().ticket, Outcome(kind="score", value=score))
        assert len(sampler._state.study.trials) <= 2 * 20 + 1
    kept = {told.outcome.value for told in sampler._state.told}
    assert {0.9, 0.8, scores[-1]} <= kept
    assert scores[2] not in kept
    sampler.tell(open_draw.ticket, Outcome(kind="score", value=0.95))
    assert sampler._state.study.best_value == 0.95
    assert sampler._state.study.best_params["train_ce.learning_rate"] == 3e-4


def test_draws_may_be_made_early_only_while_they_are_random():
    sampler = Study(SEARCH, seed=0)
    assert sampler.free_draws(waiting=0, max_running=2) == 10
    points(sampler, 10)
    assert sampler.free_draws(waiting=0, max_running=2) <= 0
    at_random = Study(replace(SEARCH, sampler="random"), seed=0)
    points(at_random, 10)
    assert at_random.free_draws(waiting=8, max_running=2) == 24
    assert at_random.free_draws(waiting=0, max_running=1000) == 1024, (
        "the first of a thousand does not wait for sixteen thousand draws"
    )
    assert at_random.free_draws(waiting=0, max_running=5000) == 1024


def test_whole_numbers_and_steps_are_drawn_as_the_search_has_them():
    space = {
        "train_ce.epochs": Range(2, 9),
        "train_ce.micro_batch_size": Range(4, 64, log=True),
        "train_ce.clip_s": Range(5, 15, step=5),
        "train_ce.mixing.wave_prob": Range(0.0, 1.0, step=0.1),
    }
    search = Search(name="x", recipes=(cnn_b0ns(),), space=space)
    sampler = Study(search, seed=0)
    draws = [sampler.ask() for _ in range(30)]
    for draw in draws:
        assert all(search.space[key].has(value) for key, value in draw.params.items()), draw.params
        sampler.tell(draw.ticket, Outcome(kind="score", value=0.5))
    assert len({draw.params["train_ce.mixing.wave_prob"] for draw in draws}) > 5
    again = Study(search, seed=0, history=[told(draw, 0.5) for draw in draws])
    assert again.ask().params.keys() == space.keys()


def test_conditions_and_constraints_hold_for_every_draw_and_a_history_of_them_is_known():
    space = {
        "train_ce.mixing.spectrogram_prob": Choice((0.0, 0.5)),
        "train_ce.mixing.spectrogram_beta": Range(1.0, 4.0, when="train_ce.mixing.spectrogram_prob > 0"),
        "train_ce.clip_s": Range(5.0, 20.0),
        "model.spectrogram.num_mels": Range(64, 128, step=32),
    }
    search = Search(name="x", recipes=(sed_v2s(),), space=space, constraints=("train_ce.clip_s < 6",))
    study = Study(search, seed=0)
    draws = [study.ask() for _ in range(25)]
    recipe = search.recipes[0]
    for draw in draws:
        assert not search.problem(recipe, draw.params)
        mixed = draw.params["train_ce.mixing.spectrogram_prob"] > 0
        assert set(draw.params) == set(space) - (set() if mixed else {"train_ce.mixing.spectrogram_beta"})
        study.tell(draw.ticket, Outcome(kind="score", value=draw.params["train_ce.clip_s"]))
    assert [draw.ticket for draw in draws] == list(range(25)), "draws that are not allowed do not count"
    again = Study(search, seed=0, history=[told(draw, 0.5) for draw in draws])
    assert [trial.params for trial in again._state.study.trials] == [{"recipe": draw.recipe, **draw.params} for draw in draws]
    assert not search.problem(recipe, again.ask().params)


def test_where_almost_nothing_is_allowed_a_draw_is_found_at_random(monkeypatch):
    monkeypatch.setattr(study_module, "REDRAWS", 2)
    space = {"train_ce.clip_s": Range(5.0, 20.0), "train_ce.weight_decay": Range(0.0, 0.1)}
    search = Search(name="x", recipes=(sed_v2s(),), space=space, constraints=("train_ce.clip_s < 5.3",))
    study = Study(search, seed=0)
    draws = [study.ask() for _ in range(8)]
    assert all(draw.params["train_ce.clip_s"] < 5.3 for draw in draws)
    assert len({draw.params["train_ce.clip_s"] for draw in draws}) == 8


def test_a_known_point_is_taken_up_although_a_constraint_forbids_it():
    search = Search(
        name="x", recipes=(sed_v2s(),), space={"train_ce.clip_s": Range(5.0, 20.0)}, constraints=("train_ce.clip_s < 6",)
    )
    assert Study(search, seed=0).take("sed_v2s", {"train_ce.clip_s": 9.0}).params == {"train_ce.clip_s": 9.0}


def test_any_sampler_of_optuna_draws_by_its_class_name():
    search = Search(
        name="x", recipes=(cnn_b0ns(),), space={"train_ce.learning_rate": Range(1e-4, 1e-3, log=True)}, sampler="QMCSampler"
    )
    check_sampler(search)
    study = Study(search, seed=0)
    draws = [study.ask() for _ in range(4)]
    assert len({draw.params["train_ce.learning_rate"] for draw in draws}) == 4
    assert type(study._state.study.sampler).__name__ == "QMCSampler"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpee", "Perhaps 'tpe' is meant"),
        ("CmaesSampler", "Perhaps 'CmaEsSampler' is meant"),
        ("GridSampler", "sampler must be one of"),
        ("BaseGASampler", "sampler must be one of"),
        ("grid", "needs a finite space"),
        ("BruteForceSampler", "sampler must be one of"),
    ],
)
def test_samplers_that_cannot_draw_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        check_sampler(replace(SEARCH, sampler=name))


WITH_COST = replace(SEARCH, objective="val/cmap, cost/device_hours")


def test_with_a_cost_optuna_compares_trials_by_both():
    """Optuna has no pruned trials with two objectives, so one that was paused is a failed one, as in a history."""
    study = Study(WITH_COST, seed=0)
    draws = [study.ask() for _ in range(4)]
    outcomes = [Outcome(kind="score", value=0.7, cost=3.0), Outcome(kind="score", value=0.6, cost=1.0)]
    outcomes += [Outcome(kind="score", value=0.5, cost=2.0), Outcome(kind="pruned", value=0.2, step=3)]
    for draw, outcome in zip(draws, outcomes, strict=True):
        study.tell(draw.ticket, outcome)
    history = [
        Told(recipe=draw.recipe, params=draw.params, outcome=outcome) for draw, outcome in zip(draws, outcomes, strict=True)
    ]
    for known in (study, Study(WITH_COST, seed=0, history=[*history])):
        front = known._state.study.best_trials
        assert sorted(trial.values for trial in front) == [[0.6, 1.0], [0.7, 3.0]]
    assert [trial.state.name for trial in study._state.study.trials] == ["COMPLETE"] * 3 + ["FAIL"]


@pytest.mark.parametrize("name", ["tpe", "NSGAIISampler", "random"])
def test_samplers_of_several_objectives_draw_with_a_cost(name):
    search = replace(WITH_COST, sampler=name)
    check_sampler(search)
    study = Study(search, seed=0)
    for number in range(60):
        draw = study.ask()
        study.tell(draw.ticket, Outcome(kind="score", value=number % 7 / 7, cost=1.0 + number % 5))
    assert len(study._state.study.trials) == 60


def test_a_sampler_of_one_objective_is_refused_with_a_cost():
    with pytest.raises(InputError, match=r"'CmaEsSampler' cannot draw from this search: .*multi-objective"):
        check_sampler(replace(WITH_COST, sampler="CmaEsSampler"))


def test_the_front_is_remembered_although_its_cheap_end_has_low_scores(monkeypatch):
    monkeypatch.setattr("sweeps.sampling.study.REMEMBERED_TRIALS", 20)
    study = Study(replace(WITH_COST, sampler="random"), seed=0)
    for number in range(45):
        cost = 1.0 if number == 1 else 5.0
        study.tell(study.ask().ticket, Outcome(kind="score", value=0.1 if number == 1 else 0.5 + number / 100, cost=cost))
    kept = {told.outcome.value for told in study._state.told}
    assert 0.1 in kept and 0.94 in kept and 0.5 not in kept
