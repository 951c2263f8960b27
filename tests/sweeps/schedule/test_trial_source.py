"""What an earlier driver's sampler was told the next one's is told, in the same order; trials of another search are left out."""

from dataclasses import replace

import pytest
from made_up import MadeUpWorkers, make_chain_builder, make_coordinator, make_search, view_of

from birdclef_core.recipes import sed_seresnext26t, small_budget
from sweeps.sampling.draws import Outcome
from sweeps.schedule.pruning import Rung, Stopped
from sweeps.schedule.records import TrialRecord
from sweeps.schedule.trial_source import _outcome
from sweeps.search import Choice, Range, Search
from sweeps.search.search_files import override

FEW = Search(name="few", recipes=make_search().recipes, space={"train_ce.clip_s": Choice((3.0, 4.0, 5.0, 6.0))}, sampler="tpe")


def run(folder, **options) -> MadeUpWorkers:
    workers = MadeUpWorkers(make_coordinator(folder, **options))
    workers.run()
    return workers


def state(coordinator) -> list[tuple]:
    """All that Optuna's samplers look at of the trials that have ended: parameters, state, value, intermediate values. They pass over
    failed ones."""
    trials = coordinator._source._study._state.study.trials
    return [
        (trial.params, trial.state, trial.value, trial.intermediate_values)
        for trial in trials
        if trial.state.name in ("COMPLETE", "PRUNED")
    ]


def open_params(coordinator) -> list[dict]:
    book = coordinator.book
    return [planned.record.params for planned in book.open_trials if book.has_begun(planned)]


@pytest.mark.parametrize("kill_after", [1, 30, 90, 140, 10_000])
@pytest.mark.parametrize("search", [make_search(), FEW], ids=["ranges", "many duplicates"])
def test_a_restored_sampler_is_told_exactly_what_the_one_before_was(tmp_path, search, kill_after):
    first = MadeUpWorkers(make_coordinator(tmp_path, make_chain_builder(search), samples=24, max_running=3))
    for _ in range(kill_after):
        if not first.step():
            break
    second = make_coordinator(
        tmp_path, make_chain_builder(search), samples=24, max_running=3, store=view_of(first.coordinator).store
    )
    assert len(second.trials) == len(first.coordinator.trials)
    assert state(second) == state(first.coordinator)
    known = [params for params in open_params(second) if params in open_params(first.coordinator)]
    assert known == open_params(second)[: len(known)], "those under way first"
    assert len(known) == len(open_params(first.coordinator))


def test_the_runs_of_the_test_before_have_duplicates_and_pruned_trials_that_went_on(tmp_path):
    few, ranges = run(tmp_path / "few", chains=make_chain_builder(FEW), samples=24), run(tmp_path / "ranges", samples=24)
    assert any(len(record.told) > 1 for record in few.coordinator.trials.values())
    pruned = [record for record in ranges.coordinator.trials.values() if record.told[0].outcome.kind == "pruned"]
    assert pruned and all(record.told[-1].outcome.kind == "pruned" for record in pruned if record.status == "pruned")


def test_a_trial_that_went_on_after_it_was_pruned_is_told_twice_and_so_it_is_to_the_next_driver(tmp_path):
    search = Search(name="one", recipes=make_search().recipes[:1], space={"train_ce.learning_rate": Range(1e-4, 1e-2, log=True)})
    workers = MadeUpWorkers(make_coordinator(tmp_path, make_chain_builder(search), samples=9, max_running=1))
    scores = dict(zip((f"t{index:04d}" for index in range(9)), (0.9, 0.9, 0.9, 0.9, 0.7, 0.1, 0.2, 0.1, 0.1), strict=True))
    while True:
        workers.fill()
        for trial in workers.running:
            workers.running[trial] = [replace(update, score=scores[trial]) for update in workers.running[trial]]
        if not workers.step():
            break
    record = workers.coordinator.trials["t0004"]
    assert [told.outcome.step for told in record.told] == [6, 8], "pruned after train_ce, then after train_bce"
    after = make_coordinator(
        tmp_path, make_chain_builder(search), samples=9, max_running=1, store=view_of(workers.coordinator).store
    )
    assert state(after) == state(workers.coordinator)


def changed(search: Search, **space) -> Search:
    return replace(search, space={**search.space, **{key.replace("__", "."): value for key, value in space.items()}})


