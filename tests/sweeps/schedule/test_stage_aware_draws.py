"""A sweep with the stage-aware sampler: it draws the same after a kill, and what it pauses may go on at any time."""

import math
from dataclasses import dataclass, field, replace
from unittest.mock import Mock

import pytest
from made_up import MadeUpWorkers, make_chain_builder, make_coordinator, make_search, view_of

from sweeps.plan.simulate import SimulatedStore, SimulatedSweep, even_score, simulate
from sweeps.sampling.facts import Proposal
from sweeps.sampling.stage_sampler import MIN_STAGES_TO_STOP, Worth
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.trials import Trial
from sweeps.schedule.update import TrialUpdate
from sweeps.search import Choice, Range, Search

RATE = Range(1e-4, 1e-2, log=True)
STAGES = ("pretrain_ce", "pretrain_bce", "train_ce", "train_bce", "finetune")
SEARCH = Search(
    name="stage-aware",
    recipes=make_search().recipes[:1],
    space={f"{stage}.learning_rate": RATE for stage in STAGES},
    sampler="stage",
)
"""Every stage has a parameter, so no draw waits for a stage that another trial is training."""
LATE = replace(SEARCH, space={"train_bce.learning_rate": RATE})
"""All trials share the first three stages."""


def made(folder, search: Search = SEARCH, **options) -> Coordinator:
    options = {"prunes": False, "stops_by_worth": True, **options}
    return make_coordinator(folder, make_chain_builder(search), **options)


@dataclass
class Clock:
    """A cluster with a clock. A stage goes on where it was when a driver is killed, so it ends when it would have."""

    store: SimulatedStore = field(default_factory=SimulatedStore)
    now_s: float = 0.0
    ends: dict[str, float] = field(default_factory=dict)
    """When each stage that was begun ends, by its id."""
    trained: list[str] = field(default_factory=list)

    def run(self, coordinator: Coordinator, kill_s: float = math.inf) -> None:
        running: dict[str, tuple[Trial, int]] = {}
        while True:
            while (trial := coordinator.next_trial()) is not None:
                running[trial.record.trial] = trial, self._begin(coordinator, trial)
            if not running:
                return
            name = min(running, key=lambda item: self._ends(*running[item]))
            trial, index = running[name]
            if self._ends(trial, index) > kill_s:
                return
            self.now_s = self._ends(trial, index)
            stage_id = trial.chain[index].stage_id
            self.store.published.add(stage_id)
            self.trained.append(stage_id)
            epochs = trial.chain[index].config.epochs
            goes_on = [coordinator.update(name, update_of(trial, index, epoch)) for epoch in range(1, epochs + 1)][-1]
            if goes_on:
                running[name] = trial, index + 1
                self._ends(trial, index + 1)
            else:
                del running[name]

    def _begin(self, coordinator: Coordinator, trial: Trial) -> int:
        """Report the stages that are in the store, and return the place of the first one that is not."""
        index = 0
        while trial.chain[index].stage_id in self.store.published:
            assert coordinator.update(trial.record.trial, update_of(trial, index, kind="reused"))
            index += 1
        self._ends(trial, index)
        return index

    def _ends(self, trial: Trial, index: int) -> float:
        stage_id = trial.chain[index].stage_id
        return self.ends.setdefault(stage_id, self.now_s + 10 + int(stage_id[8:16], 16) / 2**32)


def update_of(trial: Trial, index: int, epoch: int | None = None, *, kind="epoch") -> TrialUpdate:
    task = trial.chain[index]
    epochs = task.config.epochs
    epoch = epoch or epochs
    return TrialUpdate(
        kind=kind,
        stage=task.config.name,
        stage_index=index,
        stage_id=task.stage_id,
        epoch=epoch,
        epochs=epochs,
        score=even_score(task, epoch),
        cost_s=10 / epochs if kind == "epoch" else 10.0,
        done=index == len(trial.chain) - 1 and epoch == epochs,
    )


def outcome_of(coordinator: Coordinator) -> list[tuple]:
    return [
        (record.trial, record.params, record.status, record.stage_scores, record.score, record.foretold, record.spent_s)
        for record in coordinator.trials.values()
    ]


# The same draws after a kill.


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Clock, Coordinator]:
    clock, coordinator = Clock(), made(tmp_path_factory.mktemp("whole"), samples=14, max_running=3)
    clock.run(coordinator)
    return clock, coordinator


def test_the_sweep_that_is_killed_pauses_trials_and_lets_them_go_on(whole):
    records = whole[1].trials.values()
    assert len(records) == 14 and all(record.ended for record in records)
    assert any(record.paused for record in records)
    assert any(record.foretold for record in records)
    assert len(whole[0].trained) == len(set(whole[0].trained))


