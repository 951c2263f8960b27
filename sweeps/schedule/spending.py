"""What trials would cost and have cost, beside the budget: which may begin, and which must wait because they could not end."""

import math
import statistics
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from birdclef_core.stages.training import StageTask
from sweeps.budget import SPARE, Budget
from sweeps.schedule.trials import Trial, TrialBook
from sweeps.schedule.update import TrialUpdate
from sweeps.search.chains import Chain

EpochSeconds = Callable[[StageTask], float | None]
"""Device seconds of an epoch of a stage with its scoring; None when they are not known."""
REMEMBERED_EPOCHS = 50
"""The cost of an epoch is the median of at most this many of its kind."""
UNKNOWN_S = 1e-6
"""What an epoch counts while no cost is known: next to nothing, so that it is begun and measured, but not where nothing is left."""


def nothing_known(_: StageTask) -> float | None:
    """The cost of an epoch for a driver that has no earlier measurements."""
    return None


class EpochCosts:
    """What epochs cost: as this sweep has measured it, or else as earlier measurements say.

    A kind of work of which neither is known counts as much as the dearest that was measured with the same model and label space, else with
    the same model, else with any.
    """

    def __init__(self, before: EpochSeconds) -> None:
        """`before`: what is known from before the sweep, such as from other stages in the store."""
        self._before = before
        self._measured: defaultdict[Any, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED_EPOCHS))
        self._known: dict[Any, float | None] = {}
        """The cost of each kind of work that was asked for since it was last measured."""
        self._dearest: dict[Any, float] = {}
        """The highest cost of an epoch by what it may be compared by, see `_likeness`."""

    def learn(self, task: StageTask, cost_s: float) -> None:
        """Take the cost of an epoch into account that was just trained."""
        kind = _kind_of_work(task)
        self._measured[kind].append(cost_s)
        self._known.pop(kind, None)
        for likeness in _likeness(task):
            self._dearest[likeness] = max(cost_s, self._dearest.get(likeness, 0.0))

    def of_epoch(self, task: StageTask) -> float:
        """Return the device seconds of an epoch; UNKNOWN_S while no cost is known."""
        kind = _kind_of_work(task)
        if kind not in self._known:
            measured = self._measured.get(kind)
            self._known[kind] = statistics.median(measured) if measured else self._before(task)
        known = self._known[kind]
        if known is not None:
            return known
        return next((self._dearest[likeness] for likeness in _likeness(task) if likeness in self._dearest), UNKNOWN_S)


def _likeness(task: StageTask) -> tuple[Any, ...]:
    """What a cost may be compared by, from the most to the least alike."""
    return (task.model, task.config.label_space), (task.model, None), (None, None)


def _kind_of_work(task: StageTask) -> Any:
    """What the cost of an epoch depends on."""
    config = task.config
    sizes = (config.label_space, config.clip_s, config.batch_size, config.clips_per_epoch)
    return (task.model, config.precision, config.freeze_encoder, *sizes)


class Spending:
    """Says which trials the budget allows, and keeps the budget up to date with what they cost."""

    def __init__(self, budget: Budget, book: TrialBook, epoch_s: EpochSeconds) -> None:
        self._budget, self._book, self._costs = budget, book, EpochCosts(epoch_s)
        self._cheapest_refused_s = math.inf
        self._paused_below_s: float | None = None
        """No trial is drawn before the budget allows one of so many device seconds, because the draws before needed more."""
        budget.spent_gpu_s += sum(record.gpu_s for record in book.records.values())

    # Beginning.

    @property
    def remaining_s(self) -> float | None:
        """The most device seconds that a trial may need which begins now; None without a limit."""
        remaining_s = self._budget.remaining_s
        return None if remaining_s is None else remaining_s / SPARE

    def allows(self, chain: Chain) -> bool:
        """Whether a new trial may begin, so that it can end within the budget."""
        return self._allows(self._chain_s(chain, self._book.untrained([task.stage_id for task in chain])))

    def allows_to_begin(self, trial: Trial) -> bool:
        """The same for a trial that waits."""
        return self._allows(self.needs(trial))

    def needs(self, trial: Trial) -> float:
        """Device seconds that a waiting trial needs. Of one that has begun, epochs of its unfinished stage count as done."""
        record = trial.record
        needed = self._book.untrained(record.stage_ids)
        unfinished = [task for task in trial.chain if task.stage_id in needed and task.config.name == record.stage]
        return self._chain_s(trial.chain, needed) - sum(record.epoch * self._costs.of_epoch(task) for task in unfinished)

    def begin(self, trial: Trial, needs: float) -> None:
        """The trial has begun to run: what it needed while it waited is not there for others."""
        self._budget.need(trial.record.trial, needs)

    # Pausing draws.

    @property
    def may_draw(self) -> bool:
        """Whether it makes sense to draw: not if the budget allows none of what was drawn last."""
        return self._paused_below_s is None or self._budget.may_begin(self._paused_below_s)

    def pause_draws(self) -> bool:
        """If the budget refused a trial, draw no more until it allows the cheapest of those, or a stage is published; whether it did."""
        cheapest_s, self._cheapest_refused_s = self._cheapest_refused_s, math.inf
        if cheapest_s < math.inf:
            self._paused_below_s = cheapest_s
        return cheapest_s < math.inf

    # Running.

    def note(self, trial: Trial, update: TrialUpdate, spent_s: float) -> None:
        """Take an update of a running trial into account, by which `spent_s` device seconds were spent."""
        trial.record.gpu_s += self._budget.spend(spent_s)
        index = update.stage_index
        if update.kind == "epoch":
            self._costs.learn(trial.chain[index], update.cost_s)
        if update.stage_done:
            self._paused_below_s = None
        left_s = (update.epochs - update.epoch) * self._costs.of_epoch(trial.chain[index]) if update.kind == "epoch" else 0.0
        later = {task.stage_id for task in trial.chain[index + 1 :] if not self._book.is_published(task.stage_id)}
        self._budget.need(trial.record.trial, left_s + self._chain_s(trial.chain, later))

    def may_go_on(self, trial: Trial, update: TrialUpdate) -> bool:
        """Whether a trial may go on after an epoch that it has trained, because it can end within the budget."""
        return update.kind != "epoch" or self._budget.may_go_on(trial.record.trial)

    def end(self, trial: Trial) -> None:
        """The trial does not run any more."""
        self._budget.release(trial.record.trial)

    def _allows(self, seconds: float) -> bool:
        if self._budget.may_begin(seconds):
            return True
        self._cheapest_refused_s = min(self._cheapest_refused_s, seconds)
        return False

    def _chain_s(self, chain: Chain, needed: set[str]) -> float:
        """Device seconds of those stages of a chain that are needed."""
        return sum(task.config.epochs * self._costs.of_epoch(task) for task in chain if task.stage_id in needed)
