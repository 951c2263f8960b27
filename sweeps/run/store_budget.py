"""Keeps the stage store within the bytes that a sweep was given (`--max-store-bytes`), while it runs.

An observer on the driver. After every so many ended stages and trials (more of them, the more the store holds and the more room
there is) it looks at what the store takes and removes what is least worth keeping, so that the work of all looks together is n log n
in the number of stages.
"""

import time
from collections import Counter
from collections.abc import Callable
from functools import partial

from birdclef_core.errors import BirdclefError
from birdclef_core.store.garbage import MUST_STAY, GarbagePlan, collect, plan_garbage
from birdclef_core.store.leases import FOLDER
from birdclef_core.store.leftovers import find_leftovers
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import StageSummary
from sweeps.checkpoints.garbage import needed_by_sweep, stages_in_training
from sweeps.checkpoints.references import best, store_of
from sweeps.plan.plan import CHECKPOINTS_KEPT, STATES_A_CHECKPOINT, Plan
from sweeps.schedule.coordinator import Coordinator, Trial
from sweeps.schedule.queue import StoreView
from sweeps.schedule.records import SweepRecords, TrialRecord
from sweeps.schedule.update import TrialUpdate
from sweeps.wording import bytes_text

SHARE_A_LOOK = 16
"""The store is looked at again after a 16th as many stages as it has, or"""
SHARE_OF_ROOM = 0.25
"""after as many as fill this share of what is free: others may write, too."""
RETRY_AFTER = 16
"""Stages after which a store that could not be looked at is tried again."""
SPARE = 0.1
"""When something has to go, so much of the budget is made free at once, and not a stage after every stage."""
NAMED = 4


def budget_line(store: StageStore, plan: Plan, max_bytes: int) -> str:
    """What a plan will add to a store, against the bytes that it may take."""
    now = sum(item.num_bytes for item in store.summaries().values()) + sum(store.unfinished().values())
    takes = f"  Store: it takes {bytes_text(now)} now and may take {bytes_text(max_bytes)} (--max-store-bytes)"
    if plan.stored_bytes is None or plan.working_bytes is None:
        return f"{takes}; how much the sweep adds is not known. What is least worth keeping goes when there is no room."
    over = now + plan.stored_bytes + plan.working_bytes - max_bytes
    if over <= 0:
        return f"{takes}: all of the sweep fits."
    return f"{takes}: up to {bytes_text(over)} of what is least worth keeping will have to go while the sweep runs."


class OtherSweeps:
    """What the other sweeps of a storage need; of those that no driver runs it is read once."""

    def __init__(self, storage: Storage, sweep: str) -> None:
        self._storage, self._sweep = storage, sweep
        self._needs: dict[str, set[str]] = {}
        self._uses: dict[str, Counter[str]] = {}
        self._running: set[str] = set()
        self.keep: set[str] = set()
        """Stages that they need."""
        self.uses: Counter[str] = Counter()
        """How many of their trials have a stage in their chain."""

    def look(self) -> None:
        """Brings `keep` and `uses` up to date."""
        names = set(self._storage.names()) - {self._sweep} - (self._needs.keys() - self._running)
        if found := [name for name in sorted(names) if SweepRecords(self._storage.at(name)).exists()]:
            for name in found:
                self._read(name)
            self.keep = set().union(*self._needs.values())
            self.uses = sum(self._uses.values(), Counter())

    def _read(self, name: str) -> None:
        # Its driver's lease; before its trials are read, because it may end meanwhile.
        is_running = bool(self._storage.at(name, FOLDER).names())
        self._needs[name], self._uses[name] = needed_by_sweep(self._storage, name)
        self._running = self._running | {name} if is_running else self._running - {name}


