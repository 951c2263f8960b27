"""The trials of a sweep and the state of each: the only place where a trial changes its state.

docs/design.md has the states and events as a table. A state is kept three times, each time for another reader: here (which
trials run, which wait), in the queue (which may start next) and in the trial's record (for the next driver). `_move` changes
all three together and refuses what the table does not allow.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sweeps.sampling.draws import Draw
from sweeps.schedule.pruning import Stopped
from sweeps.schedule.queue import TrialQueue
from sweeps.schedule.records import Records, Status, TrialRecord, trial_name
from sweeps.schedule.store_view import StoreView
from sweeps.search.chains import Chain

SAVE_EVERY_S = 60.0
"""At most this much recorded cost of a running trial is lost if the driver is killed. A shorter time would keep a remote storage busy."""

MOVES: Mapping[Status, frozenset[Status]] = {
    "waiting": frozenset({"running", "failed", "interrupted"}),
    "running": frozenset({"waiting", "finished", "pruned", "failed", "interrupted"}),
    "pruned": frozenset({"waiting"}),
    "interrupted": frozenset({"waiting"}),
    "finished": frozenset(),
    "failed": frozenset(),
}
"""The states that may follow a state while a driver runs."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial with its chain of stages."""

    record: TrialRecord
    chain: Chain
    draw: Draw
    """The sampler's draw to which the outcome is reported."""

    @property
    def num_epochs(self) -> int:
        """Epochs of all its stages together."""
        return sum(task.config.epochs for task in self.chain)


@dataclass(frozen=True)
class Finished:
    """A trial trained its last stage to the end."""

    score: float


@dataclass(frozen=True)
class Pruned:
    """A stage of the trial's chain does not go on for now."""

    stopped: Stopped


@dataclass(frozen=True)
class Failed:
    """A stage of the trial's chain cannot be trained, or its worker was lost too often."""

    reason: str


@dataclass(frozen=True)
class Interrupted:
    """The driver stopped while the trial was running."""

    reason: str


Ending = Finished | Pruned | Failed | Interrupted


class IllegalMove(RuntimeError):
    """A fault of this program: a trial was about to change to a state that cannot follow its present one."""