@pytest.mark.parametrize("share", [0.15, 0.4, 0.7, 0.9])
def test_a_sweep_that_was_killed_and_resumed_draws_what_it_would_have_drawn(tmp_path, whole, share):
    clock = Clock()
    clock.run(made(tmp_path, samples=14, max_running=3), kill_s=whole[0].now_s * share)
    resumed = made(tmp_path, samples=14, max_running=3, store=clock.store)
    clock.run(resumed)
    assert outcome_of(resumed) == outcome_of(whole[1])
    assert clock.trained == whole[0].trained and clock.now_s == whole[0].now_s


@pytest.mark.parametrize("kill_after", [1, 40, 90])
def test_the_next_driver_is_told_what_the_one_before_knew(tmp_path, kill_after):
    """Also before its workers have reported again what they find in the store."""
    workers = MadeUpWorkers(made(tmp_path, samples=12))
    for _ in range(kill_after):
        workers.step()
    before = workers.coordinator
    after = made(tmp_path, samples=12, store=view_of(before).store)
    known, again = (one._source._facts().trials for one in (before, after))
    unfinished = {record.trial for record in before.trials.values() if not record.ended}
    assert [item.trial for item in again] == list(before.trials)
    for old, new in zip(known, again, strict=False):
        assert replace(old, spent_s=[]) == replace(new, spent_s=[])
        assert old.trial in unfinished or old.spent_s == new.spent_s
    if not before.book.num_drawn:
        assert after._source._study.drawn == before._source._study.drawn


def test_the_sampler_is_told_what_stages_cost_and_how_long_those_in_training_still_take(tmp_path):
    coordinator = made(tmp_path, LATE, samples=3, max_running=1)
    trial = coordinator.next_trial()
    assert coordinator.update(trial.record.trial, update_of(trial, 0, 1))
    facts, epochs = coordinator._source._facts(), trial.chain[0].config.epochs
    assert facts.stage_s("sed_v2s", trial.record.params)[0] == pytest.approx(10.0)
    assert facts.left_s == pytest.approx({trial.record.stage_ids[0]: 10.0 * (epochs - 1) / epochs})


# What is paused.


def stopping(coordinator: Coordinator, *stages: str) -> list[tuple[str, str]]:
    """Let a coordinator stop every trial at the ends of these stages; returns which trial was asked about at which stage."""
    asked: list[tuple[str, str]] = []

    def why_stop(trial: Trial) -> str:
        asked.append((trial.record.trial, trial.record.stage))
        return "something else is worth more" if trial.record.stage in stages else ""

    coordinator._source.why_stop = why_stop
    return asked


def proposing(coordinator: Coordinator, *params: dict) -> None:
    """Let the sampler propose these points in turn, and then its own."""
    sampler, left = coordinator._source._stage_sampler, list(params)
    own = sampler.propose
    sampler.propose = lambda facts, number: (
        Proposal(recipe="sed_v2s", params=left.pop(0), foretold={}) if left else own(facts, number)
    )


def rate(value: float) -> dict:
    return {"train_bce.learning_rate": value}


def test_a_paused_trial_blocks_no_stage_and_goes_on_by_a_later_draw_with_what_is_missing(tmp_path):
    coordinator = made(tmp_path, LATE, samples=3, max_running=1)
    asked = stopping(coordinator, "pretrain_bce")
    proposing(coordinator, rate(1e-3), rate(2e-3), rate(1e-3))
    workers = MadeUpWorkers(coordinator)
    while "t0001" not in workers.running:
        workers.step()
        workers.fill()
    paused = coordinator.trials["t0000"]
    assert (paused.status, paused.stopped.by, paused.stopped.rung.stage) == ("pruned", "worth", "pretrain_bce") and paused.paused
    assert paused.reason == "something else is worth more"
    assert coordinator.trials["t0001"].stage_ids[2] == paused.stage_ids[2], "it goes on with the stage that the other had claimed"
    assert coordinator._verdicts.stopped(paused.stage_ids) is None
    stopping(coordinator)
    while paused.status != "finished":
        assert workers.step()
    assert [told.outcome.kind for told in paused.told] == ["pruned", "score"]
    workers.run()
    assert len(coordinator.trials) == 3 and all(record.status == "finished" for record in coordinator.trials.values())
    assert len(workers.executed) == len(set(workers.executed)), "it has trained only what was missing"
    assert ("t0000", "pretrain_bce") in asked and len(asked) == len(set(asked))


def test_others_wait_for_no_stage_of_a_paused_trial(tmp_path):
    coordinator = made(tmp_path, LATE, samples=4, max_running=2)
    proposing(coordinator, rate(1e-3), rate(2e-3), rate(3e-3))
    stopping(coordinator, "pretrain_ce")
    trial = coordinator.next_trial()
    assert coordinator.next_trial() is None and coordinator.book.num_drawn == 2, "the others need the same stages"
    assert [item.state for item in coordinator._source._facts().trials] == ["open"] * 3, "the sampler knows that they wait"
    first = MadeUpWorkers(coordinator).updates(trial)[-1]
    assert not coordinator.update(trial.record.trial, replace(first, epoch=first.epochs))
    assert trial.record.paused
    other = coordinator.next_trial()
    assert other is not None and other.record.trial == "t0001" and other.record.stage_ids[1] == trial.record.stage_ids[1]


