"""What a sweep does becomes tracking events: executions under their trials, checkpoints made and used, cost charged once."""

import threading
from dataclasses import replace

import pytest
from made_up import MadeUpWorkers, make_chain_builder, make_coordinator, make_search
from made_up_stages import publish

from birdclef_core.store.patience import StorageAway
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.objective import Objective
from sweeps.schedule.update import EpochPoint
from sweeps.search import Choice, Range
from sweeps.tracking.events import (
    CheckpointUsed,
    DeliveryStatus,
    EpochFinished,
    StageFinished,
    StageStarted,
    TrialFinished,
    TrialStarted,
)
from sweeps.tracking.observer import TrackingObserver


class ListTracker:
    def __init__(self) -> None:
        self.events = []

    def log(self, event) -> None:
        self.events.append(event)

    def keep(self) -> None:
        pass

    def close(self, timeout_s: float = 60.0) -> DeliveryStatus:
        return DeliveryStatus(delivered=len(self.events), kept=0, rejected=0)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def tracker():
    return ListTracker()


@pytest.fixture
def workers(tmp_path, tracker, monkeypatch):
    return make_workers(make_search(), tmp_path, tracker, monkeypatch)


def make_workers(search, folder, tracker, monkeypatch, objective: str | None = None) -> MadeUpWorkers:
    monkeypatch.setattr(StageStore, "copy_reports", lambda self, stage_id, folder: folder.mkdir(parents=True, exist_ok=True))
    store = StageStore(Storage.parse(str(folder / "store")))
    observer = TrackingObserver(
        tracker, store, folder, space=search.space, tags={"birdclef.sweep": "s"}, objective=Objective.of(objective)
    )
    return MadeUpWorkers(make_coordinator(folder / "sweep", make_chain_builder(search), samples=8, observers=(observer,)))


def test_every_execution_is_started_finished_once_and_names_its_parent(workers, tracker):
    workers.run()
    started, finished = tracker.of(StageStarted), tracker.of(StageFinished)
    assert len(started) == len({event.execution for event in started})
    assert {event.execution for event in finished} <= {event.execution for event in started}
    published = [event for event in finished if event.status == "finished"]
    assert sorted(event.stage_id for event in published) == sorted(workers.executed)
    by_stage_id = {event.stage_id for event in published}
    assert all(event.starts_from is None or event.starts_from in by_stage_id for event in started)
    assert all(event.artifacts for event in published)


def test_the_driver_does_not_wait_for_the_reports_of_a_remote_storage(tmp_path, tracker, monkeypatch):
    """They lie under another name until all are there. What cannot be copied leaves nothing behind."""
    workers = make_workers(make_search(), tmp_path, tracker, monkeypatch)
    monkeypatch.setattr(Storage, "is_local", False)
    may_copy, copied = threading.Event(), []

    def slowly(self, stage_id, folder):
        assert may_copy.wait(10)
        copied.append(stage_id)
        if len(copied) == 1:
            raise OSError("away")
        (folder / "table.csv").write_text("species,ap")

    monkeypatch.setattr(StageStore, "copy_reports", slowly)
    workers.coordinator._observers[0]._copy_reports("a" * 64)
    workers.coordinator._observers[0]._copy_reports("b" * 64)
    reports = tmp_path / "reports"
    assert sorted(path.name for path in reports.iterdir()) == [f"{'a' * 16}.part", f"{'b' * 16}.part"] and not copied
    may_copy.set()
    workers.coordinator._observers[0].finish_copies()
    assert [path.name for path in reports.iterdir()] == [copied[1][:16]]
    assert [path.name for path in reports.glob("*/*")] == ["table.csv"]


def test_a_reused_checkpoint_is_used_and_not_executed(workers, tracker):
    workers.run()
    used = tracker.of(CheckpointUsed)
    assert used
    assert {event.stage_id for event in used} <= set(workers.executed)


