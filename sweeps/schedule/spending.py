"""What trials would cost and have cost, beside the budget: which may begin, and which must wait because they could not end."""

import math
import statistics
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from birdclef_core.config import ModelConfig
from birdclef_core.stages.task import StageTask
from birdclef_core.store.summary import DROPOUTS, FREEZING
from sweeps.budget import SPARE, Budget
from sweeps.devices import DeviceSpeeds
from sweeps.replicates import level_of
from sweeps.schedule.records import TrialRecord
from sweeps.schedule.trials import Trial, TrialBook
from sweeps.schedule.update import TrialUpdate
from sweeps.search.chains import Chain

EpochSeconds = Callable[[StageTask], float | None]
"""Device seconds of an epoch of a stage with its scoring; None when they are not known."""
REMEMBERED_EPOCHS = 50
"""The cost of an epoch is the median of at most this many of its kind."""
RECORDINGS = 10_000
"""Stands for the number of recordings, where an epoch has a clip of each: costs of these are only compared with each other."""
UNKNOWN_S = 1e-6
"""What an epoch counts while no cost is known: next to nothing, so that it is begun and measured, but not where nothing is left."""


_Kind = tuple[Any, ...]
"""A kind of work: what the cost of an epoch depends on."""


def nothing_known(_: StageTask) -> float | None:
    """The cost of an epoch for a driver that has no earlier measurements."""
    return None


class EpochCosts:
    """What epochs cost: as this sweep has measured it, or else as earlier measurements say.

    A kind of work of which neither is known counts as much as the dearest that was measured with the same model and label space, else with
    the same encoder and head, at the same cost for a second of sound.

    All of it is kept in seconds of one device, the base, as which others are so many times as fast (`speeds`).
    """

    def __init__(self, before: EpochSeconds, speeds: DeviceSpeeds | None = None) -> None:
        """`before`: what is known from before the sweep, such as from other stages in the store, in seconds of the base."""
        self._before, self.speeds = before, speeds or DeviceSpeeds()
        self._measured: defaultdict[_Kind, dict[str, deque[float]]] = defaultdict(dict)
        """Seconds of epochs by kind of work and device."""
        self._known: dict[_Kind, float | None] = {}
        """The cost of each kind of work that was asked for since something was last measured."""
        self._alike: defaultdict[Any, dict[_Kind, StageTask]] = defaultdict(dict)
        """A task of each kind that was measured, by what its cost may be compared by, see `_likeness`."""
        self._dearest: dict[Any, float] = {}
        """The highest cost of a second of sound among these, since something was last measured."""

    def learn(self, task: StageTask, cost_s: float, epochs: int = 1, device: str = "") -> None:
        """Take the cost of an epoch into account that was just trained, or of several that cost the same."""
        kind = _kind_of_work(task)
        self._measured[kind].setdefault(device, deque(maxlen=REMEMBERED_EPOCHS)).extend([cost_s] * epochs)
        if cost_s > 0:
            self.speeds.learn(device, kind, 1 / cost_s, epochs)
        if device == self.speeds.base:
            self._known.pop(kind, None)
        else:
            self._known.clear()  # speeds may have changed
        self._dearest.clear()
        for likeness in _likeness(task):
            self._alike[likeness][kind] = task

    def recall(self, task: StageTask, cost_s: float, epochs: int, device: str) -> None:
        """Take epochs of an earlier driver into account. What is known from before the sweep counts more."""
        if self._before(task) is None:
            self.learn(task, cost_s, epochs, device)

    def of_epoch(self, task: StageTask) -> float:
        """Return the seconds of an epoch on the base; UNKNOWN_S while no cost is known."""
        kind = _kind_of_work(task)
        if kind not in self._known:
            self._known[kind] = self._median(kind) if kind in self._measured else self._before(task)
        known = self._known[kind]
        if known is not None:
            return known
        likeness = next((likeness for likeness in _likeness(task) if likeness in self._alike), None)
        return UNKNOWN_S if likeness is None else self._dearest_of(likeness) * _sound_s(task)

    def of_stage(self, task: StageTask) -> float:
        """Return the seconds of all epochs of a stage on the base."""
        return task.config.epochs * self.of_epoch(task)

    def _median(self, kind: _Kind) -> float:
        """The median of what epochs of a kind of work took, as if each had been on the base."""
        measured = [(self.speeds.of(device).value, costs_s) for device, costs_s in self._measured[kind].items()]
        return statistics.median(speed * cost_s for speed, costs_s in measured for cost_s in costs_s)

    def _dearest_of(self, likeness: Any) -> float:
        if likeness not in self._dearest:
            self._dearest[likeness] = max(self._median(kind) / _sound_s(task) for kind, task in self._alike[likeness].items())
        return self._dearest[likeness]


def _sound_s(task: StageTask) -> float:
    """Seconds of sound of an epoch."""
    return task.config.clip_s * (task.config.clips_per_epoch or RECORDINGS)


def _likeness(task: StageTask) -> tuple[Any, ...]:
    """What a cost may be compared by, from the most to the least alike."""
    network, space = (task.model.encoder, task.model.head), task.config.label_space
    return (_timed(task.model), space), (network, space), (network, None), ()


