"""What the coordinator of a killed or stopped driver leaves to the next one, and what is on record at any moment."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
from made_up import MadeUpWorkers, make_chain_builder, make_coordinator, view_of

from birdclef_core.store.storage import Storage
from sweeps.plan.simulate import MemoryRecords, SimulatedStore, SimulatedView
from sweeps.schedule.coordinator import MAX_LOSSES, MAX_OTHER_LOSSES, Coordinator, Observer
from sweeps.schedule.pruning import RungScore, StageHalving
from sweeps.schedule.records import SweepRecords, TrialRecord
from sweeps.schedule.trials import TrialBook


def run(folder, **options) -> MadeUpWorkers:
    workers = MadeUpWorkers(make_coordinator(folder, **options))
    workers.run()
    return workers


def test_what_a_driver_knew_of_scores_its_successor_knows(tmp_path):
    first = run(tmp_path, samples=20)
    before = first.coordinator._verdicts.pruning
    after = make_coordinator(tmp_path, samples=20, store=view_of(first.coordinator).store)._verdicts.pruning
    assert set(after.stopped) <= set(before.stopped)
    assert {rung: scores.known for rung, scores in after._scores.items()} == {
        rung: scores.known for rung, scores in before._scores.items()
    }


@pytest.mark.parametrize("kill_after", range(1, 60, 6))
def test_a_driver_killed_at_any_moment_is_taken_up_by_the_next(tmp_path, kill_after):
    first = MadeUpWorkers(make_coordinator(tmp_path, samples=12))
    for _ in range(kill_after):
        first.step()
    known = {name: (record.recipe, record.params, record.stage_ids) for name, record in first.coordinator.trials.items()}
    finished = {name: record.score for name, record in first.coordinator.trials.items() if record.status == "finished"}

    second = MadeUpWorkers(make_coordinator(tmp_path, samples=12, store=view_of(first.coordinator).store))
    taken_up = {name: (record.recipe, record.params, record.stage_ids) for name, record in second.coordinator.trials.items()}
    assert taken_up == known
    second.run()
    trials = second.coordinator.trials
    assert len(trials) == 12
    assert all(trials[name].score == score for name, score in finished.items())
    executed = first.executed + second.executed
    assert len(executed) == len(set(executed))


def test_an_interrupted_sweep_goes_on_with_the_same_trials(tmp_path):
    first = MadeUpWorkers(make_coordinator(tmp_path, samples=6))
    for _ in range(5):
        first.step()
    running = sorted(first.running)
    first.coordinator.interrupt()
    second = make_coordinator(tmp_path, samples=6)
    assert [second.next_trial().record.trial for _ in running] == running


def test_reports_of_a_trial_that_has_ended_are_passed_over(tmp_path):
    workers = MadeUpWorkers(make_coordinator(tmp_path))
    workers.fill()
    trial = next(iter(workers.running))
    workers.coordinator.worker_lost(trial, "killed")
    workers.coordinator.fail(trial)
    before = workers.coordinator.trials[trial].cost_s
    assert not workers.coordinator.update(trial, workers.running[trial].pop())
    assert workers.coordinator.trials[trial].cost_s == before


def test_a_trial_fails_by_its_own_losses_and_not_by_those_of_its_machines(tmp_path):
    workers = MadeUpWorkers(make_coordinator(tmp_path, max_running=1))
    workers.step()
    coordinator, trial = workers.coordinator, next(iter(workers.running))
    for _ in range(MAX_OTHER_LOSSES):
        assert coordinator.worker_lost(trial, "its node has died", by_trial=False)
    coordinator.update(trial, workers.running[trial].pop())
    for _ in range(MAX_OTHER_LOSSES):
        assert coordinator.worker_lost(trial, "its node has died", by_trial=False), "something has come of it since"
    for _ in range(MAX_LOSSES):
        assert coordinator.worker_lost(trial, "killed")
    assert not coordinator.worker_lost(trial, "killed")
    assert coordinator.trials[trial].status == "failed"
    assert coordinator.trials[trial].reason == "worker lost 4 times, at last: killed"
    assert not coordinator.worker_lost(trial, "killed"), "it has ended"


def test_a_trial_that_never_gets_anywhere_ends_whosever_fault_it_is(tmp_path):
    coordinator = make_coordinator(tmp_path, max_running=1)
    trial = coordinator.next_trial().record
    for _ in range(MAX_OTHER_LOSSES):
        assert coordinator.worker_lost(trial.trial, "storage away", by_trial=False)
    assert not coordinator.worker_lost(trial.trial, "storage away", by_trial=False)
    assert trial.status == "failed"


def test_a_trial_that_is_begun_again_repeats_itself_and_is_counted_once(tmp_path):
    """As after a lost worker: what it reused, and the stages that it had trained, are reported a second time."""
    workers = run(tmp_path, samples=2, max_running=1)
    coordinator = make_coordinator(tmp_path, store=view_of(workers.coordinator).store, samples=3, max_running=1)
    planned = coordinator.next_trial()
    updates = MadeUpWorkers(coordinator).updates(planned)[::-1]
    reused = sum(update.kind == "reused" for update in updates)
    assert 0 < reused < len(updates)
    for update in updates[: reused + 1]:
        assert coordinator.update(planned.record.trial, update)
    for update in updates[: reused + 1]:
        coordinator.update(planned.record.trial, update)
    assert planned.record.saved_s == reused
    before = sum(task.config.epochs for task in planned.chain[:reused])
    assert planned.record.epochs_done == before + 1


def test_a_stage_whose_end_was_not_heard_of_is_charged_to_the_trial_that_trained_it(tmp_path):
    coordinator = make_coordinator(tmp_path, samples=1, max_running=1)
    planned = coordinator.next_trial()
    first = MadeUpWorkers(coordinator).updates(planned)[-1]
    heard = []

    class Heard(Observer):
        def updated(self, trial, update):
            heard.append("updated")

        def stage_recovered(self, trial, update):
            heard.append("recovered")

    coordinator._observers = (Heard(),)
    for _ in range(2):
        again = replace(first, kind="reused", is_own=True, epoch=first.epochs, cost_s=7.0)
        assert coordinator.update(planned.record.trial, again)
    assert heard == ["recovered", "updated"]
    assert planned.record.trained_ids == [first.stage_id]
    assert (planned.record.cost_s, planned.record.saved_s) == (7.0, 0.0)


@pytest.mark.parametrize(("every_s", "on_record"), [(0.0, 1), (60.0, 0)])
def test_what_a_long_stage_has_cost_is_on_record_before_it_ends(tmp_path, monkeypatch, every_s, on_record):
    monkeypatch.setattr("sweeps.schedule.trials.SAVE_EVERY_S", every_s)
    coordinator = make_coordinator(tmp_path, samples=1, max_running=1)
    planned = coordinator.next_trial()
    coordinator.update(planned.record.trial, MadeUpWorkers(coordinator).updates(planned)[-1])
    assert [record.epochs_trained for record in coordinator.book._storage.load_trials()] == [on_record]


class LaggingRecords(MemoryRecords):
    """Records of which the last few batches are not written yet, as on an object store."""

    def __init__(self, lag: int) -> None:
        super().__init__()
        self._lag = lag
        self._waiting: list[dict[str, TrialRecord]] = []

    def save_trials(self, trials) -> None:
        self._waiting.append({trial.trial: deepcopy(trial) for trial in trials})
        self._write(all_but=self._lag)

    def _write(self, all_but: int) -> None:
        while len(self._waiting) > all_but:
            self.trials |= self._waiting.pop(0)

    def is_saved(self, trial: str) -> bool:
        return not any(trial in batch for batch in self._waiting)

    @property
    def all_saved(self) -> bool:
        return not self._waiting

    def wait(self, limit_s: float | None = None) -> None:
        self._write(all_but=0)


@pytest.mark.parametrize("kill_after", range(1, 60, 6))
@pytest.mark.parametrize("lag", [1, 4])
def test_a_driver_killed_before_its_last_records_were_written_is_taken_up_by_the_next(kill_after, lag):
    """Whoever was handed a trial finds it in the next driver too; what else was not written comes of the store again."""
    records, store, handed = LaggingRecords(lag), SimulatedStore(), {}

    class Heard(Observer):
        def trial_started(self, trial):
            handed[trial.record.trial] = trial.record.params

    def coordinator(records) -> Coordinator:
        book = TrialBook(records, SimulatedView(store, "s"))
        return Coordinator(
            make_chain_builder(), book, samples=12, max_running=3, observers=(Heard(),), pruning=StageHalving(grace=math.inf)
        )

    first = MadeUpWorkers(coordinator(records))
    for _ in range(kill_after):
        first.step()
    second = MadeUpWorkers(coordinator(MemoryRecords(deepcopy(records.trials))))
    assert handed and {name: second.coordinator.trials[name].params for name in handed} == handed
    second.run()
    trials = second.coordinator.trials
    assert len(trials) == 12 and {record.status for record in trials.values()} == {"finished"}
    assert all(
        trials[name].score == record.score for name, record in first.coordinator.trials.items() if record.status == "finished"
    )
    executed = first.executed + second.executed
    assert len(executed) == len(set(executed))


class Interrupted(Exception):
    """Stands for Ctrl-C: it comes while an observer works."""


class Fragile(Observer):
    """Is interrupted in a method, once."""

    def __init__(self, method: str) -> None:
        def interrupt(*_):
            delattr(self, method)
            raise Interrupted

        setattr(self, method, interrupt)


def test_a_trial_whose_end_was_not_passed_on_is_not_recorded_as_ended(tmp_path):
    """Ctrl-C comes while the tracker is told: the next driver must tell it again."""
    coordinator = make_coordinator(tmp_path, samples=3, max_running=2, observers=(Fragile("trial_ended"),))
    workers = MadeUpWorkers(coordinator)
    with pytest.raises(Interrupted):
        workers.run()
    coordinator.interrupt()
    on_record = {record.trial: record.status for record in coordinator.book._storage.load_trials()}
    unheard = [name for name, record in coordinator.trials.items() if record.ended]
    assert len(unheard) == 1
    assert on_record[unheard[0]] == "running"


def test_a_stage_whose_end_was_not_passed_on_is_recovered_by_the_next_driver(tmp_path):
    coordinator = make_coordinator(tmp_path, samples=1, max_running=1, observers=())
    trial = coordinator.next_trial()
    updates = MadeUpWorkers(coordinator).updates(trial)[::-1]
    last = next(update for update in updates if update.stage_done)
    for update in updates[: updates.index(last)]:
        coordinator.update(trial.record.trial, update)
    coordinator._observers = (Fragile("updated"),)
    with pytest.raises(Interrupted):
        coordinator.update(trial.record.trial, last)
    coordinator.interrupt()
    assert [record.trained_ids for record in coordinator.book._storage.load_trials()] == [[]]


def test_what_was_spent_on_a_stage_does_not_shrink_when_its_end_was_not_heard_of(tmp_path):
    coordinator = make_coordinator(tmp_path, samples=1, max_running=1)
    trial = coordinator.next_trial()
    first = MadeUpWorkers(coordinator).updates(trial)[-1]
    coordinator.update(trial.record.trial, replace(first, cost_s=10.0))
    coordinator.update(trial.record.trial, replace(first, kind="reused", is_own=True, epoch=first.epochs, cost_s=7.0))
    assert trial.record.cost_s == 10.0


def test_the_sampler_hears_nothing_of_an_interrupted_trial(tmp_path):
    coordinator = make_coordinator(tmp_path, samples=1, max_running=1)
    trial = coordinator.next_trial()
    coordinator.interrupt()
    assert (trial.record.status, trial.record.told) == ("interrupted", [])


def test_the_end_of_a_stage_is_on_record_at_once(tmp_path):
    coordinator = make_coordinator(tmp_path, samples=1, max_running=1)
    trial = coordinator.next_trial()
    first = MadeUpWorkers(coordinator).updates(trial)[-1]
    assert coordinator.update(trial.record.trial, replace(first, epoch=first.epochs))
    assert [record.trained_ids for record in coordinator.book._storage.load_trials()] == [[first.stage_id]]


def test_a_trial_that_was_pruned_under_an_earlier_driver_goes_on_when_its_stage_rises(tmp_path):
    first = run(tmp_path, samples=30).coordinator
    stage_id = next(record.stopped.stage_id for record in first.trials.values() if record.stopped)
    pruned = {name for name, record in first.trials.items() if record.stopped and record.stopped.stage_id == stage_id}
    second = make_coordinator(tmp_path, samples=30, store=view_of(first).store)
    pruning = second._verdicts.pruning
    rung = pruning.stopped[stage_id].rung
    at_rung = {name for name, record in first.trials.items() if record.stopped and record.stopped.rung == rung}
    for number in range(100):
        pruning.add(RungScore(rung=rung, stage_id=f"worse {number}", score=-1.0))
    trial = second.next_trial()
    assert trial is not None and trial.record.trial in at_rung
    assert all(second.trials[name].status in ("waiting", "running") for name in pruned)


def test_nothing_is_said_of_a_trial_before_it_is_on_record(tmp_path):
    """A driver that is killed in between would give the trial's name to another draw, and the tracker refuses other parameters."""
    recorded = []

    class Heard(Observer):
        def trial_started(self, trial):
            on_record = SweepRecords(Storage.parse(str(tmp_path)).at("sweep")).load_trials()
            recorded.append(trial.record.trial in {record.trial for record in on_record})

    run(tmp_path, samples=40, max_running=3, observers=(Heard(),))
    assert recorded and all(recorded)