def test_a_trial_has_the_values_that_the_search_varies_and_its_costs(workers, tracker):
    workers.run()
    params = tracker.of(TrialStarted)[0].params
    assert set(params) == {"recipe", *make_search().space}
    ended = tracker.of(TrialFinished)
    last = {event.trial: event.metrics["cost/spent_s"] for event in ended}  # a trial that goes on after it was stopped ends again
    assert sum(last.values()) == workers.epochs
    assert all(("objective" in event.metrics) == (event.status == "finished") for event in ended)


def test_a_parameter_whose_condition_does_not_hold_is_none_of_the_trial(tmp_path, tracker, monkeypatch):
    search = replace(
        make_search(),
        space={
            "model.drop_rate": Choice((0.1, 0.2)),
            "train.mixing.wave_prob": Choice((0.0, 0.5)),
            "train.mixing.wave_double_prob": Range(0.0, 0.9, when="train.mixing.wave_prob > 0"),
        },
    )
    make_workers(search, tmp_path, tracker, monkeypatch).run()
    params = [event.params for event in tracker.of(TrialStarted)]
    assert {params["model.drop_rate"] for params in params} == {0.1, 0.2}
    assert {("train.mixing.wave_double_prob" in one, one["train.mixing.wave_prob"] > 0) for one in params} == {
        (True, True),
        (False, False),
    }


def test_a_finished_trial_has_the_cost_by_which_trials_are_compared(tmp_path, tracker, monkeypatch):
    workers = make_workers(make_search(), tmp_path, tracker, monkeypatch, "val/cmap, cost/device_hours")
    workers.run()
    ended = tracker.of(TrialFinished)
    assert all(("cost/device_hours" in event.metrics) == (event.status == "finished") for event in ended)
    record = workers.coordinator.trials[ended[0].trial]
    assert {event.trial: event.metrics.get("cost/device_hours") for event in ended}[record.trial] == (
        record.costs["cost/device_hours"] if record.status == "finished" else None
    )


def test_a_finished_trial_has_the_objective_with_its_standard_error(workers, tracker):
    trial = workers.coordinator.next_trial()
    updates = workers.updates(trial)
    updates[0].metrics["val/cmap_se"] = 0.25
    for update in updates[::-1]:
        workers.coordinator.update(trial.record.trial, update)
    (ended,) = tracker.of(TrialFinished)
    assert (ended.metrics["objective"], ended.metrics["objective_se"]) == (updates[0].score, 0.25)


def test_epochs_count_on_over_the_stages_of_a_trial(workers, tracker):
    workers.run()
    first = [event.trial_epoch for event in tracker.of(EpochFinished) if event.trial == "t0000"]
    assert first == list(range(1, len(first) + 1))


def test_epochs_that_the_driver_never_heard_of_are_told_with_the_next_update(workers, tracker):
    """Those that it has told itself are not, and a stage that ended while no driver lived is told from its record."""
    trial = workers.coordinator.next_trial()
    *_, second, first = workers.updates(trial)
    earlier = [EpochPoint(epoch=epoch, metrics={"val/cmap": epoch / 10}, time_s=float(epoch)) for epoch in (1, 2, 3)]
    workers.coordinator.update(trial.record.trial, replace(first, time_s=1.0))
    workers.coordinator.update(trial.record.trial, replace(second, epoch=3, epochs=5, time_s=3.0, earlier=earlier[:2]))
    ended = replace(
        second, kind="reused", epoch=5, epochs=5, is_own=True, earlier=[*earlier, replace(earlier[-1], epoch=4, time_s=4.0)]
    )
    workers.coordinator.update(trial.record.trial, ended)
    told = tracker.of(EpochFinished)
    assert [(event.epoch, event.trial_epoch, event.time_s) for event in told] == [(n, n, float(n)) for n in (1, 2, 3, 4)]
    assert told[1].metrics == {"val/cmap": 0.2}
    assert [type(event) for event in tracker.events[-2:]] == [EpochFinished, StageFinished]


