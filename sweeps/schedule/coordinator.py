"""The driver's decisions, without Ray: which trial starts next, what an update of a running trial means, who stops.

It reads from top to bottom: `next_trial` hands out trials, `update` takes what running trials send, `_verdict` says who stops,
`_end` ends a trial. States are changed by the trial book alone (`trials.py`).

A trial whose prefix another trial is training waits until the prefix is published, so that no stage is trained twice. Only a
searcher can hold a trial back, because Tune starts whatever it has been given.
"""

import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence

from sweeps.budget import Budget
from sweeps.devices import DeviceSpeeds
from sweeps.objective import Objective, Score
from sweeps.replicates import level_of, mean_metrics, replicate_of, stage_of
from sweeps.sampling.stage_costs import CpuSeconds, not_measured
from sweeps.schedule.pruning import RungScore, StageHalving, StageVerdicts, Stopped, rung_at
from sweeps.schedule.records import TrialRecord
from sweeps.schedule.spending import EpochSeconds, Spending, nothing_known
from sweeps.schedule.trial_source import TrialSource
from sweeps.schedule.trials import Ending, Failed, Finished, Interrupted, Pruned, Trial, TrialBook
from sweeps.schedule.update import TrialUpdate
from sweeps.search.chains import ChainBuilder

MAX_LOSSES = 3
"""How many workers a trial may lose by its own fault before it fails."""
MAX_OTHER_LOSSES = 50
"""How many it may lose in a row by the fault of others, such as machines that are taken away."""
BEGIN_FOR_S = 0.1
"""How long trials may begin while none can be handed out yet. A draw takes milliseconds, and updates wait meanwhile."""
ALONE_S = 1.0
"""How long the driver waits for the records of the only trials that it has."""


class Observer:
    """Is called on the driver's main thread for everything that happens, in order. Every method must return at once."""

    def trial_started(self, trial: Trial) -> None:
        """The trial has a worker: for the first time, after an interruption, or because it may go on after it was pruned."""

    def updated(self, trial: Trial, update: TrialUpdate) -> None:
        """A running trial has sent an update; the trial's record is up to date with it."""

    def stage_recovered(self, trial: Trial, update: TrialUpdate) -> None:
        """The trial had trained a stage to its end and lost its worker before the driver heard of it."""

    def worker_lost(self, trial: Trial) -> None:
        """The trial's worker is lost, and another continues the trial. The reason is in the trial's record."""

    def node_unfit(self, trial: Trial, update: TrialUpdate) -> None:
        """A node cannot train anything; the trial waits for another."""

    def trial_ended(self, trial: Trial) -> None:
        """The trial has finished, failed, or was pruned or interrupted."""


