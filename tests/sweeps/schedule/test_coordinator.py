"""The driver's decisions, with made-up scores: every prefix once, every trial remembered, no duplicate run."""

import math
from dataclasses import replace
from unittest.mock import Mock

import pytest
from made_up import MadeUpWorkers, make_chain_builder, make_coordinator, make_search, view_of

from sweeps.plan.simulate import MemoryRecords, SimulatedStore, SimulatedView
from sweeps.sampling.study import RANDOM_LOOKAHEAD, STARTUP_TRIALS
from sweeps.schedule.coordinator import Coordinator, Observer
from sweeps.schedule.pruning import RungScore, rung_at
from sweeps.schedule.trials import TrialBook
from sweeps.search.space import Choice, Range, Search


def run(folder, **options) -> MadeUpWorkers:
    workers = MadeUpWorkers(make_coordinator(folder, **options))
    workers.run()
    return workers


@pytest.mark.parametrize("max_running", [1, 2, 7])
def test_no_stage_is_trained_twice(tmp_path, max_running):
    workers = run(tmp_path, samples=30, max_running=max_running)
    assert len(workers.executed) == len(set(workers.executed))
    assert len(workers.coordinator.trials) == 30
    assert all(record.ended for record in workers.coordinator.trials.values())


def test_trials_share_the_pools_prefixes(tmp_path):
    workers = run(tmp_path, samples=30)
    stages = [record.stage_ids for record in workers.coordinator.trials.values()]
    assert len({ids[1] for ids in stages}) <= 4, "two recipes with a pool of two pretrainings each"
    assert len({ids[-1] for ids in stages}) == 30


def test_a_trial_waits_for_a_prefix_in_training_and_starts_once_it_is_published(tmp_path):
    search = Search(name="one", recipes=make_search().recipes[:1], space={"train_ce.learning_rate": Choice((1e-3, 2e-3, 3e-3))})
    workers = MadeUpWorkers(make_coordinator(tmp_path, make_chain_builder(search), samples=3, max_running=2))
    workers.fill()
    assert list(workers.running) == ["t0000"]
    while "pretrain_bce" not in workers.coordinator.trials["t0000"].stage_scores:
        workers.step()
    workers.fill()
    assert len(workers.running) == 2


def test_the_trial_that_trained_a_prefix_goes_on_where_it_is_and_those_that_waited_start_elsewhere(tmp_path):
    search = Search(name="one", recipes=make_search().recipes[:1], space={"train_ce.learning_rate": Choice((1e-3, 2e-3))})
    workers = MadeUpWorkers(make_coordinator(tmp_path, make_chain_builder(search), samples=2, max_running=2))
    started = []
    while workers.step():
        started += [trial for trial in workers.running if trial not in started]
        if "t0001" in workers.running and len(workers.running) == 2:
            assert workers.running["t0000"], "told to go on at each stage end, so its worker has never changed"
    assert started == ["t0000", "t0001"]
    assert {record.status for record in workers.coordinator.trials.values()} == {"finished"}


def test_while_one_trains_a_prefix_the_others_get_other_work(tmp_path):
    """Two recipes, one prefix each: all trials of one wait for it, and the second worker takes the other."""
    workers = MadeUpWorkers(
        make_coordinator(tmp_path, make_chain_builder(make_search(pools={"pretrain": 1})), samples=10, max_running=4)
    )
    workers.fill()
    assert len(workers.running) == 2
    assert len({workers.coordinator.trials[trial].stage_ids[0] for trial in workers.running}) == 2


def test_trials_are_handed_out_as_the_room_grows_and_shrinks(tmp_path):
    """Workers that join are used, and what runs goes on when others leave."""
    workers = MadeUpWorkers(make_coordinator(tmp_path, make_chain_builder(make_search(pools={})), samples=12, max_running=0))
    coordinator = workers.coordinator
    workers.fill()
    assert not workers.running and not coordinator.finished
    for room in (1, 4):
        coordinator.max_running = room
        workers.fill()
        assert len(workers.running) == room
    coordinator.max_running = 2
    workers.fill()
    assert len(workers.running) == 4
    workers.run()
    assert {record.ended for record in coordinator.trials.values()} == {True}


