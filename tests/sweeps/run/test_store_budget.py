"""A sweep with a byte budget stays in it, loses nothing that it still needs, and says what it removed."""

from collections.abc import Collection, Iterator
from pathlib import Path
from types import SimpleNamespace

import made_up_stages
import pytest
from made_up import MadeUpWorkers, make_chain_builder
from made_up_store import A, P, make, publish, save_epoch_checkpoint, save_trial, store

from birdclef_core.store.leases import Holder, Leases
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.objective import Objective
from sweeps.plan.plan import CHECKPOINTS_KEPT, STATES_A_CHECKPOINT
from sweeps.plan.simulate import MemoryRecords, SimulatedStore, SimulatedView
from sweeps.run.store_budget import SHARE_A_LOOK, OtherSweeps, StoreBudget, budget_line
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.records import SweepRecords, TrialRecord
from sweeps.schedule.trial_log.writer import RecordWriter
from sweeps.schedule.trials import TrialBook

STAGE_BYTES = 42_000
"""About as much as a stage of 10,000 numbers takes."""


class Published:
    """The published stages of a real store, as a made-up worker sees them."""

    def __init__(self, stages: StageStore) -> None:
        self.stages = stages
        self.parents: dict[str, str | None] = {}
        self.told_gone = 0

    def __contains__(self, stage_id: object) -> bool:
        return self.stages.is_published(str(stage_id))

    def add(self, stage_id: str) -> None:
        if stage_id not in self:
            made_up_stages.publish(self.stages, stage_id, parent_id=self.parents[stage_id], num_floats=10_000)

    def discard(self, stage_id: str) -> None:
        assert stage_id not in self, "the driver was told before it was gone"
        self.told_gone += 1


class Workers(MadeUpWorkers):
    """Made-up workers that leave real files."""

    def updates(self, planned):
        self.published.parents |= {task.stage_id: task.parent_id for task in planned.chain}
        return super().updates(planned)


def sweep(folder: Path, max_bytes: int, *, samples: int = 20) -> tuple[Workers, StoreBudget, list[str]]:
    """A sweep on a store of files, its budget, and what it says."""
    storage, said, chains = Storage.parse(str(folder)), [], make_chain_builder()
    view = SimulatedView(SimulatedStore(published=Published(store(storage))), "s")
    book = TrialBook(RecordWriter(SweepRecords(storage.at("s"))), view)
    budget = StoreBudget(
        storage,
        book,
        sweep="s",
        max_bytes=max_bytes,
        max_running=2,
        stored_before=(),
        objective=Objective.of(None),
        say=said.append,
    )
    coordinator = Coordinator(chains, book, samples=samples, max_running=2, observers=(budget,))
    budget.begin()
    return Workers(coordinator), budget, said


def passed(workers: Workers) -> Iterator[str]:
    """Stages that running trials have behind them."""
    for trial, left in workers.running.items():
        open_ids = {update.stage_id for update in left}
        yield from (stage_id for stage_id in workers.coordinator.trials[trial].stage_ids if stage_id not in open_ids)


@pytest.mark.slow
def test_a_sweep_stays_in_its_budget_and_keeps_what_it_needs(tmp_path):
    workers, budget, said = sweep(tmp_path, 45 * STAGE_BYTES)
    stages = workers.published.stages
    while workers.step():
        taken = sum(file.num_bytes for file in stages.storage.at("stages").files())
        assert taken <= 45 * STAGE_BYTES
        assert all(stages.is_published(stage_id) for stage_id in passed(workers))
    trials = workers.coordinator.trials.values()
    best = max((record for record in trials if record.score is not None), key=lambda record: record.score)
    assert all(stages.check(stage_id) == "" for stage_id in best.stage_ids)
    assert {record.status for record in trials} <= {"finished", "pruned"} and len(trials) == 20
    assert budget.removed == workers.published.told_gone > 0, "or the driver would have trials reuse what is gone"
    assert said[0].startswith("Store: removed ") and "to stay within 1.8 MiB" in said[0]
    assert not [line for line in said if "must stay" in line]
    assert f"{budget.removed} stages were removed during the sweep" in budget.outcome()[0]


def test_a_budget_that_is_too_small_is_said_once_and_the_sweep_goes_on(tmp_path):
    workers, _, said = sweep(tmp_path, STAGE_BYTES, samples=3)
    workers.run()
    assert all(record.ended for record in workers.coordinator.trials.values())
    assert len([line for line in said if "must stay" in line and "The sweep goes on" in line]) == 1