class StoreBudget:
    """An observer that removes stages when the store becomes too large, and says so."""

    def __init__(
        self,
        storage: Storage,
        view: StoreView,
        *,
        sweep: str,
        max_bytes: int,
        max_running: int,
        start: str | None,
        say: Callable[[str], None],
    ) -> None:
        """`storage`: of the sweeps and their store. `view`: told of what is removed. `start`: a stage that all trials start from."""
        self._store, self._others, self._view = store_of(storage), OtherSweeps(storage, sweep), view
        self._max_bytes, self._max_running, self._say = max_bytes, max_running, say
        self._start = {start} if start else set()
        self._coordinator: Coordinator | None = None
        self._summaries: dict[str, StageSummary] = {}
        self._uses: Counter[str] = Counter()
        self._counted: set[str] = set()
        self._best: TrialRecord | None = None
        self._to_look = 0
        """So many stages' bytes may be written before the store is looked at again."""
        self._warned = False
        self.removed, self.removed_bytes = 0, 0
        """Stages so far; bytes with epoch checkpoints."""

    def follow(self, coordinator: Coordinator) -> None:
        """Whose trials are kept. Takes leftovers away and looks for the first time."""
        self._coordinator = coordinator
        for record in coordinator.trials.values():
            self._count(record)
        self._best = best(list(coordinator.trials.values()))
        self._others.look()
        for leftover in find_leftovers(self._store, self._others.keep | self._needed(), time.time()):
            self._store.storage.delete(leftover.place)
        self._look()

    def trial_started(self, planned: Trial) -> None:
        self._count(planned.record)

    def updated(self, planned: Trial, update: TrialUpdate) -> None:
        if update.stage_done and update.kind != "reused":
            self._event()

    def worker_lost(self, planned: Trial) -> None:
        """Nothing: another worker needs the same."""

    def trial_ended(self, planned: Trial) -> None:
        record = planned.record
        if not record.ended:
            return  # interrupted: it will need what it has, and the driver ends
        if record.score is not None and (self._best is None or record.score > (self._best.score or 0.0)):
            self._best = record
        # One that stops within a stage leaves its epoch checkpoints behind.
        self._event(1 if record.status == "finished" else STATES_A_CHECKPOINT * CHECKPOINTS_KEPT)

    def outcome(self) -> list[str]:
        """What to print at the end."""
        if not self.removed_bytes:
            return []
        return [
            f"Store: {self.removed} stages were removed on the way, {bytes_text(self.removed_bytes)} with epoch checkpoints, to stay "
            f"within {bytes_text(self._max_bytes)}."
        ]

    def _count(self, record: TrialRecord) -> None:
        if record.trial not in self._counted:
            self._counted.add(record.trial)
            self._uses.update(record.stage_ids)

    def _event(self, stages: int = 1) -> None:
        """As many bytes as so many stages take may have been written, or come free."""
        self._to_look -= stages
        if self._to_look > 0:
            return
        try:
            self._look()
        except (OSError, BirdclefError) as error:  # a store that is away, records of another sweep that are damaged
            self._to_look = RETRY_AFTER
            self._warn(f"could not be looked at, so that nothing is removed for now: {error}")

    def _look(self) -> None:
        self._read_summaries()
        self._to_look = max(1, len(self._summaries) // SHARE_A_LOOK)
        unfinished = self._store.unfinished()
        self._others.look()
        keep = self._others.keep | self._needed() | stages_in_training(self._store)
        make_plan = partial(
            plan_garbage,
            self._summaries,
            {stage_id: self._uses[stage_id] + self._others.uses[stage_id] for stage_id in self._summaries},
            keep,
            unfinished=unfinished,
            other_bytes=self._growth(sum(size for stage_id, size in unfinished.items() if stage_id in keep)),
        )
        plan = make_plan(budget_bytes=self._max_bytes)
        if largest := self._largest():
            room = SHARE_OF_ROOM * (self._max_bytes - plan.bytes_before)
            self._to_look = max(self._to_look, int(room / largest))
        if plan.bytes_before > self._max_bytes:
            self._remove(make_plan(budget_bytes=round((1 - SPARE) * self._max_bytes)))
        if not plan.fits:
            self._warn(
                f"what is left, and what may be written next, takes {bytes_text(plan.bytes_after)}, more than the "
                f"{bytes_text(self._max_bytes)} of --max-store-bytes, but must stay: {MUST_STAY}"
            )

    def _warn(self, problem: str) -> None:
        """Once: a sweep of weeks does not end for want of room, nor does it repeat itself."""
        if not self._warned:
            self._warned = True
            self._say(f"[yellow]Store: {problem}. The sweep goes on.[/yellow]")

    def _growth(self, unfinished_bytes: int) -> int:
        """What may be written before the next look: stages that end, and epoch checkpoints of those that run."""
        largest = self._largest()
        working = self._max_running * STATES_A_CHECKPOINT * CHECKPOINTS_KEPT * largest
        return max(self._to_look, self._max_running) * largest + max(0, working - unfinished_bytes)

    def _largest(self) -> int:
        """Bytes of the largest stage."""
        return max((item.num_bytes for item in self._summaries.values()), default=0)

    def _read_summaries(self) -> None:
        """Of the stages that have come since the last time."""
        known = set(self._store.known_ids())
        self._summaries = {stage_id: item for stage_id, item in self._summaries.items() if stage_id in known}
        self._summaries |= self._store.summaries(known - self._summaries.keys())

    def _needed(self) -> set[str]:
        """By the trials of this sweep that have not ended, and by the best."""
        assert self._coordinator is not None
        best_ids = self._best.stage_ids if self._best else []
        return self._start.union(best_ids, *(planned.record.stage_ids for planned in self._coordinator.open_trials))

    def _remove(self, plan: GarbagePlan) -> None:
        if not plan.removals and not plan.abandoned:
            return
        collect(self._store, plan)
        for removal in plan.removals:
            self._view.mark_missing(removal.summary.stage_id)
            self._summaries.pop(removal.summary.stage_id)
        self.removed += len(plan.removals)
        self.removed_bytes += plan.bytes_before - plan.bytes_after
        self._say(f"Store: removed {_what(plan)} to stay within {bytes_text(self._max_bytes)}.")


def _what(plan: GarbagePlan) -> str:
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