def test_epochs_before_a_failure_are_told_too(workers, tracker):
    trial = workers.coordinator.next_trial()
    first = workers.updates(trial)[-1]
    point = EpochPoint(epoch=1, metrics={"val/cmap": 0.1}, time_s=1.0)
    workers.coordinator.update(trial.record.trial, replace(first, kind="failed", score=float("nan"), done=True, earlier=[point]))
    assert [event.epoch for event in tracker.of(EpochFinished)] == [1]
    assert [event.status for event in tracker.of(StageFinished)] == ["failed"]


def test_a_worker_lost_for_good_fails_its_execution(workers, tracker):
    workers.step()
    trial = tracker.of(EpochFinished)[0].trial
    workers.coordinator.worker_lost(trial, "killed")
    workers.coordinator.fail(trial)
    assert [(event.trial, event.status) for event in tracker.of(StageFinished)] == [(trial, "failed")]
    assert tracker.of(TrialFinished)[0].reason == "worker lost: killed"


def test_an_interrupted_trial_leaves_its_execution_open(workers, tracker):
    for _ in range(2):
        workers.step()
    workers.coordinator.interrupt()
    assert {event.status for event in tracker.of(TrialFinished)} == {"interrupted"}
    assert not tracker.of(StageFinished)


def test_a_trial_brings_the_lineage_of_what_it_came_to(workers, tracker, tmp_path):
    store = StageStore(Storage.parse(str(tmp_path / "store")))
    planned = workers.coordinator.next_trial()
    for task in planned.chain:
        publish(store, task.stage_id, stage=task.config.name, parent_id=task.parent_id)
    workers.running[planned.record.trial] = workers.updates(planned)
    workers.run()
    ended = {event.trial: event for event in tracker.of(TrialFinished)}
    assert all(event.artifacts == f"lineages/{trial}" for trial, event in ended.items())
    page = (tmp_path / ended[planned.record.trial].artifacts / "lineage.html").read_text()
    known = [task.stage_id[:16] in page for task in planned.chain]
    assert known == [index < len(planned.record.stage_scores) for index in range(len(known))]
    assert f"Lineage of {planned.record.trial}" in page and "<svg" in page


def test_an_interrupted_trial_and_one_that_came_to_nothing_bring_none(workers, tracker):
    workers.fail_stage = "pretrain_ce"
    workers.step()
    workers.step()
    workers.coordinator.interrupt()
    ended = tracker.of(TrialFinished)
    assert {event.status for event in ended} >= {"failed"} and not any(event.artifacts for event in ended)


def test_a_stages_settings_are_parameters_of_types_that_a_tracker_has(workers, tracker):
    workers.step()
    params = tracker.of(StageStarted)[0].params
    assert params["mixing.wave_double_prob"] == 0.5
    assert params["noise.0.source"] == "*"
    assert params["freeze_encoder"] is False
    assert params["clip_gradient_norm"] == "None"


def test_a_trial_that_starts_from_a_checkpoint_is_its_user(tmp_path, tracker):
    store = StageStore(Storage.parse(str(tmp_path / "store")))
    publish(store, "a" * 64, stage="pretrain_bce")
    observer = TrackingObserver(tracker, store, tmp_path, space=(), tags={}, objective=Objective.of(None))
    coordinator = make_coordinator(tmp_path / "sweep", make_chain_builder(start="a" * 64), samples=1, observers=(observer,))
    MadeUpWorkers(coordinator).fill()
    used = tracker.of(CheckpointUsed)
    assert [(event.trial, event.stage_id, event.stage) for event in used] == [("t0000", "a" * 64, "pretrain_bce")]


@pytest.mark.parametrize(("error", "said"), [(StorageAway("away for too long"), 0), (OSError("disk full"), 1)])
def test_a_storage_that_is_away_is_not_told_again_where_reports_are_copied(tmp_path, tracker, monkeypatch, caplog, error, said):
    def fail(self, stage_id, folder) -> None:
        raise error

    monkeypatch.setattr(StageStore, "copy_reports", fail)
    store = StageStore(Storage.parse(str(tmp_path / "store")))
    observer = TrackingObserver(tracker, store, tmp_path, space={}, tags={}, objective=Objective.of(None))
    observer._copy_later("a" * 64, tmp_path / "reports")
    assert len(caplog.records) == said
