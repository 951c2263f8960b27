"""The driver's mind, without Ray: which trial comes next, what a update means, which trials stop, what is remembered.

A trial whose prefix another trial is training is held back until the prefix is published (`queue.py`), so that no stage is
trained twice; only the searcher can do that, because Tune starts whatever it has been given.
"""

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from sweeps.schedule.pruning import StageHalving, rung_at
from sweeps.schedule.queue import StoreView, TrialQueue
from sweeps.schedule.records import Records, Status, TrialRecord, trial_name
from sweeps.schedule.trial_source import Trial, TrialSource
from sweeps.schedule.update import SCORE, TrialUpdate, tracked_name
from sweeps.search.chains import ChainBuilder

__all__ = ["OBJECTIVE", "Coordinator", "Observer", "Trial"]

SAVE_EVERY_S = 60.0
"""So much of what a trial has cost is forgotten at most when the driver is killed; oftener, a store far away would be busy with it."""
OBJECTIVE = tracked_name("target", SCORE)


class Observer(Protocol):
    """Is told what happens, on the driver, in order; must return at once."""

    def trial_started(self, planned: Trial) -> None:
        """It runs, or goes on: after an interruption, or because it was pruned and later ones were worse."""

    def updated(self, planned: Trial, update: TrialUpdate) -> None: ...

    def worker_lost(self, planned: Trial) -> None: ...

    def trial_ended(self, planned: Trial) -> None: ...