def test_stopping_a_sweep_removes_nothing_that_its_trials_go_on_from(tmp_path):
    workers, budget, _ = sweep(tmp_path, 45 * STAGE_BYTES, samples=1)
    while not list(passed(workers)):
        workers.step()
    behind = list(passed(workers))
    budget._max_bytes, budget._until_next = 1, 0
    workers.coordinator.interrupt()
    assert all(workers.published.stages.is_published(stage_id) for stage_id in behind)


def test_a_store_that_is_away_for_a_while_is_said_once_and_ends_nothing(tmp_path, monkeypatch):
    workers, _, said = sweep(tmp_path, 45 * STAGE_BYTES, samples=3)

    def away(self):
        raise OSError("no route to host")

    monkeypatch.setattr(StageStore, "unfinished", away)
    workers.run()
    assert all(record.ended for record in workers.coordinator.trials.values())
    assert len(said) == 1 and "nothing is removed for now: no route to host. The sweep goes on." in said[0]


def test_with_room_nothing_is_removed_or_said(tmp_path):
    workers, budget, said = sweep(tmp_path, 2**40, samples=3)
    workers.run()
    assert said == [] and budget.outcome() == [] and budget.removed == 0


def made_up_budget(
    storage: Storage, max_bytes: int, *, stored_before: Collection[str] = (), max_running: int = 1
) -> tuple[StoreBudget, list[str]]:
    said: list[str] = []
    book = TrialBook(MemoryRecords(), SimulatedView(SimulatedStore(), "mine"))
    objective = Objective.of(None)
    budget = StoreBudget(
        storage,
        book,
        sweep="mine",
        max_bytes=max_bytes,
        max_running=max_running,
        stored_before=stored_before,
        objective=objective,
        say=said.append,
    )
    return budget, said


def test_what_others_need_stays_and_what_nobody_needs_goes_at_the_start(tmp_path):
    storage = make(str(tmp_path))
    for stage_id in ("1", "2", "3", "4"):
        publish(storage, stage_id * 64, "train_ce", parent_id=P)
    save_trial(storage, "t0000", (P, "1" * 64), sweep="other", status="interrupted", stage_scores={})
    save_epoch_checkpoint(storage, "1" * 64)
    save_epoch_checkpoint(storage, "5" * 64)
    budget, said = made_up_budget(storage, 1, stored_before=["3" * 64])
    with Leases(store(storage).storage).hold("2" * 64, Holder(sweep="third", run="1", trial="t")):
        budget.begin()
    assert {stage_id[0] for stage_id in store(storage).summaries()} == {P[0], A[0], "c", "1", "2", "3"}
    assert list(store(storage).unfinished()) == []
    assert "removed 2 stages" in said[0] and "the epoch checkpoints of 1 stage" in said[0]


@pytest.mark.parametrize(("max_running", "num_stages"), [(1, 3), (8, 3)])
def test_room_is_kept_for_what_the_running_trials_may_write_before_the_next_measurement(tmp_path, max_running, num_stages):
    """A stage for each running trial, and the epoch checkpoints of each, less those that are there already."""
    storage = Storage.parse(str(tmp_path))
    for number in range(num_stages):
        made_up_stages.publish(store(storage), str(number), num_floats=10_000)
    budget, _ = made_up_budget(storage, 2**40, max_running=max_running)
    budget.begin()
    budget._until_next = 1
    stage = store(storage).summary("0").num_bytes
    checkpoints = max_running * STATES_A_CHECKPOINT * CHECKPOINTS_KEPT * stage
    assert budget._growth(0) == max_running * stage + checkpoints
    assert budget._growth(stage) == max_running * stage + checkpoints - stage
    assert budget._growth(100 * checkpoints) == max_running * stage


def test_other_sweeps_are_read_again_only_while_they_run(tmp_path, monkeypatch):
    storage = make(str(tmp_path))
    read: list[str] = []
    load = SweepRecords.load_trials
    monkeypatch.setattr(SweepRecords, "load_trials", lambda self: read.append(self.storage.root[-1]) or load(self))
    save_trial(storage, "t0000", (P,), sweep="r", status="interrupted")
    others = OtherSweeps(storage, "mine")
    with Leases(storage.at("r")).hold("driver", Holder(sweep="x", run="x", trial="driver")):
        others.read()
        assert others.keep >= {P, A} and others.uses[P] == 3 and sorted(read) == ["r", "s"]
        save_trial(storage, "t0000", (P, "7" * 64), sweep="r", status="running")
        others.read()
        assert "7" * 64 in others.keep and others.uses[P] == 3 and sorted(read) == ["r", "r", "s"]
    others.read()
    others.read()
    assert sorted(read) == ["r", "r", "r", "s"], "once more when its driver has gone, to know how it ended"