def _kind_of_work(task: StageTask) -> _Kind:
    """What the cost of an epoch depends on."""
    config = task.config
    sizes = (config.label_space, config.clip_s, config.batch_size, config.clips_per_epoch)
    frozen = tuple(getattr(config, name) for name in FREEZING)
    return (_timed(task.model), config.precision, frozen, config.predicts and config.predicts_on, task.encoder_work, *sizes)


@lru_cache(maxsize=4096)
def _timed(model: ModelConfig) -> ModelConfig:
    """A model without dropout, which takes no time that counts."""
    without: dict[str, Any] = dict.fromkeys(DROPOUTS, 0.0)
    return replace(model, **without)


class Spending:
    """Says which trials the budget allows, and keeps the budget up to date with what they cost."""

    def __init__(
        self,
        budget: Budget,
        book: TrialBook,
        epoch_s: EpochSeconds,
        speeds: DeviceSpeeds | None = None,
        devices: Mapping[str, int] | None = None,
    ) -> None:
        """`epoch_s`: seconds of the base of `speeds`. `devices`: how many trials will run on each kind of device."""
        self._budget, self._book, self._costs = budget, book, EpochCosts(epoch_s, speeds)
        self._devices = devices or {}
        self._device_of: dict[str, str] = {}
        """The device of each running trial that has sent an update."""
        self._running_on: Counter[str] = Counter()
        """How many of these there are of each device."""
        self._cheapest_refused_s = math.inf
        self._paused_below_s: float | None = None
        """No trial is drawn before the budget allows one of so many device seconds, because the draws before needed more."""
        budget.spent_gpu_s += sum(record.gpu_s for record in book.records.values())

    # What stages cost.

    def recall(self, record: TrialRecord, chain: Chain) -> None:
        """Take into account what the stages cost that a trial of an earlier driver has trained to their end."""
        for task, stage, stage_id in zip(chain, record.stages, record.stage_ids, strict=True):
            if stage_id in record.trained_ids and record.spent_s.get(stage):
                spent_s, device = record.spent_s[stage], record.devices.get(stage, "")
                self._costs.recall(task, spent_s / task.config.epochs, task.config.epochs, device)

    def stage_s(self, chain: Chain) -> list[float]:
        """Return the device seconds of each stage of a chain, on a device that is as fast as they are in the mean."""
        return [self._costs.of_stage(task) / self._speed() for task in chain]

    def left_s(self) -> dict[str, float]:
        """Return the device seconds that the levels still take which running trials are training now, by the id of a level's last stage."""
        left: dict[str, float] = {}
        for trial in self._book.running_trials():
            record, published = trial.record, self._book.num_published(trial.record.stage_ids)
            if published < len(trial.chain):
                task = trial.chain[published]
                level = [trial.chain[index] for index in level_of(record.stages, published) if index >= published]
                done_s = record.epoch * self._costs.of_epoch(task) if record.stage == task.name else 0.0
                left_s = sum(self._costs.of_stage(other) for other in level) - done_s
                left[level[-1].stage_id] = left_s / self._speed(record.trial)
        return left

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
        unfinished = [task for task in trial.chain if task.stage_id in needed and task.name == record.stage]
        done_s = sum(record.epoch * self._costs.of_epoch(task) for task in unfinished) / self._speed()
        return self._chain_s(trial.chain, needed) - done_s

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
        name, index = trial.record.trial, update.stage_index
        self._now_on(name, update.device)
        if update.kind == "epoch":
            self._costs.learn(trial.chain[index], update.cost_s, device=update.device)
        if update.stage_done:
            self._paused_below_s = None
        left = update.epochs - update.epoch if update.kind == "epoch" else 0
        left_s = left * self._costs.of_epoch(trial.chain[index]) / self._speed(name)
        later = {task.stage_id for task in trial.chain[index + 1 :] if not self._book.is_published(task.stage_id)}
        self._budget.need(name, left_s + self._chain_s(trial.chain, later, name))

    def may_go_on(self, trial: Trial, update: TrialUpdate) -> bool:
        """Whether a trial may go on after an epoch that it has trained, because it can end within the budget."""
        return update.kind != "epoch" or self._budget.may_go_on(trial.record.trial)

    def end(self, trial: Trial) -> None:
        """The trial does not run any more."""
        self._budget.release(trial.record.trial)
        self._now_on(trial.record.trial, None)

    def _allows(self, seconds: float) -> bool:
        if self._budget.may_begin(seconds):
            return True
        self._cheapest_refused_s = min(self._cheapest_refused_s, seconds)
        return False

    def _chain_s(self, chain: Chain, needed: set[str], trial: str = "") -> float:
        """Device seconds of those stages of a chain that are needed, on the device of a running trial; else as `_speed` has it."""
        return sum(self._costs.of_stage(task) for task in chain if task.stage_id in needed) / self._speed(trial)

    def _now_on(self, trial: str, device: str | None) -> None:
        """Remember on which device a trial runs; None: on none any more."""
        before = self._device_of.pop(trial, None)
        if before is not None:
            self._running_on[before] -= 1
        if device is not None:
            self._device_of[trial] = device
            self._running_on[device] += 1

    def _speed(self, trial: str = "") -> float:
        """The speed of the device of a running trial; else the mean of those that run, because nobody knows where one will run."""
        speeds = self._costs.speeds
        if trial in self._device_of:
            return speeds.of(self._device_of[trial]).value
        return speeds.mean(self._running_on if self._device_of else self._devices)