def test_what_could_run_with_more_room_is_known(tmp_path):
    """A sweep of one prefix needs one worker until it is published, and then as many as there are trials: more cost and do nothing."""
    search = Search(name="one", recipes=make_search().recipes[:1], space={"train_ce.learning_rate": Choice((1e-3, 2e-3, 3e-3))})
    workers = MadeUpWorkers(make_coordinator(tmp_path, make_chain_builder(search), samples=3, max_running=0))
    coordinator = workers.coordinator
    assert coordinator.could_run == 1, "of an empty cluster: the first trial"
    coordinator.max_running = 1
    workers.fill()
    assert coordinator.could_run <= 2
    coordinator.max_running = 2
    workers.fill()
    assert (len(workers.running), coordinator.could_run) == (1, 1), "the others wait for its prefix"
    while "pretrain_bce" not in coordinator.trials["t0000"].stage_scores:
        workers.step()
    assert coordinator.could_run >= 2
    coordinator.max_running = 3
    workers.fill()
    assert (len(workers.running), coordinator.could_run) == (3, 3)
    workers.run()
    assert coordinator.could_run == 0


def test_what_a_stage_saved_is_counted_once_however_often_it_is_told(tmp_path):
    """A worker that takes over from a lost one, or after a hold, tells of the reused stages again."""
    search = Search(name="one", recipes=make_search().recipes[:1], space={"train_bce.learning_rate": Choice((1e-3, 2e-3))})
    workers = MadeUpWorkers(make_coordinator(tmp_path, make_chain_builder(search), samples=2, max_running=1))
    while "t0001" not in workers.running:
        workers.step()
        workers.fill()
    planned = next(item for item in workers.coordinator.book.open_trials if item.record.trial == "t0001")
    workers.step()
    workers.coordinator.worker_lost("t0001", "killed")
    workers.running["t0001"] = workers.updates(planned)
    workers.run()
    assert planned.record.saved_s == 3.0, "three stages of one second each"
    assert planned.record.epochs_done == sum(task.config.epochs for task in planned.chain)


FEW = Search(
    name="few",
    recipes=make_search().recipes,
    space={"train_ce.clip_s": Choice((3.0, 4.0, 5.0)), "train_bce.clip_s": Choice((3.0, 4.0, 5.0))},
    sampler="tpe",
)
"""Two recipes with nine points each."""


def test_exact_duplicates_are_not_run_and_a_finite_space_is_tried_to_its_last_point(tmp_path):
    workers = run(tmp_path, chains=make_chain_builder(FEW), samples=50, prunes=False)
    records = workers.coordinator.trials.values()
    assert len({record.stage_ids[-1] for record in records}) == len(records) == 18
    assert workers.coordinator.finished


@pytest.mark.parametrize("seed", range(4))
def test_a_finite_space_is_tried_to_its_last_point_that_needs_no_stopped_stage(tmp_path, seed):
    chains = make_chain_builder(FEW, seed=seed)
    coordinator = run(tmp_path, chains=chains, samples=50).coordinator
    assert coordinator.finished and len(coordinator.trials) <= 18
    tried = {record.stage_ids[-1] for record in coordinator.trials.values()}
    for recipe, params in FEW.points():
        stage_ids = [task.stage_id for task in chains.chain(recipe, params)]
        assert stage_ids[-1] in tried or coordinator._verdicts.stopped(stage_ids)


@pytest.mark.parametrize("seed", range(4))
def test_points_that_needed_a_stopped_stage_are_tried_when_it_rises(tmp_path, monkeypatch, seed):
    monkeypatch.setattr("sweeps.schedule.trial_source.SAMPLER_DRAWS", 1)
    coordinator = run(tmp_path, chains=make_chain_builder(FEW, seed=seed), samples=50).coordinator
    pruning = coordinator._verdicts.pruning
    for rung in list(pruning._scores):
        for number in range(50):
            pruning.add(RungScore(rung=rung, stage_id=f"worse {number}", score=-1.0))
    MadeUpWorkers(coordinator).run()
    assert len(coordinator.trials) == 18


def test_a_duplicate_of_a_running_trial_is_told_its_score_when_it_ends(tmp_path):
    search = Search(name="few", recipes=make_search().recipes[:1], space={"train.clip_s": Choice((3.0, 5.0))}, sampler="tpe")
    coordinator = make_coordinator(tmp_path, make_chain_builder(search), samples=50, max_running=1)
    source = coordinator._source
    told = []
    source._study.tell = lambda ticket, outcome, tell=source._study.tell: (told.append(outcome), tell(ticket, outcome))
    workers = MadeUpWorkers(coordinator)
    workers.fill()
    waiting = sum(len(tickets) for tickets in source._duplicates.values())
    assert waiting and not told
    workers.run()
    assert {outcome.kind for outcome in told} <= {"score", "pruned"}
    assert len(told) >= 2 + waiting