class Coordinator:
    """Hands out trials, takes their updates and decides who stops."""

    def __init__(
        self,
        chains: ChainBuilder,
        book: TrialBook,
        *,
        samples: int | None,
        max_running: int,
        observers: Sequence[Observer] = (),
        pruning: StageHalving | None = None,
        stops_by_worth: bool = False,
        budget: Budget | None = None,
        epoch_s: EpochSeconds = nothing_known,
        cpu_seconds: CpuSeconds = not_measured,
        speeds: DeviceSpeeds | None = None,
        devices: Mapping[str, int] | None = None,
    ) -> None:
        """Continues with the trials that are in the book.

        `samples`: how many trials are to have had a worker in all; None: as many as the budget allows. `max_running`: how many may
        run at the same time. `epoch_s`: what is known from before of the costs of epochs. `stops_by_worth`: whether a trial stops at the
        end of a stage when another one is worth more; the sampler must know stages. `cpu_seconds`: what a model costs, where trials are
        compared by that. `speeds`: how fast devices are beside the one that `epoch_s` is of. `devices`: how many trials at a time are to run
        on each kind of device.
        """
        self.book, self.samples = book, samples
        self.objective = Objective.of(chains.search.objective)
        self.max_running, self._observers = max_running, tuple(observers)
        """How many trials may run at the same time. It may be changed: what runs goes on."""
        self._verdicts = StageVerdicts(pruning)
        self._stops_by_worth = stops_by_worth
        self.budget = budget or Budget()
        self._spending = Spending(self.budget, book, epoch_s, speeds, devices)
        self._source = TrialSource(chains, book, self._verdicts, self._spending, cpu_seconds)
        self.stopped_because = ""
        """Why the sweep cannot go on, if it was stopped for a reason of its cluster."""
        self.limit_reached = ""
        """The limit at which the sweep has ended, as the flag that sets it; empty while it goes on, and when it ended otherwise."""
        self._losses: Counter[str] = Counter()
        """How many workers each trial has lost by what may be its own fault."""
        self._other_losses: Counter[str] = Counter()
        """How many it has lost otherwise since its last update."""
        self._begun: deque[Trial] = deque()
        """Trials that have begun and wait until that is on record. Then they are handed out."""
        self._pruned_at: defaultdict[str, list[TrialRecord]] = defaultdict(list)
        """Pruned trials by the id of the stage that was stopped."""
        known = list(book.records.values())
        ended = [record for record in known if record.ended]
        self.incomparable = [record for record in ended if not self._source.means_the_same(record)]
        """Ended trials of another search than this one: neither the sampler nor pruning compares them with new trials."""
        self._restore_verdicts([record for record in ended if self._source.means_the_same(record)])
        for record in known:
            if not record.ended:
                book.reopen(self._source.restart(record))

    @property
    def trials(self) -> dict[str, TrialRecord]:
        """The record of every trial that has had a worker, by name."""
        return self.book.records

    @property
    def left_out(self) -> int:
        """How many draws became no trial because a stage that they need had failed or was stopped."""
        return self._source.left_out

    @property
    def finished(self) -> bool:
        """Whether no trial is open and none will be drawn, or a limit is reached, or it was stopped, and all records are written."""
        return self.book.all_saved and (
            bool(self.limit_reached or self.stopped_because)
            or (not self._may_draw and not self.book.num_waiting and not self.book.num_running)
        )

    @property
    def could_run(self) -> int:
        """How many trials could run at the same time now, with room for them: those that run, and those that wait for no stage.

        New draws count only where nothing waits for a stage, and at most as many as run now: they may all need the same prefix.
        """
        running, startable = self.book.num_running, self.book.num_startable
        if self.limit_reached or self.stopped_because:
            return running
        draws = 0
        if self._may_draw and startable == self.book.num_waiting:
            undrawn = math.inf if self.samples is None else self.samples - len(self.book.records) - self.book.num_drawn
            draws = int(min(undrawn, max(1, running + startable)))
        return running + startable + draws

    # Handing out trials.

    def next_trial(self) -> Trial | None:
        """The next trial to start; None when none can start now, or the record of its start is still being written."""
        self.book.save_changed()
        if self.limit_reached or self.stopped_because:
            return None
        if self.book.num_running < self.max_running and not self.book.is_storage_away:  # what begins looks into the store
            self._begin_trials()
        if len(self._begun) == self.book.num_running:
            self.book.wait_until_saved(ALONE_S)  # nobody else wants anything from the driver
        if not self._is_ready():
            return None
        trial = self._begun.popleft()
        for observer in self._observers:
            observer.trial_started(trial)
        return trial

    def _is_ready(self) -> bool:
        """Whether the oldest trial that has begun can be handed out. A driver that is killed later must not give its name to another one."""
        return bool(self._begun) and self.book.is_saved(self._begun[0])

    def _begin_trials(self) -> None:
        """Let trials begin until one can be handed out. Several are written together while they wait for that."""
        until = time.monotonic() + BEGIN_FOR_S
        while not self._is_ready() and self.book.num_running < self.max_running and self._begin_trial():
            if time.monotonic() > until:
                break
        if not self.book.num_running:
            self._end_at_a_limit()
        self.book.save_changed()

    def _begin_trial(self) -> bool:
        """Let the next trial begin; False when none can."""
        self._reopen_risen()
        # Trials are drawn early where that costs nothing, so that the prefix that most of them need can go first.
        while self._source.free_draws(self.book.num_waiting, self.max_running) > 0 and self._draw():
            pass
        trial = self._pop_startable()
        # Otherwise no more trials wait than could start at once, or the sampler would choose before it knows enough.
        while trial is None and self.book.num_waiting < self.max_running and self._draw():
            trial = self._pop_startable()
        if trial is not None:
            self._source.measure(trial.record, trial.chain)
            needs = self._spending.needs(trial)
            self.book.start(trial)
            self._spending.begin(trial, needs)
            self._begun.append(trial)
        return trial is not None

    def _take_back_begun(self) -> None:
        """Let trials wait again that were not handed out. Nobody has heard of them."""
        while self._begun:
            trial = self._begun.popleft()
            self.book.wait_again(trial)
            self._spending.end(trial)

    @property
    def _may_draw(self) -> bool:
        return self._wants_more and self._spending.may_draw

    @property
    def _wants_more(self) -> bool:
        is_full = self.samples is not None and len(self.book.records) + self.book.num_drawn >= self.samples
        return not is_full and not self._source.exhausted

    def _draw(self) -> bool:
        """Draw a new trial, which waits; False when there is none."""
        trial = self._source.draw() if self._may_draw else None
        if trial is not None and trial.record.trial in self.book.records:
            self.book.reopen(trial)
        elif trial is not None:
            self.book.add(trial)
        return trial is not None

    def _reopen_risen(self) -> None:
        """Let trials wait again whose stage had been stopped and now goes on."""
        for stage_id in self._verdicts.pruning.take_risen():
            self._source.look_again()
            for record in self._pruned_at.pop(stage_id, ()):
                self.book.reopen(self._source.restart(record))

    def _pop_startable(self) -> Trial | None:
        """The waiting trial that is to start. Those that the budget does not allow go on waiting."""
        not_allowed: list[Trial] = []
        while (trial := self._pop_sound()) is not None and not self._spending.allows_to_begin(trial):
            if self.book.has_begun(trial):
                not_allowed.append(trial)
            else:
                self._drop(trial)
        for waiting in not_allowed:
            self.book.put_back(waiting)
        return trial

    def _pop_sound(self) -> Trial | None:
        """The next waiting trial. What was drawn and needs a failed or stopped stage by now never becomes a trial.

        A trial that has begun waits because another sweep held it, or for a new driver: it goes on to the next rung.
        """
        while (trial := self.book.pop_startable()) is not None:
            failure = self._verdicts.failure(trial.record.stage_ids)
            if not self.book.has_begun(trial):
                if not failure and not self._verdicts.stopped(trial.record.stage_ids):
                    return trial
                self._drop(trial)
                self._source.left_out += 1
                continue
            if not failure:
                return trial
            for observer in self._observers:
                observer.trial_started(trial)
            self._end(trial, Failed(failure))
        return None

    def _drop(self, trial: Trial) -> None:
        """Forget a draw that was popped and cannot begin."""
        self.book.drop(trial)
        self._source.drop(trial)

    def _end_at_a_limit(self) -> None:
        """End the sweep if it is the budget alone that keeps it from going on: nothing runs, and nothing that waits may begin."""
        waiting = self.book.open_trials
        if any(self._spending.allows_to_begin(trial) for trial in waiting) or not (waiting or self._wants_more):
            return
        self.limit_reached = self.budget.nearest_limit()
        for trial in waiting:
            if self.book.has_begun(trial):
                self._end(trial, Interrupted(f"it could not end within {self.limit_reached}"))

    # Taking updates.

    def update(self, name: str, update: TrialUpdate) -> bool:
        """Take an update of a running trial; True when the trial goes on. Updates of trials that do not run are ignored."""
        trial = self.book.running(name)
        if trial is None:
            return False
        if update.kind == "held":
            self.book.hold(trial, update.stage_id)
            self._spending.end(trial)
            return False
        if update.kind == "unfit":
            self.book.wait_again(trial)
            self._spending.end(trial)
            for observer in self._observers:
                observer.node_unfit(trial, update)
            return False
        self._other_losses.pop(name, None)
        spent_before_s = trial.record.cost_s
        was_trained = self._note(trial, update)
        ending = self._verdict(trial, update, was_trained=was_trained)
        self._spending.note(trial, update, trial.record.cost_s - spent_before_s)
        if ending is not None:
            self._end(trial, ending)
        elif not self._spending.may_go_on(trial, update):
            self.book.wait_again(trial)
            self._spending.end(trial)
            self.book.save(trial.record)
            return False
        elif update.stage_done:
            self.book.save(trial.record)
        else:
            self.book.save_if_due(trial.record)
        return ending is None

    def _verdict(self, trial: Trial, update: TrialUpdate, *, was_trained: bool) -> Ending | None:
        """How the trial ends by this update; None when it goes on. Every running trial that stops by itself stops here.

        Only what a trial has trained stops it. The score of a stage that it reuses decides whether others are drawn from there.
        """
        if update.kind == "failed":
            self._verdicts.add_failure(update.stage_id, update.message)
            return Failed(update.message)
        record, score, stopped = trial.record, self._score_to_compare(trial, update), None
        if score is not None and was_trained:
            stopped = self._verdicts.pruning.judge(score)
        elif score is not None:
            self._verdicts.pruning.add(score)
        if update.done:
            mean = record.score_of_level(update.stage_index, on_soundscapes=self.objective.on_soundscapes)
            value = math.nan if mean is None else mean.value
            if record.replicate_metrics:
                record.metrics = mean_metrics(record.replicate_metrics)
            return Finished(value) if math.isfinite(value) else Failed(f"{self.objective.score_name} is {value}")
        if (
            self._stops_by_worth
            and stopped is None
            and was_trained
            and update.stage_done
            and score is not None
            and self._may_draw
        ):
            reason = self._source.why_stop(trial)
            if reason:
                stopped = Stopped(stage_id=score.stage_id, rung=score.rung, score=score.score, reason=reason, by="worth")
        return Pruned(stopped) if stopped else None

    def _score_to_compare(self, trial: Trial, update: TrialUpdate) -> RungScore | None:
        """The score that an update brings at a rung; None where there is no rung.

        Of several replicates, the first one alone is compared in the middle of a stage, and at its end the mean of all.
        """
        record, index = trial.record, update.stage_index
        rung, level = rung_at(trial.chain[index].config, update.epoch, update.epochs), level_of(record.stages, index)
        if rung is None or index != level[0 if rung.epoch else -1]:
            return None
        if rung.epoch:
            record.middle_scores[update.stage] = (update.epoch, update.epochs, update.score)
            return record.rung_score(index, Score(update.score), epoch=rung.epoch, epochs=rung.epochs)
        mean = record.score_of_level(index, on_soundscapes=self.objective.on_soundscapes)
        return record.rung_score(index, Score(math.nan) if mean is None else mean)

    def worker_lost(self, name: str, reason: str, *, by_trial: bool = True) -> bool:
        """A running trial's worker is lost; True when another may continue the trial, False when it has ended.

        Only losses that may be the trial's own fault count (`by_trial`). A machine that was taken away or a storage that did not answer says
        nothing about the trial, so such a loss counts only where nothing else has come of the trial for MAX_OTHER_LOSSES of them.
        """
        trial = self.book.running(name)
        if trial is None:
            return False
        trial.record.reason = f"worker lost: {reason}"
        counts, most = (self._losses, MAX_LOSSES) if by_trial else (self._other_losses, MAX_OTHER_LOSSES)
        counts[name] += 1
        if counts[name] > most:
            self._end(trial, Failed(f"worker lost {counts[name]} times, at last: {reason}"))
            return False
        for observer in self._observers:
            observer.worker_lost(trial)
        return True

    def fail(self, name: str) -> None:
        """End a running trial that Tune has given up."""
        trial = self.book.running(name)
        if trial is not None:
            self._end(trial, Failed(trial.record.reason))

    def stop(self, reason: str) -> None:
        """Hand out no more trials: the cluster cannot train them. What runs goes on, and the next driver continues what waits."""
        if not self.stopped_because:
            self.stopped_because = reason
            for trial in self.book.open_trials:
                if self.book.has_begun(trial) and trial.record.status == "waiting":
                    self._end(trial, Interrupted("no node of the cluster could train it"))
            self._take_back_begun()

    def interrupt(self) -> None:
        """End every running trial as interrupted; the next driver continues it."""
        self._take_back_begun()
        for trial in self.book.running_trials():
            self._end(trial, Interrupted("the sweep was stopped"))
        self.book.save_changed()

    def _note(self, trial: Trial, update: TrialUpdate) -> bool:
        """Write an update into the trial's record and pass it on; True for what the trial itself has trained just now.

        A restarted trial repeats updates: each counts once.
        """
        record = trial.record
        recovered = update.kind == "reused" and update.is_own and update.stage_id not in record.trained_ids
        if update.kind == "epoch":
            record.spent_s[update.stage] = record.spent_s.get(update.stage, 0.0) + update.cost_s
            record.devices[update.stage] = update.device
            record.epochs_trained += 1
            record.reused_s.pop(update.stage, None)
            self.book.stage_in_training(trial, update.stage_id)
        elif recovered:
            record.spent_s[update.stage] = max(record.spent_s.get(update.stage, 0.0), update.cost_s)
            record.epochs_trained += 1
        elif update.kind == "reused" and update.stage_id not in record.trained_ids:
            record.reused_s[update.stage] = update.cost_s
        if update.kind != "failed":
            record.stage, record.epoch, record.metrics = update.stage, update.epoch, update.metrics
            record.epochs_done = sum(task.config.epochs for task in trial.chain[: update.stage_index]) + update.epoch
        if update.stage_done:
            self.book.stage_published(update.stage_id)
            record.stage_scores[update.stage] = update.score
            if update.error:
                record.stage_errors[update.stage] = update.error
            self._keep_of_replicate(record, update)
        for observer in self._observers:
            if recovered:
                observer.stage_recovered(trial, update)
            else:
                observer.updated(trial, update)
        # After the observers: if a signal ends this driver among them, the next one recovers the stage and tells them again.
        if update.stage_done and (update.kind == "epoch" or recovered) and update.stage_id not in record.trained_ids:
            record.trained_ids.append(update.stage_id)
        return update.kind == "epoch" or recovered

    def _keep_of_replicate(self, record: TrialRecord, update: TrialUpdate) -> None:
        """Keep the metrics at the end of a stage until all replicates are there."""
        if replicate_of(update.stage):
            level = {name: kept for name, kept in record.replicate_metrics.items() if stage_of(name) == stage_of(update.stage)}
            record.replicate_metrics = level | {update.stage: dict(update.metrics)}

    # Ending trials, and what earlier drivers decided.

    def _end(self, trial: Trial, ending: Ending) -> None:
        if isinstance(ending, Pruned) and ending.stopped.by == "rank":
            self._pruned_at[ending.stopped.stage_id].append(trial.record)
        self.book.end(trial, ending)
        self._spending.end(trial)
        # Observers come before anything is marked for saving: of a trial that is recorded as ended no later driver speaks again.
        for observer in self._observers:
            observer.trial_ended(trial)
        if trial.record.ended:
            self._source.tell(trial)
        self.book.save(trial.record)

    def _restore_verdicts(self, ended: Sequence[TrialRecord]) -> None:
        """Restore what earlier drivers knew of scores, and of the trials that these stopped."""
        for record in ended:
            for score in record.rung_scores(on_soundscapes=self.objective.on_soundscapes):
                self._verdicts.pruning.add(score)
        for record in ended:
            if record.stopped is not None and not record.paused:
                self._verdicts.pruning.recall(record.stopped)
                self._pruned_at[record.stopped.stage_id].append(record)