def test_a_search_in_which_everything_stops_comes_to_its_end(tmp_path):
    """Nothing is asked about at a stage that it reuses, or the same trial would be paused and drawn again for ever."""
    coordinator = made(tmp_path, samples=6, max_running=2)
    asked, workers = stopping(coordinator, *STAGES), MadeUpWorkers(coordinator)
    for _ in range(400):
        if not workers.step():
            break
    assert coordinator.finished and len(coordinator.trials) == 6
    assert len(asked) == len(set(asked)), "each stage that a trial has trained, once"
    assert any(record.status == "finished" for record in coordinator.trials.values())
    assert len(workers.executed) == len(set(workers.executed))


def test_nothing_is_paused_when_no_more_may_be_drawn_nor_at_the_last_stage(tmp_path):
    coordinator = made(tmp_path, samples=1, max_running=1)
    asked, workers = stopping(coordinator, *STAGES), MadeUpWorkers(coordinator)
    workers.run()
    assert not asked and coordinator.trials["t0000"].status == "finished"
    more = made(tmp_path / "more", samples=2, max_running=1)
    asked, workers = stopping(more), MadeUpWorkers(more)
    workers.run()
    assert "finetune" not in {stage for _, stage in asked} and asked


@pytest.mark.parametrize("how", ["resumed", "extended"])
def test_a_paused_trial_stays_paused_under_the_next_driver_and_goes_on_when_it_is_drawn(tmp_path, how):
    first = made(tmp_path, LATE, samples=2, max_running=1)
    stopping(first, "pretrain_bce")
    proposing(first, rate(1e-3))
    workers = MadeUpWorkers(first)
    while not (first.trials and first.trials["t0000"].paused):
        workers.step()
    search = LATE if how == "resumed" else replace(LATE, space={**LATE.space, "finetune.learning_rate": Choice((5e-4, 1e-3))})
    second = made(tmp_path, search, samples=4, max_running=1, store=view_of(first).store)
    assert second.trials["t0000"].paused and not second._verdicts.pruning.stopped
    assert [item.state for item in second._source._facts().trials] == (["paused"] if how == "resumed" else [])
    stopping(second)
    proposing(second, rate(1e-3) if how == "resumed" else {**rate(1e-3), "finetune.learning_rate": 5e-4})
    again = MadeUpWorkers(second)
    again.run()
    assert second.trials["t0000"].status == "finished"
    executed = workers.executed + again.executed
    assert len(executed) == len(set(executed))


def test_a_trial_that_means_something_else_by_now_is_not_judged(tmp_path):
    """Another version of the code makes other stages of its parameters. It goes on, and nobody can say what it is worth."""
    first = made(tmp_path, samples=1, max_running=1)
    record = first.next_trial().record
    record.config_id = "of another version"
    first.interrupt()
    workers = MadeUpWorkers(made(tmp_path, samples=9, max_running=1))
    record = workers.coordinator.trials["t0000"]
    while record.status != "finished":
        assert workers.step()
    assert record.trial not in {item.trial for item in workers.coordinator._source._facts().trials}


def test_it_is_said_how_much_more_something_else_may_gain(tmp_path):
    coordinator = made(tmp_path, samples=9, max_running=1)
    source = coordinator._source
    workers = MadeUpWorkers(coordinator)
    while not (coordinator.trials and coordinator.trials["t0000"].stage_scores):
        workers.step()
    trial = coordinator.book.running("t0000")
    for going_on, best_other, said in [
        (0.0, math.log(4), "another trial may gain 4 times as much in the same time"),
        (-900.0, 0.0, "another trial may gain more than 1000 times as much in the same time"),
        (-math.inf, 0.0, "another trial may gain more than 1000 times as much in the same time"),
        (0.0, 0.0, ""),
    ]:
        source._stage_sampler.worth = Mock(return_value=Worth(going_on=going_on, best_other=best_other))
        assert source.why_stop(trial) == said
        assert source._stage_sampler.worth.call_args.args[2] == source._study.drawn > 0, "random numbers of its own at every time"


def test_in_whole_sweeps_nothing_is_paused_before_four_stages_have_a_score_there(tmp_path):
    coordinator = made(tmp_path, samples=14, max_running=3)
    why_stop, source, early = coordinator._source.why_stop, coordinator._source, []

    def watched(trial: Trial) -> str:
        reason, stage = why_stop(trial), trial.record.stage
        reached = {
            record.stage_ids[record.stages.index(stage)] for record in coordinator.trials.values() if stage in record.stage_scores
        }
        early.extend([reason] if reason and len(reached) < MIN_STAGES_TO_STOP else [])
        return reason

    source.why_stop = watched
    result = simulate([SimulatedSweep(name="sweep", coordinator=coordinator)], view_of(coordinator).store, 3, lambda task: 1.0)
    records = coordinator.trials.values()
    assert not early and any(record.paused for record in records)
    assert set(result.executed.values()) == {1}
    assert result.worker_s == sum(record.cost_s for record in records)
