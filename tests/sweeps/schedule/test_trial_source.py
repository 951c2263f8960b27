"""What an earlier driver's sampler was told the next one's is told, in the same order; trials of another search are left out."""

from dataclasses import replace

import pytest
from made_up import MadeUpWorkers, make_chain_builder, make_coordinator, make_search, view_of

from birdclef_core.recipes import sed_seresnext26t, small_budget
from sweeps.sampling.draws import Outcome
from sweeps.sampling.facts import Proposal
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


# What the stage-aware sampler is told.

STAGE_AWARE = replace(make_search(), sampler="stage")


def stage_aware(folder, chains=None, **options) -> MadeUpWorkers:
    return MadeUpWorkers(make_coordinator(folder, chains or make_chain_builder(STAGE_AWARE), prunes=False, **options))


def test_what_the_sampler_foretold_is_kept_and_decides_how_far_each_model_counts(tmp_path):
    workers = stage_aware(tmp_path, samples=14)
    workers.run()
    store = view_of(workers.coordinator).store
    source = make_coordinator(tmp_path, make_chain_builder(STAGE_AWARE), samples=14, store=store)._source
    models = [item._stage_sampler._model(item._facts()) for item in (workers.coordinator._source, source)]
    assert models[0].stage_share == models[1].stage_share != 0.5
    foretold = [record.foretold for record in workers.coordinator.trials.values()]
    assert foretold[:2] == [{}, {}] and all(set(item) == {"by stages", "direct"} for item in foretold[-4:])


def test_a_stage_that_failed_is_closed_to_the_sampler(tmp_path):
    workers = stage_aware(tmp_path, samples=8)
    workers.fail_stage = "pretrain_bce"
    workers.run()
    facts = workers.coordinator._source._facts()
    failed = [record for record in workers.coordinator.trials.values() if record.status == "failed"]
    assert failed and all(facts.is_closed(record.stage_ids[1]) and not facts.is_closed(record.stage_ids[0]) for record in failed)
    points = [(draw_recipe, params["pretrain.variant"]) for draw_recipe, params in facts.refused]
    assert {item.state for item in facts.trials} == {"failed"} and not any(item.final for item in facts.trials)
    assert len(workers.coordinator.trials) == 4, "each variant of each recipe has failed once"
    assert points, "nobody can tell before a trial has failed that others will"


def test_what_became_no_trial_is_told_until_a_stage_rises(tmp_path):
    coordinator = stage_aware(tmp_path, samples=8).coordinator
    source, own = coordinator._source, STAGE_AWARE.baseline(STAGE_AWARE.recipes[0])
    source._stage_sampler.propose = lambda facts, number: Proposal(recipe="sed_v2s", params=own, foretold={})
    assert coordinator.next_trial().record.params == own
    assert list(source._facts().refused) == []
    coordinator.next_trial()
    assert list(source._facts().refused) == [("sed_v2s", own)] * 10, "the trial that it is already, as often as it was proposed"
    source.look_again()
    assert list(source._facts().refused) == []


def test_a_sampler_that_has_nothing_to_propose_is_asked_once(tmp_path):
    """It would say the same again. Then points of the space itself are drawn."""
    source, asked = stage_aware(tmp_path, samples=6).coordinator._source, []
    source._stage_sampler.propose = lambda *arguments: asked.append(arguments)
    assert source.draw() is not None and len(asked) == 1


def test_under_another_version_of_the_code_nothing_departs_from_the_stages_of_the_one_before(tmp_path):
    workers = stage_aware(tmp_path, samples=8)
    workers.run()
    store = view_of(workers.coordinator).store
    chains = make_chain_builder(STAGE_AWARE, code_version="another")
    source = stage_aware(tmp_path, chains, samples=20, store=store).coordinator._source
    facts = source._facts()
    assert len(facts.trials) == 8
    for item in facts.trials:
        assert list(item.stage_ids) == [task.stage_id for task in chains.chain(item.recipe, item.params)]
        assert not any(facts.departs(item, depth) for depth in range(1, 5)), "they would be trained again"
    shared = {item.stage_ids[0] for item in facts.trials}
    assert len(shared) == len({item.stage_ids[0] for item in workers.coordinator._source._facts().trials}), (
        "scores are shared as before"
    )


def test_a_stage_that_stopped_for_a_score_that_is_no_number_counts_as_failed(tmp_path):
    workers = stage_aware(tmp_path, samples=2)
    trial = workers.coordinator.next_trial()
    first = workers.updates(trial)[-1]
    assert not workers.coordinator.update(trial.record.trial, replace(first, epoch=first.epochs, score=float("nan")))
    (item,) = workers.coordinator._source._facts().trials
    assert trial.record.status == "pruned" and item.state == "failed" and item.scores == []


def test_a_score_that_is_no_number_is_none_and_neither_are_those_after_it(tmp_path):
    coordinator = stage_aware(tmp_path, samples=2).coordinator
    record = coordinator.next_trial().record
    record.stage_scores = {"pretrain_ce": 0.5, "pretrain_bce": float("nan"), "train_ce": 0.7}
    (item,) = coordinator._source._facts().trials
    assert item.scores == [0.5] and item.state == "open" and item.final is None