class TrialBook:
    """Every trial of a sweep, in exactly one state. Only the coordinator changes it; observers read it."""

    def __init__(self, records: Records, view: StoreView) -> None:
        """Loads the trials of earlier drivers; raises InputError as `Records.load_trials` does."""
        self._storage = records
        self._queue = TrialQueue(view)
        self.records: dict[str, TrialRecord] = {record.trial: record for record in records.load_trials()}
        """The record of every trial, by name, in the order in which they began."""
        self._open: dict[Literal["waiting", "running"], dict[str, Trial]] = {"waiting": {}, "running": {}}
        self._drawn: dict[str, Trial] = {}
        """What was drawn and has not begun, by provisional name. It gets a name and a record when it gets a worker."""
        self._unsaved: dict[str, TrialRecord] = {}
        self._saved_at: dict[str, float] = {}
        """When each running trial was last saved, by the monotonic clock."""

    @property
    def num_waiting(self) -> int:
        """How many wait: trials that have begun, and draws that have not."""
        return len(self._open["waiting"]) + len(self._drawn)

    @property
    def num_drawn(self) -> int:
        """How many of those that wait have not begun."""
        return len(self._drawn)

    @property
    def num_startable(self) -> int:
        """How many of those that wait could start at the same time, because none needs a stage that another trial trains."""
        return self._queue.num_startable

    @property
    def num_running(self) -> int:
        return len(self._open["running"])

    @property
    def open_trials(self) -> list[Trial]:
        """The running trials, then the waiting ones, then what was drawn and has not begun."""
        return [*self._open["running"].values(), *self._open["waiting"].values(), *self._drawn.values()]

    def drawn_trials(self) -> list[Trial]:
        """What was drawn and has not begun."""
        return list(self._drawn.values())

    def running(self, trial: str) -> Trial | None:
        """The trial of that name if it is running."""
        return self._open["running"].get(trial)

    def running_trials(self) -> list[Trial]:
        return list(self._open["running"].values())

    def is_published(self, stage_id: str) -> bool:
        """Whether the stage is in the store."""
        return self._queue.is_published(stage_id)

    def num_published(self, stage_ids: Sequence[str]) -> int:
        """The number of the last stage of a chain that is in the store; 0 when none is."""
        return self._queue.num_published(stage_ids)

    def untrained(self, stage_ids: Sequence[str]) -> set[str]:
        """The stages of a chain that are not in the store and that neither a running trial nor another sweep will train."""
        return self._queue.untrained(stage_ids)

    # What changes a trial's state.

    def add(self, trial: Trial) -> None:
        """Adds a draw, which waits under its provisional name."""
        self._drawn[trial.record.trial] = trial
        self._queue.add(trial.record.trial, trial.record.stage_ids)

    def has_begun(self, trial: Trial) -> bool:
        """Whether the trial has had a worker. Only then it has a record, and a place among the trials."""
        return trial.record.trial not in self._drawn

    def drop(self, trial: Trial) -> None:
        """Forgets a draw that was popped and cannot begin."""
        del self._drawn[trial.record.trial]

    def reopen(self, trial: Trial) -> None:
        """Lets a trial wait that an earlier driver left open, or that was pruned and may go on. It goes before the new ones."""
        self._wait(trial, urgent=True)

    def pop_startable(self) -> Trial | None:
        """The waiting trial that is to start next; None when all have to wait. The caller starts it, ends it or drops it."""
        name = self._queue.pop()
        return None if name is None else self._drawn.get(name) or self._open["waiting"][name]

    def start(self, trial: Trial) -> None:
        """A waiting trial gets a worker; from now on it claims the stages of its chain that are not in the store.

        A draw becomes a trial by it: it gets the next name. So a draw that never begins leaves no gap among the records.
        """
        if self._drawn.pop(trial.record.trial, None):
            trial.record.trial = trial_name(len(self.records))
            self.records[trial.record.trial] = trial.record
        self._move(trial, "running")
        self._queue.claim(trial.record.trial, trial.record.stage_ids)
        self.save(trial.record)

    def hold(self, trial: Trial, stage_id: str) -> None:
        """A running trial waits again, because its next stage is being trained by another sweep or by another trial of this one."""
        trainer = next(
            (other for other in self.running_trials() if other is not trial and stage_id in other.record.stage_ids), None
        )
        if trainer is not None:
            self._queue.stage_in_training(trainer.record.trial, stage_id)
        else:
            self._queue.stage_leased(stage_id)
        self._queue.release(trial.record.trial)
        self._wait(trial, urgent=False)

    def wait_again(self, trial: Trial) -> None:
        """A running trial waits again: the budget does not allow it to go on for now, or its node cannot train."""
        self._queue.release(trial.record.trial)
        self._wait(trial, urgent=True)

    def put_back(self, trial: Trial) -> None:
        """A trial that has begun and was popped goes on waiting."""
        self._queue.add(trial.record.trial, trial.record.stage_ids, urgent=True)

    def end(self, trial: Trial, ending: Ending) -> None:
        """Ends an open trial. The caller saves its record once everybody else knows."""
        record = trial.record
        if isinstance(ending, Finished):
            self._move(trial, "finished")
            record.score, record.reason = ending.score, ""
        elif isinstance(ending, Pruned):
            self._move(trial, "pruned")
            record.stopped, record.reason = ending.stopped, ending.stopped.reason
        else:
            self._move(trial, "failed" if isinstance(ending, Failed) else "interrupted")
            record.reason = ending.reason
        record.ended_at = time.strftime("%Y-%m-%dT%H:%M:%S%z") if record.ended else ""
        self._queue.release(record.trial)

    def _wait(self, trial: Trial, *, urgent: bool) -> None:
        record = trial.record
        if record.status != "waiting":
            self._move(trial, "waiting")
        self._open["waiting"][record.trial] = trial
        self.mark_changed(record)
        self._queue.add(record.trial, record.stage_ids, urgent=urgent)

    def _move(self, trial: Trial, to: Status) -> None:
        record = trial.record
        if to not in MOVES[record.status]:
            raise IllegalMove(f"Trial {record.trial} is {record.status} and cannot become {to}.")
        for trials in self._open.values():
            trials.pop(record.trial, None)
        self._saved_at.pop(record.trial, None)
        record.status = to
        if to == "waiting" or to == "running":
            self._open[to][record.trial] = trial

    # What happens to stages, for the queue and, through it, the view of the store.

    def stage_published(self, stage_id: str) -> None:
        """The stage is in the store now."""
        self._queue.stage_published(stage_id)

    def stage_in_training(self, trial: Trial, stage_id: str) -> None:
        """A running trial trains the stage."""
        self._queue.stage_in_training(trial.record.trial, stage_id)

    def stage_removed(self, stage_id: str) -> None:
        """The stage is no longer in the store."""
        self._queue.stage_removed(stage_id)

    # Keeping the records.

    def mark_changed(self, record: TrialRecord) -> None:
        """The record is written with the next that is saved."""
        self._unsaved[record.trial] = record

    def save(self, record: TrialRecord) -> None:
        """Gives the record, and all that have changed, to be written."""
        if record.trial in self._open["running"]:
            self._saved_at[record.trial] = time.monotonic()
        self.mark_changed(record)
        self.save_changed()

    def save_if_due(self, record: TrialRecord) -> None:
        """Saves a running trial whose record on storage is older than SAVE_EVERY_S."""
        if time.monotonic() - self._saved_at.get(record.trial, 0.0) > SAVE_EVERY_S:
            self.save(record)

    def save_changed(self) -> None:
        """Gives every record that has changed to be written; see `Records.save_trials`."""
        if self._unsaved:
            # New ones in the order of their names: the records have no gap whenever this process is killed.
            self._storage.save_trials(list(self._unsaved.values()))
            self._unsaved.clear()

    def is_saved(self, trial: Trial) -> bool:
        """Whether the trial's record is written as it was saved last, and with it everything before it."""
        return self._storage.is_saved(trial.record.trial)

    @property
    def is_storage_away(self) -> bool:
        """Whether records wait because the storage is away."""
        return self._storage.is_away

    @property
    def all_saved(self) -> bool:
        """Whether no record waits to be written."""
        return not self._unsaved and self._storage.all_saved

    def wait_until_saved(self, limit_s: float | None = None) -> None:
        """Waits until every record is written, or the time has passed. Raises StorageAway as `Records.wait` does."""
        self.save_changed()
        self._storage.wait(limit_s)


def stages_of(trials: Sequence[Trial]) -> set[str]:
    """Ids of all stages in the chains of some trials."""
    return {stage_id for trial in trials for stage_id in trial.record.stage_ids}