def test_poor_trials_stop_at_stage_ends_and_say_why(tmp_path):
    records = run(tmp_path, samples=30).coordinator.trials.values()
    pruned = [record for record in records if record.status == "pruned"]
    assert pruned
    assert all("below" in record.reason and record.score is None and record.stopped for record in pruned)
    assert any(record.status == "finished" for record in records)


def test_what_a_trial_cost_and_saved_is_kept_apart(tmp_path):
    workers = run(tmp_path, samples=20)
    records = workers.coordinator.trials.values()
    assert sum(record.cost_s for record in records) == workers.epochs
    assert any(record.saved_s for record in records)
    assert sum(record.epochs_trained for record in records) == workers.epochs


def test_a_pruned_trial_goes_on_when_later_ones_are_worse(tmp_path):
    """The first four set the bar at .9; .7 is stopped there, and is among the better half of nine: it goes on to the next bar."""
    search = Search(name="one", recipes=make_search().recipes[:1], space={"train_ce.learning_rate": Range(1e-4, 1e-2, log=True)})
    workers = MadeUpWorkers(make_coordinator(tmp_path, make_chain_builder(search), samples=9, max_running=1))
    scores = dict(zip((f"t{index:04d}" for index in range(9)), (0.9, 0.9, 0.9, 0.9, 0.7, 0.1, 0.2, 0.1, 0.1), strict=True))
    started, pruned = [], []
    while True:
        workers.fill()
        for trial in workers.running:
            started.append(trial) if started[-1:] != [trial] else None
            workers.running[trial] = [replace(update, score=scores[trial]) for update in workers.running[trial]]
        if not workers.step():
            break
        pruned += [
            name for name, record in workers.coordinator.trials.items() if record.status == "pruned" and name not in pruned
        ]
    assert pruned[0] == "t0004"
    assert started.count("t0004") == 2
    assert workers.coordinator.trials["t0004"].stopped.rung.stage == "train_bce"
    assert len(workers.executed) == len(set(workers.executed)), "it went on from the store"


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_every_trial_trains_something_and_none_is_drawn_from_a_stopped_prefix(tmp_path, sampler):
    """Four prefixes for each of two recipes, of which some are stopped while trials are drawn from them or wait for them."""
    search = replace(make_search(pools={"pretrain": 4}), sampler=sampler)
    coordinator = make_coordinator(tmp_path, make_chain_builder(search), samples=40, max_running=4)
    dropped = []
    drop = coordinator._source.drop
    coordinator._source.drop = lambda trial: (dropped.append(trial.draw.ticket), drop(trial))
    workers = MadeUpWorkers(coordinator)
    workers.run()
    records = list(coordinator.trials.values())
    assert [record.trial for record in records] == [f"t{number:04d}" for number in range(40)]
    assert all(record.epochs_trained for record in records)
    stopped = [record.stopped.stage_id for record in records if record.stopped]
    assert stopped and len(stopped) == len(set(stopped)), "the trial that trained it was stopped there and no other"
    assert dropped, "some waited for a prefix that was stopped"
    told = [draw.draw for record in records for draw in record.told]
    assert not set(dropped) & set(told), "the sampler passes over them, also under a later driver"


def test_what_waits_for_a_prefix_is_forgotten_when_the_prefix_is_stopped_and_is_drawn_again_when_it_rises(tmp_path):
    search = Search(
        name="one", recipes=make_search().recipes[:1], space={"train_ce.learning_rate": Choice((1e-3, 2e-3, 3e-3))}, sampler="tpe"
    )
    coordinator = make_coordinator(tmp_path, make_chain_builder(search), samples=3, max_running=1)
    pruning = coordinator._verdicts.pruning
    trial = coordinator.next_trial()
    first = MadeUpWorkers(coordinator).updates(trial)[-1]
    rung = rung_at(trial.chain[0].config, first.epochs, first.epochs)
    for number in range(4):
        pruning.add(RungScore(rung=rung, stage_id=f"better {number}", score=2.0))
    assert coordinator.book.num_drawn == 2
    waiting = coordinator.book.drawn_trials()[0]
    again = coordinator._source._study.take(waiting.draw.recipe, waiting.draw.params)
    coordinator._source._tell_as(again, waiting.record)
    assert not coordinator.update(trial.record.trial, replace(first, epoch=first.epochs, score=0.1))
    assert coordinator.next_trial() is None and coordinator.book.num_waiting == 0
    assert list(coordinator.trials) == ["t0000"] and coordinator.finished
    assert coordinator._source._study._state.open == {}, "the sampler heard of each draw, also of duplicates of what waited"
    for number in range(9):
        pruning.add(RungScore(rung=rung, stage_id=f"worse {number}", score=-1.0))
    workers = MadeUpWorkers(coordinator)
    workers.run()
    assert {record.params["train_ce.learning_rate"] for record in coordinator.trials.values()} == {1e-3, 2e-3, 3e-3}