class Coordinator:
    """Hands out trials, takes their updates and keeps the sweep's records."""

    def __init__(
        self,
        chains: ChainBuilder,
        view: StoreView,
        records: Records,
        *,
        samples: int,
        max_running: int,
        observers: tuple[Observer, ...] = (),
        pruning: StageHalving | None = None,
    ) -> None:
        self._view, self._records, self._observers = view, records, observers
        self.samples, self._max_running = samples, max_running
        known = records.load_trials()
        self.trials: dict[str, TrialRecord] = {record.trial: record for record in known}
        self._queue = TrialQueue(view)
        self._waiting: dict[str, Trial] = {}
        self._running: dict[str, Trial] = {}
        self._unsaved: dict[str, TrialRecord] = {}
        self._saved_at: dict[str, float] = {}
        """Of running trials, by the monotonic clock."""
        self._source = TrialSource(chains, known, changed=self._remember)
        self._pruning = pruning or StageHalving()
        self._pruned_at: defaultdict[str, list[TrialRecord]] = defaultdict(list)
        """Trials that were pruned because a stage was stopped, by the stage's id."""
        self._failed_stages: dict[str, str] = {}
        """Reasons by stage id."""
        self.unlike = [record for record in known if record.ended and not self._source.means_the_same(record)]
        """Ended trials of another search than this: neither the sampler nor pruning compares them with new ones."""
        self._recall([record for record in known if record.ended and self._source.means_the_same(record)])
        for record in known:
            if not record.ended:
                self._wait(self._source.take_up(record), urgent=True)

    @property
    def finished(self) -> bool:
        """Whether no trial runs and none will be handed out any more."""
        enough = len(self.trials) >= self.samples or self._source.exhausted
        return enough and not self._waiting and not self._running

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def open_trials(self) -> list[Trial]:
        """Those that run, then those that wait."""
        return [*self._running.values(), *self._waiting.values()]

    def next_trial(self) -> Trial | None:
        """The next trial to start; None when nothing can start now."""
        if len(self._running) >= self._max_running:
            return None
        self._take_up_risen()
        # Waiting trials are drawn early where that costs nothing, so that the prefix that most of them need can go first.
        while self._source.free_draws(len(self._waiting), self._max_running) > 0 and self._ask():
            pass
        planned = self._startable()
        # Otherwise no more wait than could start at once, or the sampler would choose too far ahead of what it knows.
        while planned is None and len(self._waiting) < self._max_running and self._ask():
            planned = self._startable()
        if planned is not None:
            self._start(planned)
        self._save_all()
        return planned

    def update(self, trial: str, update: TrialUpdate) -> bool:
        """Takes a update; True when the trial is to go on."""
        planned = self._running.get(trial)
        if planned is None:
            return False
        if update.kind == "held":
            self._hold(planned, update.stage_id)
            return False
        update = self._note(planned, update)
        for observer in self._observers:
            observer.updated(planned, update)
        if update.kind == "failed":
            self._failed_stages[update.stage_id] = update.message
            self._end(planned, "failed", update.message)
            return False
        verdict = self._judge(planned, update)
        if update.done:
            planned.record.score = score = update.metrics.get(OBJECTIVE)
            usable = score is not None and math.isfinite(score)
            self._end(planned, "finished" if usable else "failed", "" if usable else f"{OBJECTIVE} is {score}")
        elif verdict:
            self._prune(planned, update.stage_id)
        elif update.stage_done or time.monotonic() - self._saved_at.get(trial, 0.0) > SAVE_EVERY_S:
            self._save(planned.record)
        return trial in self._running

    def worker_lost(self, trial: str, reason: str) -> None:
        """A trial's worker is gone; another may take the trial over."""
        planned = self._running.get(trial)
        if planned is not None:
            planned.record.reason = f"worker lost: {reason}"
            for observer in self._observers:
                observer.worker_lost(planned)

    def fail(self, trial: str) -> None:
        """Ends a trial whose worker is lost for good."""
        planned = self._running.get(trial)
        if planned is not None:
            self._end(planned, "failed", planned.record.reason)

    def interrupt(self) -> None:
        """Marks every running trial as interrupted, so that a resume takes it up."""
        for planned in list(self._running.values()):
            self._end(planned, "interrupted", "the sweep was stopped")

    def _note(self, planned: Trial, update: TrialUpdate) -> TrialUpdate:
        """Remembers a update, once however often a trial that was begun again repeats it; as what it is to be passed on."""
        record = planned.record
        if update.kind == "failed":
            return update
        if update.kind == "reused" and update.is_own and update.stage_id not in record.trained_ids:
            update = replace(update, kind="published")
        if update.kind == "epoch":
            record.spent_s[update.stage] = record.spent_s.get(update.stage, 0.0) + update.cost_s
            record.epochs_trained += 1
            record.reused_s.pop(update.stage, None)
            self._queue.in_training(record.trial, update.stage_id)
        elif update.kind == "published":
            record.spent_s[update.stage] = max(record.spent_s.get(update.stage, 0.0), update.cost_s)
            record.epochs_trained += 1
        elif update.stage_id not in record.trained_ids:
            record.reused_s[update.stage] = update.cost_s
        record.stage, record.epoch, record.metrics = update.stage, update.epoch, update.metrics
        record.epochs_done = sum(task.config.epochs for task in planned.chain[: update.stage_index]) + update.epoch
        if update.stage_done:
            self._queue.published(update.stage_id)
            record.stage_scores[update.stage] = update.score
            if update.kind != "reused" and update.stage_id not in record.trained_ids:
                record.trained_ids.append(update.stage_id)
        return update

    def _judge(self, planned: Trial, update: TrialUpdate) -> str:
        rung = rung_at(planned.chain[update.stage_index].config, update.epoch, update.epochs)
        if rung is None:
            return ""
        if rung.epoch:
            planned.record.middle_scores[update.stage] = [update.epoch, update.epochs, update.score]
        return self._pruning.judge(rung, update.stage_id, update.score)

    def _hold(self, planned: Trial, stage_id: str) -> None:
        """Takes back a trial whose next stage is being trained elsewhere, or by a trial here that had not said so."""
        record = planned.record
        del self._running[record.trial]
        trainer = next((other for other in self._running.values() if stage_id in other.record.stage_ids), None)
        if trainer is not None:
            self._queue.in_training(trainer.record.trial, stage_id)
        else:
            self._view.mark_leased(stage_id)
        self._queue.release(record.trial)
        self._wait(planned)

    def _ask(self) -> bool:
        """Draws a new trial and lets it wait; False when there is none."""
        if len(self.trials) >= self.samples or self._source.exhausted:
            return False
        planned = self._source.draw(trial_name(len(self.trials)), lambda stage_ids: bool(self._failed_stage(stage_ids)))
        if planned is None:
            return False
        self.trials[planned.record.trial] = planned.record
        self._wait(planned)
        return True

    def _take_up_risen(self) -> None:
        """Lets the trials wait again that were pruned at a stage which is now among those to go on."""
        for stage_id in self._pruning.take_risen():
            for record in self._pruned_at.pop(stage_id, ()):
                self._wait(self._source.take_up(record), urgent=True)

    def _wait(self, planned: Trial, *, urgent: bool = False) -> None:
        record = planned.record
        record.status = "waiting"
        self._waiting[record.trial] = planned
        self._remember(record)
        self._queue.add(record.trial, record.stage_ids, urgent=urgent)

    def _startable(self) -> Trial | None:
        """The waiting trial that is to start; those that a failed or stopped stage has settled meanwhile are told so."""
        while (trial := self._queue.pop()) is not None:
            planned = self._waiting.pop(trial)
            failed = self._failed_stage(planned.record.stage_ids)
            stopped = self._stopped_stage(planned.record.stage_ids)
            if not failed and not stopped:
                return planned
            for observer in self._observers:
                observer.trial_started(planned)
            if failed:
                self._end(planned, "failed", failed)
            else:
                self._prune(planned, stopped)
        return None

    def _failed_stage(self, stage_ids: Sequence[str]) -> str:
        """Why a stage of the chain is known to fail; empty when none is."""
        return next((self._failed_stages[stage_id] for stage_id in stage_ids if stage_id in self._failed_stages), "")

    def _stopped_stage(self, stage_ids: Sequence[str]) -> str:
        """A stage of the chain that does not go on for now; empty when none is."""
        return next((stage_id for stage_id in stage_ids if stage_id in self._pruning.stopped), "")

    def _start(self, planned: Trial) -> None:
        record = planned.record
        record.status = "running"
        self._running[record.trial] = planned
        self._queue.claim(record.trial, record.stage_ids)
        self._save(record)
        for observer in self._observers:
            observer.trial_started(planned)

    def _prune(self, planned: Trial, stage_id: str) -> None:
        planned.record.stopped = stopped = self._pruning.stopped[stage_id]
        self._pruned_at[stage_id].append(planned.record)
        self._end(planned, "pruned", stopped.reason)

    def _end(self, planned: Trial, status: Status, reason: str) -> None:
        record = planned.record
        record.status, record.reason = status, reason
        self._running.pop(record.trial, None)
        self._saved_at.pop(record.trial, None)
        self._queue.release(record.trial)
        if record.ended:
            self._source.tell(planned)
        # Before it is on record: what is on record as ended is never spoken of again.
        for observer in self._observers:
            observer.trial_ended(planned)
        self._save(record)

    def _remember(self, record: TrialRecord) -> None:
        self._unsaved[record.trial] = record

    def _save(self, record: TrialRecord) -> None:
        if record.trial in self._running:
            self._saved_at[record.trial] = time.monotonic()
        self._remember(record)
        self._save_all()

    def _save_all(self) -> None:
        # In the order of their names, new ones at least: whenever this process is killed, the records have no gap.
        for record in self._unsaved.values():
            self._records.save_trial(record)
        self._unsaved.clear()

    def _recall(self, ended: Sequence[TrialRecord]) -> None:
        """What an earlier driver knew of scores and of the trials that were pruned by them."""
        for record in ended:
            for rung, stage_id, score in record.rung_scores():
                self._pruning.add(rung, stage_id, score)
        for record in ended:
            if record.stopped is not None:
                self._pruning.recall(record.stopped)
                self._pruned_at[record.stopped.stage_id].append(record)
