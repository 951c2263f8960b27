"""Keeps the stage store within the bytes that the user allowed (`--max-store-bytes`) while a sweep runs.

An observer on the driver. After a number of ended stages and trials it measures the store and removes what is least worth
keeping. That number grows with the store and with the free room, so that all measurements together cost n log n in the number
of stages.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial

from birdclef_core.errors import BirdclefError
from birdclef_core.store.garbage import MUST_STAY, GarbageList, choose_garbage, collect
from birdclef_core.store.leases import FOLDER
from birdclef_core.store.leftovers import find_leftovers
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import StageSummary, total_bytes
from sweeps.checkpoints.garbage import needed_by_sweep, stages_in_training
from sweeps.checkpoints.references import store_of
from sweeps.objective import Objective
from sweeps.plan.plan import CHECKPOINTS_KEPT, STATES_A_CHECKPOINT, Plan
from sweeps.schedule.coordinator import Observer
from sweeps.schedule.records import SweepRecords, TrialRecord, best_trials
from sweeps.schedule.trials import Trial, TrialBook, stages_of
from sweeps.schedule.update import TrialUpdate
from sweeps.wording import bytes_text

SHARE_A_LOOK = 16
"""The store is measured again after as many new stages as a 16th of those that it holds, or"""
SHARE_OF_ROOM = 0.25
"""after as many as would fill this share of the free room; other sweeps may write too."""
RETRY_AFTER = 16
"""A store that could not be read is tried again after this many stages."""
SPARE = 0.1
"""When something has to be removed, this share of the budget is made free at once, not one stage after every new stage."""
NAMED = 4


def budget_line(store: StageStore, plan: Plan, max_bytes: int) -> str:
    """One line: what a planned sweep will add to the store, and how many bytes the store may take."""
    now = total_bytes(store.summaries()) + sum(store.unfinished().values())
    takes = f"  Store: it takes {bytes_text(now)} now and may take {bytes_text(max_bytes)} (--max-store-bytes)"
    if plan.stored_bytes is None or plan.working_bytes is None:
        return f"{takes}; how much the sweep adds is not known. When it is full, what is least worth keeping is removed."
    over = now + plan.stored_bytes + plan.working_bytes - max_bytes
    if over <= 0:
        return f"{takes}: all of the sweep fits."
    return f"{takes}: up to {bytes_text(over)} of what is least worth keeping will be removed while the sweep runs."


class OtherSweeps:
    """What the other sweeps of a storage need. Sweeps that have no running driver are read once."""

    def __init__(self, storage: Storage, sweep: str) -> None:
        self._storage, self._sweep = storage, sweep
        self._needs: dict[str, set[str]] = {}
        self._uses: dict[str, Counter[str]] = {}
        self._running: set[str] = set()
        self.keep: set[str] = set()
        """Ids of the stages that they need."""
        self.uses: Counter[str] = Counter()
        """How many of their trials have a stage in their chain, by stage id."""

    def read(self) -> None:
        """Bring `keep` and `uses` up to date."""
        names = set(self._storage.names()) - {self._sweep} - (self._needs.keys() - self._running)
        if found := [name for name in sorted(names) if SweepRecords(self._storage.at(name)).exists()]:
            for name in found:
                self._read(name)
            self.keep = set().union(*self._needs.values())
            self.uses = sum(self._uses.values(), Counter())

    def _read(self, name: str) -> None:
        # The lease of its driver is read before its trials, because the driver may end meanwhile.
        is_running = bool(self._storage.at(name, FOLDER).names())
        self._needs[name], self._uses[name] = needed_by_sweep(self._storage, name)
        self._running = self._running | {name} if is_running else self._running - {name}


class StoreBudget(Observer):
    """Removes stages when the store becomes too large, and says so."""

    def __init__(
        self,
        storage: Storage,
        book: TrialBook,
        *,
        sweep: str,
        max_bytes: int,
        max_running: int,
        stored_before: Collection[str],
        objective: Objective,
        say: Callable[[str], None],
    ) -> None:
        """`storage` holds the sweeps and their store; `stored_before`: ids of the stored stages that trials start or learn from;
        `objective` says which trials are the best."""
        self._store, self._others, self._book = store_of(storage), OtherSweeps(storage, sweep), book
        self._max_bytes, self._max_running, self._say = max_bytes, max_running, say
        self._stored_before = set(stored_before)
        self._objective = objective
        self._summaries: dict[str, StageSummary] = {}
        self._uses: Counter[str] = Counter()
        self._counted: set[str] = set()
        self._until_next = 0
        """How many stages may be written before the store is measured again."""
        self._warned = False
        self.removed, self.removed_bytes = 0, 0
        """How many stages, and how many bytes with epoch checkpoints, have been removed so far."""

    def begin(self) -> None:
        """Remove leftovers and measure the store for the first time, once the trials of earlier drivers are in the book."""
        for record in self._book.records.values():
            self._count(record)
        self._others.read()
        for leftover in find_leftovers(self._store, self._others.keep | self._needed(), time.time()):
            self._store.storage.delete(leftover.place)
        self._measure()

    def trial_started(self, trial: Trial) -> None:
        self._count(trial.record)

    def updated(self, trial: Trial, update: TrialUpdate) -> None:
        if update.stage_done and update.kind != "reused":
            self._count_written()

    def stage_recovered(self, trial: Trial, update: TrialUpdate) -> None:
        self._count_written()

    def trial_ended(self, trial: Trial) -> None:
        record = trial.record
        if not record.ended:
            return  # an interrupted trial will need what it has, and the driver ends
        # A trial that stops within a stage leaves its epoch checkpoints behind.
        self._count_written(1 if record.status == "finished" else STATES_A_CHECKPOINT * CHECKPOINTS_KEPT)

    def outcome(self) -> list[str]:
        """The lines to print at the end of the sweep."""
        if not self.removed_bytes:
            return []
        return [
            f"Store: {self.removed} stages were removed during the sweep, {bytes_text(self.removed_bytes)} with epoch checkpoints, to stay "
            f"within {bytes_text(self._max_bytes)}."
        ]

    def _count(self, record: TrialRecord) -> None:
        if record.trial not in self._counted:
            self._counted.add(record.trial)
            self._uses.update(record.stage_ids)

    def _count_written(self, stages: int = 1) -> None:
        """The bytes of this many stages may have been written, or may be free to remove; measure the store if it is time."""
        self._until_next -= stages
        if self._until_next > 0:
            return
        try:
            self._measure()
        except (OSError, BirdclefError) as error:  # the storage cannot be reached, or records of another sweep are damaged
            self._until_next = RETRY_AFTER
            self._warn(f"could not be read, so nothing is removed for now: {error}")

    def _measure(self) -> None:
        self._read_summaries()
        self._until_next = max(1, len(self._summaries) // SHARE_A_LOOK)
        unfinished = self._store.unfinished()
        self._others.read()
        keep = self._others.keep | self._needed() | stages_in_training(self._store)
        make_plan = partial(
            choose_garbage,
            self._summaries,
            {stage_id: self._uses[stage_id] + self._others.uses[stage_id] for stage_id in self._summaries},
            keep,
            unfinished=unfinished,
            other_bytes=self._growth(sum(size for stage_id, size in unfinished.items() if stage_id in keep)),
        )
        plan = make_plan(budget_bytes=self._max_bytes)
        if largest := self._largest():
            room = SHARE_OF_ROOM * (self._max_bytes - plan.bytes_before)
            self._until_next = max(self._until_next, int(room / largest))
        if plan.bytes_before > self._max_bytes:
            self._remove(make_plan(budget_bytes=round((1 - SPARE) * self._max_bytes)))
        if not plan.fits:
            self._warn(
                f"what is left and what may be written next take {bytes_text(plan.bytes_after)}, more than the "
                f"{bytes_text(self._max_bytes)} of --max-store-bytes, but must stay: {MUST_STAY}"
            )

    def _warn(self, problem: str) -> None:
        """Warn once. A sweep of weeks should not end because the store is full."""
        if not self._warned:
            self._warned = True
            self._say(f"Store: {problem}. The sweep goes on.")

    def _growth(self, unfinished_bytes: int) -> int:
        """Bytes that may be written before the next measurement: ended stages, and epoch checkpoints of running ones."""
        largest = self._largest()
        running = max(self._max_running, self._book.num_running)  # nodes may have joined
        working = running * STATES_A_CHECKPOINT * CHECKPOINTS_KEPT * largest
        return max(self._until_next, running) * largest + max(0, working - unfinished_bytes)

    def _largest(self) -> int:
        """Size of the largest stage in bytes."""
        return max((item.num_bytes for item in self._summaries.values()), default=0)

    def _read_summaries(self) -> None:
        """Read the summaries of the stages that are new since the last time."""
        known = set(self._store.known_ids())
        self._summaries = {stage_id: item for stage_id, item in self._summaries.items() if stage_id in known}
        self._summaries |= self._store.summaries(known - self._summaries.keys())

    def _needed(self) -> set[str]:
        """Ids of the stages that the open trials and the best trials of this sweep need."""
        best = best_trials(list(self._book.records.values()), self._objective)
        return self._stored_before.union(stages_of(self._book.open_trials), *(record.stage_ids for record in best))

    def _remove(self, plan: GarbageList) -> None:
        if not plan.removals and not plan.abandoned:
            return
        self._book.wait_until_saved()  # a trial whose end is in no record may go on after a kill, and needs its stages
        collect(self._store, plan)
        for removal in plan.removals:
            self._book.stage_removed(removal.summary.stage_id)
            self._summaries.pop(removal.summary.stage_id)
        self.removed += len(plan.removals)
        self.removed_bytes += plan.bytes_before - plan.bytes_after
        self._say(f"Store: removed {_what(plan)} to stay within {bytes_text(self._max_bytes)}.")


def _what(plan: GarbageList) -> str:
    """`3 stages (12.0 MiB: train_ce 28befb19, ...)`, and epoch checkpoints."""
    parts = []
    if plan.removals:
        size = bytes_text(sum(removal.summary.num_bytes for removal in plan.removals))
        names = [f"{removal.summary.stage} {removal.summary.stage_id[:8]}" for removal in plan.removals[:NAMED]]
        more = f" and {len(plan.removals) - NAMED} more" if len(plan.removals) > NAMED else ""
        parts.append(f"{len(plan.removals)} stage{'s' if len(plan.removals) > 1 else ''} ({size}: {', '.join(names)}{more})")
    if plan.abandoned:
        size = bytes_text(sum(plan.abandoned.values()))
        parts.append(f"the epoch checkpoints of {len(plan.abandoned)} stages that no trial goes on with ({size})")
    return " and ".join(parts)