def test_the_work_of_all_looks_is_in_proportion_to_the_stages(tmp_path, monkeypatch):
    storage, looked, read = Storage.parse(str(tmp_path)), [], []
    made_up_stages.publish(store(storage), "a")
    summary = store(storage).summary("a")
    known: list[str] = []

    def plan(summaries, *_, **__):
        looked.append(len(summaries))
        return SimpleNamespace(removals=(), abandoned={}, fits=True, bytes_before=0)

    monkeypatch.setattr("sweeps.run.store_budget.choose_garbage", plan)
    monkeypatch.setattr(StageStore, "known_ids", lambda self: list(known))
    monkeypatch.setattr(StageStore, "summaries", lambda self, ids: read.extend(ids) or dict.fromkeys(ids, summary))
    budget, _ = made_up_budget(storage, 1)
    budget.begin()
    update = SimpleNamespace(kind="epoch", stage_done=True)
    for number in range(2000):
        known.append(str(number))
        budget.updated(None, update)
    assert sum(looked) <= 2000 * (SHARE_A_LOOK + 2)
    assert len(read) <= 2000, "every stage's summary is read once"


def test_a_store_with_much_room_is_hardly_looked_at(tmp_path, monkeypatch):
    workers, _, _ = sweep(tmp_path, 2**40, samples=4)
    looks = []
    unfinished = StageStore.unfinished
    monkeypatch.setattr(StageStore, "unfinished", lambda self: looks.append(1) or unfinished(self))
    workers.run()
    assert len(looks) == 1, "once there is a stage whose size tells how much room there is"


@pytest.mark.parametrize(
    ("new", "max_bytes", "text"),
    [(10, 2**40, "all of the sweep fits"), (2**30, 2**20, "1023.0 MiB of what is least worth"), (None, 2**20, "is not known")],
)
def test_the_plan_is_set_against_the_budget(tmp_path, new, max_bytes, text):
    plan = SimpleNamespace(stored_bytes=new, working_bytes=0)
    assert text in budget_line(store(make(str(tmp_path))), plan, max_bytes)


def test_only_stages_that_were_written_count_towards_the_next_measurement(tmp_path):
    budget, _ = made_up_budget(Storage.parse(str(tmp_path)), 2**40)
    budget._until_next = 10
    budget.updated(None, SimpleNamespace(kind="reused", stage_done=True))
    budget.updated(None, SimpleNamespace(kind="epoch", stage_done=False))
    assert budget._until_next == 10
    budget.updated(None, SimpleNamespace(kind="epoch", stage_done=True))
    budget.stage_recovered(None, SimpleNamespace(kind="reused", stage_done=True))
    assert budget._until_next == 8


def finished(trial: str, score: float, *stage_ids: str) -> TrialRecord:
    return TrialRecord(trial=trial, recipe="tiny", params={}, stage_ids=list(stage_ids), status="finished", score=score)


def test_the_best_trial_so_far_is_needed_also_if_an_earlier_driver_ran_it(tmp_path):
    budget, _ = made_up_budget(Storage.parse(str(tmp_path)), 2**40)
    budget._book.records["t0000"] = finished("t0000", 0.5, "first")
    budget.begin()
    assert budget._needed() == {"first"}
    for score, needed in ((0.4, "first"), (0.6, "better"), (0.5, "better")):
        number = f"t{len(budget._book.records):04d}"
        budget._book.records[number] = finished(number, score, "better" if score == 0.6 else "other")
        assert budget._needed() == {needed}


def test_uses_by_all_sweeps_count_and_only_checkpoints_that_stay_make_room(tmp_path, monkeypatch):
    storage, asked = make(str(tmp_path)), []

    def plan(summaries, uses, keep, **options):
        asked.append((uses, options["other_bytes"]))
        return SimpleNamespace(removals=(), abandoned={}, fits=True, bytes_before=0)

    monkeypatch.setattr("sweeps.run.store_budget.choose_garbage", plan)
    save_epoch_checkpoint(storage, "5" * 64)
    budget, _ = made_up_budget(storage, 2**40)
    budget._book.records["t0000"] = finished("t0000", 0.5, P, A)
    budget.begin()
    budget._until_next = 1
    uses, other_bytes = asked[0]
    assert (uses[P], uses[A]) == (3, 2)
    assert other_bytes == budget._growth(0), "nothing goes on from the only epoch checkpoint"


def test_a_sweep_does_not_count_its_own_trials_twice(tmp_path):
    others = OtherSweeps(make(str(tmp_path)), "s")
    others.read()
    assert not others.keep and not others.uses
    budget, _ = made_up_budget(Storage.parse(str(tmp_path)), 2**40)
    for _ in range(2):
        budget.trial_started(SimpleNamespace(record=finished("t0000", 0.5, P)))
    assert budget._uses == {P: 1}
