"""The sampler starts with each recipe as it is, goes on from a history, and tells Optuna the truth."""

import optuna

from birdclef_core.stages.recipes import cnn_b0ns, sed_v2s
from sweeps.sampler import Outcome, Sampler
from sweeps.search import Choice, Range, Search

SEARCH = Search(
    name="x",
    recipes=(sed_v2s(), cnn_b0ns()),
    space={"pretrain.clip_s": Choice((5.0, 10.0)), "train_ce.learning_rate": Range(1e-4, 1e-3, log=True)},
)


def test_the_first_trials_are_the_recipes_themselves():
    sampler = Sampler(SEARCH, seed=0)
    asked = [sampler.ask()[1:] for _ in range(2)]
    assert asked == [
        ("sed_v2s", {"pretrain.clip_s": 10.0, "train_ce.learning_rate": 3e-4}),
        ("cnn_b0ns", {"train_ce.learning_rate": 3e-4}),
    ]


def test_the_same_seed_asks_the_same():
    first, second = Sampler(SEARCH, seed=3), Sampler(SEARCH, seed=3)
    assert [first.ask()[1:] for _ in range(6)] == [second.ask()[1:] for _ in range(6)]


def test_outcomes_reach_optuna_as_what_they_are():
    sampler = Sampler(SEARCH, seed=0)
    tickets = [sampler.ask()[0] for _ in range(3)]
    sampler.tell(tickets[0], Outcome(kind="score", value=0.7))
    sampler.tell(tickets[1], Outcome(kind="pruned", value=0.2, step=3))
    sampler.tell(tickets[2], Outcome(kind="failed"))
    states = [trial.state.name for trial in sampler._study.trials]
    assert states == ["COMPLETE", "PRUNED", "FAIL"]
    assert sampler._study.best_value == 0.7
    assert sampler._study.trials[1].intermediate_values == {3: 0.2}


def test_a_history_is_known_and_unfinished_trials_come_first():
    first = Sampler(SEARCH, seed=0)
    asked = [first.ask() for _ in range(3)]
    history = [(asked[0][1], asked[0][2], Outcome(kind="score", value=0.5))]
    second = Sampler(SEARCH, seed=0, history=history, unfinished=[asked[2][1:]])
    assert second._study.best_value == 0.5
    assert second.ask()[1:] == asked[2][1:]
    assert second.ask()[1:] == asked[1][1:]
    assert second._study.trials[0].state == optuna.trial.TrialState.COMPLETE