def test_a_trial_that_was_held_goes_on_although_its_prefix_was_stopped_meanwhile(tmp_path):
    """It has had a worker and is known to the tracker: it is no draw any more, and what it trains next will be judged."""
    coordinator = make_coordinator(tmp_path, samples=1, max_running=1)
    trial = coordinator.next_trial()
    first = MadeUpWorkers(coordinator).updates(trial)[-1]
    assert not coordinator.update(trial.record.trial, replace(first, kind="held", epoch=0))
    rung = rung_at(trial.chain[0].config, first.epochs, first.epochs)
    for number in range(4):
        coordinator._verdicts.pruning.add(RungScore(rung=rung, stage_id=f"better {number}", score=2.0))
    assert coordinator.next_trial() is trial
    assert coordinator.update(trial.record.trial, replace(first, kind="reused", epoch=first.epochs, score=0.1))
    assert coordinator._verdicts.stopped(trial.record.stage_ids).stage_id == first.stage_id, "nobody else draws from there"


def test_the_error_of_a_score_spares_a_stage_and_the_next_driver_knows_it(tmp_path):
    coordinator = make_coordinator(tmp_path, samples=1, max_running=1)
    trial = coordinator.next_trial()
    first = MadeUpWorkers(coordinator).updates(trial)[-1]
    rung = rung_at(trial.chain[0].config, first.epochs, first.epochs)
    for number in range(4):
        coordinator._verdicts.pruning.add(RungScore(rung=rung, stage_id=f"better {number}", score=0.5))
    assert coordinator.update(trial.record.trial, replace(first, epoch=first.epochs, score=0.4, error=0.2))
    coordinator.fail(trial.record.trial)
    after = make_coordinator(tmp_path, samples=1, store=view_of(coordinator).store)._verdicts.pruning
    assert after._latest[first.stage_id].error == 0.2


def test_a_failed_stage_fails_those_that_need_it_and_the_sweep_goes_on(tmp_path):
    search = make_search(pools={"pretrain": 1})
    ended = []
    observer = Mock(trial_ended=lambda planned: ended.append(planned.record.trial))
    workers = MadeUpWorkers(
        make_coordinator(tmp_path, make_chain_builder(search), samples=6, max_running=3, observers=(observer,))
    )
    workers.fail_stage = "pretrain_bce"
    workers.run()
    assert sorted(ended) == sorted(workers.coordinator.trials), "each is told once"
    assert [len(record.told) for record in workers.coordinator.trials.values()] == [1] * len(ended)
    failed = [record for record in workers.coordinator.trials.values() if record.status == "failed"]
    assert {record.reason for record in failed} == {"made to fail"}
    assert len(workers.executed) == len(set(workers.executed)) == 2, "each recipe's pretrain_ce, once"
    assert workers.coordinator.finished


@pytest.mark.parametrize(("sampler", "allowed"), [("tpe", STARTUP_TRIALS), ("random", RANDOM_LOOKAHEAD * 2)])
def test_no_more_trials_are_drawn_ahead_than_are_worth_having(tmp_path, sampler, allowed):
    search = replace(make_search(), sampler=sampler)
    workers = MadeUpWorkers(make_coordinator(tmp_path, make_chain_builder(search), samples=200, max_running=2))
    workers.fill()
    waiting = [workers.coordinator.book.num_waiting]
    for _ in range(60):
        workers.step()
        waiting.append(workers.coordinator.book.num_waiting)
    assert 0 < max(waiting) <= allowed


def test_a_draw_whose_values_break_a_rule_together_is_left_out_and_ends_nothing(tmp_path):
    """Each value is allowed with some of the other's; such draws are drawn again."""
    recipe = make_search().recipes[0]
    space = {
        "train.min_learning_rate": Choice((1e-6, 3e-4)),
        "train.learning_rate": Range(1e-4, 1e-3),
    }
    search = Search(name="x", recipes=(recipe,), space=space, sampler="random")
    workers = run(tmp_path, chains=make_chain_builder(search), samples=20)
    records = workers.coordinator.trials.values()
    assert len(records) == 20 and {record.status for record in records} <= {"finished", "pruned"}
    rates = [record.params for record in records]
    assert all(params["train.min_learning_rate"] <= params["train.learning_rate"] for params in rates)


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_trial_whose_last_stage_has_no_usable_score_has_failed(tmp_path, score):
    chains = make_chain_builder(replace(make_search(), objective="val_soundscapes/auroc"))
    coordinator = make_coordinator(tmp_path, chains, samples=1, max_running=1)
    trial = coordinator.next_trial()
    last = MadeUpWorkers(coordinator).updates(trial)[0]
    assert not coordinator.update(trial.record.trial, replace(last, score=score))
    assert (trial.record.status, trial.record.score) == ("failed", None)
    assert trial.record.reason == f"val_soundscapes/auroc is {score}"