WIDER = changed(make_search(), train_ce__learning_rate=Range(1e-5, 1e-1, log=True), train__clip_s=Choice((3.0, 4.0, 5.0)))


@pytest.mark.parametrize(
    ("search", "share"),
    [
        (make_search(), 1.0),
        (WIDER, 1.0),
        (changed(make_search(), train_ce__learning_rate=Range(1e-4, 1e-3, log=True)), 0.5),
        (changed(make_search(), train_bce__learning_rate=Range(1e-4, 1e-3, log=True)), 0.0),
        (replace(make_search(), recipes=(small_budget(sed_seresnext26t()),)), 0.0),
        (replace(make_search(), recipes=make_search().recipes[:1]), 0.5),
        (replace(make_search(), recipes=tuple(replace(r, stages=r.stages[:-1]) for r in make_search().recipes)), 0.0),
        (override(make_search(), {"train_bce.epochs": 2}), 0.0),
        (override(make_search(), {"train.clip_s": 3.0}), 0.5),
    ],
    ids=["same", "wider", "narrower", "new", "other model", "one model less", "another end", "other epochs", "one value"],
)
def test_only_trials_that_mean_the_same_in_another_search_are_told_to_it(tmp_path, search, share):
    """And so in the same place: the parameters that the other search does not sample are left out."""
    before = run(tmp_path, samples=24).coordinator
    after = make_coordinator(tmp_path, make_chain_builder(search), samples=30, max_running=30)
    told = len(before.trials) - len(after.incomparable)
    assert told == 24 if share == 1 else told == 0 if share == 0 else 0 < told < 24
    assert len(state(after)) == sum(len(record.told) for record in before.trials.values() if record not in after.incomparable)
    like = [record for record in after.trials.values() if record not in after.incomparable]
    for params, *_ in state(after):
        assert any(params.items() <= {"recipe": record.recipe, **record.params}.items() for record in like)
    while len(after.trials) == 24:
        assert after.next_trial(), "first those that rise, because fewer are compared"
    assert list(after.trials)[24] == "t0024"


def test_pruning_does_not_compare_with_trials_of_another_search(tmp_path):
    run(tmp_path, samples=24)
    other = make_coordinator(tmp_path, make_chain_builder(override(make_search(), {"epochs": 1})), samples=30)
    assert not other._verdicts.pruning._scores and not other._verdicts.pruning.stopped
    same = make_coordinator(tmp_path, samples=30)
    assert same._verdicts.pruning._scores and same._verdicts.pruning.stopped


def test_a_draw_that_is_a_trial_of_another_search_is_told_its_score_and_not_run(tmp_path):
    """One value of a parameter that is new is what the recipe has: those two searches share these points."""
    store = view_of(run(tmp_path, chains=make_chain_builder(FEW), samples=8).coordinator).store
    bce = make_search().recipes[0].stages[3].clip_s
    wider = changed(FEW, train_bce__clip_s=Choice((bce, 3.0)))
    workers = MadeUpWorkers(make_coordinator(tmp_path, make_chain_builder(wider), samples=40, store=store))
    workers.run()
    trials = workers.coordinator.trials
    assert len(trials) == 16, "eight are new, though all sixteen points have been drawn"
    assert len({record.stage_ids[-1] for record in trials.values()}) == 16
    assert len(workers.executed) == len(set(workers.executed))
    restored = make_coordinator(tmp_path, make_chain_builder(wider), samples=40, store=store)
    assert state(restored) == state(workers.coordinator), "told of the older trials too, as they were drawn"
    assert len(restored.incomparable) == 8


@pytest.mark.parametrize("before", [["pretrain_ce", "pretrain_bce"], ["pretrain_bce"], []], ids=len)
@pytest.mark.parametrize(("rung", "step"), [(Rung("train_ce", 30, 60), 5), (Rung("train_ce"), 6)], ids=["middle", "end"])
def test_how_far_a_pruned_trial_came_is_told_by_the_name_of_the_stage_whatever_the_recipe_skips(before, rung, step):
    """Optuna compares the scores of trials that were pruned at the same step: they must be scores of the same kind."""
    stopped = Stopped(stage_id="x", rung=rung, score=0.3, reason="")
    record = TrialRecord(
        trial="t0000",
        recipe="r",
        params={},
        stage_ids=[*before, "x"],
        stages=[*before, "train_ce"],
        status="pruned",
        stopped=stopped,
    )
    assert _outcome(record) == Outcome(kind="pruned", value=0.3, step=step)
