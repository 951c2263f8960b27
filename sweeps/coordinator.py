"""The driver's mind, without Ray: which trial comes next, what a report means, which trials stop, what is remembered.

A trial whose prefix another trial is training is held back until the prefix is published, so that no stage is trained
twice; only the searcher can do that, because Tune starts whatever it has been given.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from birdclef_core.stages.store import StageStore
from sweeps.pruning import StageHalving
from sweeps.records import Status, SweepRecords, TrialRecord
from sweeps.sampler import Outcome, Sampler
from sweeps.tree import Chain, StageTree
from sweeps.trial import SCORE, TrialReport, tracked_name

OBJECTIVE = tracked_name("target", SCORE)
MAX_DUPLICATES_IN_A_ROW = 50


@dataclass(frozen=True, kw_only=True)
class PlannedTrial:
    """A trial with its chain of stages."""

    record: TrialRecord
    chain: Chain
    ticket: int


class Observer(Protocol):
    """Is told what happens, on the driver, in order; must return at once."""

    def trial_started(self, planned: PlannedTrial) -> None: ...

    def reported(self, planned: PlannedTrial, report: TrialReport) -> None: ...

    def worker_lost(self, planned: PlannedTrial) -> None: ...

    def trial_ended(self, planned: PlannedTrial) -> None: ...


class Coordinator:
    """Hands out trials, takes their reports and keeps the sweep's records."""

    def __init__(
        self,
        tree: StageTree,
        store: StageStore,
        records: SweepRecords,
        *,
        samples: int,
        max_running: int,
        observers: tuple[Observer, ...] = (),
    ) -> None:
        self._tree, self._store, self._records, self._observers = tree, store, records, observers
        self.samples, self._max_running = samples, max_running
        known = records.load_trials()
        ended = [record for record in known if record.ended]
        self._unfinished = deque(record for record in known if not record.ended)
        self._sampler = Sampler(
            tree.search,
            tree.seed,
            history=[(record.recipe, record.params, _outcome(record)) for record in ended],
            unfinished=[(record.recipe, record.params) for record in self._unfinished],
        )
        self._pruning = StageHalving()
        for record in ended:
            for (stage, score), stage_id in zip(record.stage_scores.items(), record.stage_ids, strict=False):
                self._pruning.add(stage, stage_id, score)
        self.trials: dict[str, TrialRecord] = {record.trial: record for record in known}
        self._running: dict[str, PlannedTrial] = {}
        self._held: list[PlannedTrial] = []
        self._published: set[str] = set()
        self._failed_stages: dict[str, str] = {}
        self._by_last_stage = {record.stage_ids[-1]: record for record in known}
        self._exhausted = False

    @property
    def finished(self) -> bool:
        """Whether every trial of the sweep has been handed out."""
        enough = len(self.trials) >= self.samples or self._exhausted
        return enough and not self._held and not self._unfinished

    def next_trial(self) -> PlannedTrial | None:
        """The next trial to start; None when nothing can start now."""
        if len(self._running) >= self._max_running:
            return None
        for planned in list(self._held):
            failed = self._failed_stage(planned.chain)
            if failed or not self._waits(planned.chain):
                self._held.remove(planned)
                if not failed:
                    return self._start(planned)
                self._end(planned, "failed", failed)
        # No more are held than could start at once, or the sampler would choose too far ahead of what it knows.
        while len(self._held) < self._max_running and (planned_new := self._ask()) is not None:
            if not self._waits(planned_new.chain):
                return self._start(planned_new)
            self._held.append(planned_new)
        return None

    def report(self, trial: str, report: TrialReport) -> bool:
        """Takes a report; True when the trial is to go on."""
        planned = self._running.get(trial)
        if planned is None:
            return False
        record = planned.record
        self._note(record, report)
        for observer in self._observers:
            observer.reported(planned, report)
        if report.kind == "failed":
            self._failed_stages[report.stage_id] = report.message
            self._end(planned, "failed", report.message)
        elif report.done:
            record.score = report.metrics.get(OBJECTIVE)
            usable = record.score is not None and math.isfinite(record.score)
            self._end(planned, "finished" if usable else "failed", "" if usable else f"{OBJECTIVE} is {record.score}")
        elif report.stage_done:
            verdict = self._pruning.judge(report.stage, report.stage_id, report.score)
            if verdict:
                self._end(planned, "pruned", verdict)
            else:
                self._records.save_trial(record)
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

    def _note(self, record: TrialRecord, report: TrialReport) -> None:
        if report.kind == "failed":
            return
        if report.kind == "reused":
            record.saved_s += report.cost_s
            record.epochs_done += report.epochs
        else:
            record.cost_s += report.cost_s
            record.epochs_done += 1
            record.epochs_trained += 1
        record.stage, record.epoch, record.metrics = report.stage, report.epoch, report.metrics
        if report.stage_done:
            self._published.add(report.stage_id)
            record.stage_scores[report.stage] = report.score

    def _ask(self) -> PlannedTrial | None:
        if self._unfinished:
            record = self._unfinished.popleft()
            ticket, _, _ = self._sampler.ask()
            again = TrialRecord(
                trial=record.trial,
                recipe=record.recipe,
                params=record.params,
                stage_ids=record.stage_ids,
                cost_s=record.cost_s,
                epochs_trained=record.epochs_trained,
            )
            self.trials[record.trial] = again
            return self._plan(again, ticket)
        for _ in range(MAX_DUPLICATES_IN_A_ROW):
            if len(self.trials) >= self.samples:
                return None
            ticket, recipe, params = self._sampler.ask()
            record = TrialRecord(trial=f"t{len(self.trials):04d}", recipe=recipe, params=params, stage_ids=[])
            planned = self._plan(record, ticket)
            twin = self._by_last_stage.get(record.stage_ids[-1])
            if twin is None and not self._failed_stage(planned.chain):
                self.trials[record.trial] = self._by_last_stage[record.stage_ids[-1]] = record
                self._records.save_trial(record)
                return planned
            self._sampler.tell(ticket, _outcome(twin) if twin and twin.ended else Outcome(kind="failed"))
        self._exhausted = True
        return None

    def _plan(self, record: TrialRecord, ticket: int) -> PlannedTrial:
        chain = self._tree.chain(record.recipe, record.params)
        record.stage_ids = [task.stage_id for task in chain]
        return PlannedTrial(record=record, chain=chain, ticket=ticket)

    def _failed_stage(self, chain: Chain) -> str:
        """Why a stage of the chain is known to fail; empty when none is."""
        return next((self._failed_stages[task.stage_id] for task in chain if task.stage_id in self._failed_stages), "")

    def _waits(self, chain: Chain) -> bool:
        """Whether a running trial is going to publish a stage that this chain needs."""
        missing = {task.stage_id for task in chain if not self._is_published(task.stage_id)}
        return any(task.stage_id in missing for planned in self._running.values() for task in planned.chain)

    def _is_published(self, stage_id: str) -> bool:
        if stage_id not in self._published and self._store.is_published(stage_id):
            self._published.add(stage_id)
        return stage_id in self._published

    def _start(self, planned: PlannedTrial) -> PlannedTrial:
        planned.record.status = "running"
        self._running[planned.record.trial] = planned
        self._records.save_trial(planned.record)
        for observer in self._observers:
            observer.trial_started(planned)
        return planned

    def _end(self, planned: PlannedTrial, status: Status, reason: str) -> None:
        record = planned.record
        record.status, record.reason = status, reason
        self._running.pop(record.trial, None)
        self._records.save_trial(record)
        if record.ended:
            self._sampler.tell(planned.ticket, _outcome(record))
        for observer in self._observers:
            observer.trial_ended(planned)


def _outcome(record: TrialRecord) -> Outcome:
    if record.status == "finished":
        return Outcome(kind="score", value=record.score)
    if record.status == "pruned":
        return Outcome(kind="pruned", value=record.stage_scores.get(record.stage), step=len(record.stage_scores))
    return Outcome(kind="failed")