def test_a_failed_trial_keeps_the_metrics_of_its_last_epoch(tmp_path):
    coordinator = make_coordinator(tmp_path, samples=1, max_running=1)
    trial = coordinator.next_trial()
    first = MadeUpWorkers(coordinator).updates(trial)[-1]
    coordinator.update(trial.record.trial, first)
    coordinator.update(trial.record.trial, replace(first, kind="failed", epoch=0, metrics={}, message="no memory"))
    record = trial.record
    assert (record.status, record.epoch, record.epochs_done, record.metrics) == ("failed", 1, 1, first.metrics)


def test_trials_on_a_failed_prefix_fail_without_a_worker(tmp_path):
    search = replace(make_search(pools={"pretrain": 1}), recipes=make_search().recipes[:1])
    coordinator = make_coordinator(tmp_path, make_chain_builder(search), samples=3, max_running=1)
    trial = coordinator.next_trial()
    first = MadeUpWorkers(coordinator).updates(trial)[-1]
    coordinator.update(trial.record.trial, replace(first, kind="failed", message="no memory"))
    assert coordinator.next_trial() is None
    assert {(record.status, record.reason) for record in coordinator.trials.values()} == {("failed", "no memory")}


class SlowRecords(MemoryRecords):
    """Records of which the first ones alone are written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: set[str] = set()

    def is_saved(self, trial: str) -> bool:
        return trial in self.written

    @property
    def all_saved(self) -> bool:
        return self.trials.keys() <= self.written


def test_a_trial_is_handed_out_when_its_start_is_on_record_and_not_before(monkeypatch):
    """Meanwhile others begin, to be written with it; nobody hears of them, and a sweep with records that wait does not end."""
    monkeypatch.setattr("sweeps.schedule.coordinator.BEGIN_FOR_S", 60.0)
    records, heard = SlowRecords(), []

    class Heard(Observer):
        def trial_started(self, trial):
            heard.append(trial.record.trial)

        def trial_ended(self, trial):
            heard.append(f"end of {trial.record.trial}")

    book = TrialBook(records, SimulatedView(SimulatedStore(), "s"))
    search = replace(make_search(pools={}), sampler="random")
    coordinator = Coordinator(make_chain_builder(search), book, samples=30, max_running=3, observers=(Heard(),))
    assert coordinator.next_trial() is None
    assert (list(records.trials), heard, book.num_running) == (["t0000", "t0001", "t0002"], [], 3)
    records.written = {"t0000", "t0001"}
    assert [trial and trial.record.trial for trial in (coordinator.next_trial() for _ in range(3))] == ["t0000", "t0001", None]
    assert heard == ["t0000", "t0001"] and not coordinator.finished
    coordinator.interrupt()
    assert heard == ["t0000", "t0001", "end of t0000", "end of t0001"], "nobody hears of the end of what nobody has heard of"
    assert [record.status for record in records.trials.values()] == ["interrupted", "interrupted", "waiting"]


def test_nothing_begins_while_the_storage_is_away(monkeypatch):
    """What begins looks into the store, and the driver would wait there; the updates of running trials are taken."""
    book = TrialBook(MemoryRecords(), SimulatedView(SimulatedStore(), "s"))
    coordinator = Coordinator(make_chain_builder(make_search(pools={})), book, samples=3, max_running=2)
    assert coordinator.next_trial() is not None
    with monkeypatch.context() as outage:
        outage.setattr(MemoryRecords, "is_away", True)
        assert coordinator.next_trial() is None and book.num_running == 1 and not coordinator.finished
    assert coordinator.next_trial() is not None


def test_a_cluster_that_cannot_train_takes_back_what_was_not_handed_out():
    records = SlowRecords()
    book = TrialBook(records, SimulatedView(SimulatedStore(), "s"))
    coordinator = Coordinator(make_chain_builder(), book, samples=3, max_running=3)
    assert coordinator.next_trial() is None and book.num_running
    coordinator.stop("no node")
    records.written = set(records.trials)
    assert not book.num_running and coordinator.next_trial() is None and coordinator.finished
