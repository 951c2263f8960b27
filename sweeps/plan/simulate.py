"""A sweep without training, on a clock that jumps from event to event.

The real chains, sampler, queue and pruning decide; simulated workers take the time that the caller gives. Plans, benchmarks and
tests use it.
"""

import heapq
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from birdclef_core.config import ModelConfig
from birdclef_core.stages.task import StageTask
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.pruning import middle_epochs
from sweeps.schedule.records import TrialRecord
from sweeps.schedule.trials import Trial
from sweeps.schedule.update import TrialUpdate

EpochSeconds = Callable[[StageTask], float]
Score = Callable[[StageTask, int], float]


@dataclass
class SimulatedClock:
    """The clock of a simulation, for a budget that counts hours."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class SimulatedStore:
    """A stage store in memory, which several simulated sweeps may share."""

    published: set[str] = field(default_factory=set)
    trained_by: dict[str, str] = field(default_factory=dict)
    """The sweep that is training a stage, by stage id."""
    unfinished: dict[str, int] = field(default_factory=dict)
    """How many epochs of an interrupted stage have been trained, by stage id."""


@dataclass(frozen=True)
class SimulatedView:
    """What one sweep sees of a simulated store: everything, without delay."""

    store: SimulatedStore
    sweep: str

    def is_published(self, stage_id: str) -> bool:
        return stage_id in self.store.published

    def is_leased(self, stage_id: str) -> bool:
        return self.store.trained_by.get(stage_id, self.sweep) != self.sweep

    def mark_published(self, stage_id: str) -> None:
        self.store.published.add(stage_id)

    def mark_missing(self, stage_id: str) -> None:
        self.store.published.discard(stage_id)

    def mark_leased(self, stage_id: str) -> None:
        """Do nothing: the simulated store knows its leases."""


class MemoryRecords:
    """Records of trials that are kept in memory only."""

    def __init__(self, trials: Mapping[str, TrialRecord] | None = None) -> None:
        self.trials = dict(trials or {})

    def load_trials(self) -> list[TrialRecord]:
        return list(self.trials.values())

    def save_trials(self, trials: Sequence[TrialRecord]) -> None:
        self.trials |= {record.trial: record for record in trials}

    def is_saved(self, trial: str) -> bool:
        return True

    @property
    def is_away(self) -> bool:
        return False

    @property
    def all_saved(self) -> bool:
        return True

    def wait(self, limit_s: float | None = None) -> None:
        """Do nothing: everything is kept at once."""


@dataclass(kw_only=True)
class SimulationResult:
    """What a simulated sweep did."""

    elapsed_s: float = 0.0
    """Seconds of the simulated clock until the last trial ended."""
    worker_s: float = 0.0
    """Seconds that workers spent training."""
    work_s: float = 0.0
    """Seconds that all of it would take a worker of the speed 1."""
    idle_s: float = 0.0
    """Seconds that workers had nothing to do."""
    epochs: int = 0
    """How many epochs were trained."""
    executed: dict[str, int] = field(default_factory=dict)
    """How often each stage was trained to its end."""


@dataclass(frozen=True, kw_only=True)
class SimulatedSweep:
    """A sweep and the store that its workers see."""

    name: str
    coordinator: Coordinator


@dataclass(frozen=True, kw_only=True)
class SimulatedWorker:
    """A worker, on a device that may be faster or slower than others."""

    device: str = ""
    speed: float = 1.0


def even_score(task: StageTask, epoch: int) -> float:
    """A made-up score, spread evenly over 0 to 1, always the same for the same stage and epoch."""
    return (int(task.stage_id[:8], 16) * (epoch + 1) * 2654435761 % 2**32) / 2**32


def cpu_seconds_by_size(model: ModelConfig) -> float:
    """Made-up CPU seconds of a model, in proportion to the size of its spectrogram."""
    return model.spectrogram.num_mels / model.spectrogram.hop_length


def simulate(
    sweeps: Sequence[SimulatedSweep],
    store: SimulatedStore,
    workers: int | Sequence[SimulatedWorker],
    epoch_s: EpochSeconds,
    score: Score = even_score,
    clock: SimulatedClock | None = None,
    result: SimulationResult | None = None,
) -> SimulationResult:
    """Run sweeps on one store to their end. A free worker goes to the sweep with the fewest running trials, as on a shared cluster.

    `workers`: each, or how many of the same. The one that has been free for longest is taken, because Ray knows no speeds. `epoch_s`: seconds
    on a worker of the speed 1.

    `clock` is set to the simulated time at every event, and `result`, which is returned, says at any time what was done so far.
    """
    each = [SimulatedWorker()] * workers if isinstance(workers, int) else workers
    return _Simulation(sweeps, store, each, epoch_s, score, clock or SimulatedClock(), result or SimulationResult()).run()


class _Simulation:
    def __init__(
        self,
        sweeps: Sequence[SimulatedSweep],
        store: SimulatedStore,
        workers: Sequence[SimulatedWorker],
        epoch_s: EpochSeconds,
        score: Score,
        clock: SimulatedClock,
        result: SimulationResult,
    ) -> None:
        self._sweeps, self._store, self._epoch_s, self._score, self._clock = sweeps, store, epoch_s, score, clock
        self._free, self._result = deque(workers), result
        self._events: list[tuple[float, int, SimulatedWorker, Iterator[float]]] = []
        """Simulated time, a tie-breaker, and the worker that continues its trial at that time."""
        self._order = count()

    def run(self) -> SimulationResult:
        now_s = 0.0
        self._fill(now_s)
        while self._events:
            before_s = now_s
            now_s, _, worker, work = heapq.heappop(self._events)
            self._result.idle_s += len(self._free) * (now_s - before_s)
            self._clock.now_s = now_s
            self._advance(now_s, worker, work)
            self._fill(now_s)
        self._result.elapsed_s = now_s
        return self._result

    def _fill(self, now_s: float) -> None:
        """Start every trial that can start now."""
        hungry = list(self._sweeps)
        while hungry and self._free:
            sweep = min(hungry, key=lambda sweep: sweep.coordinator.book.num_running)
            trial = sweep.coordinator.next_trial()
            if trial is None:
                hungry.remove(sweep)
            else:
                worker = self._free.popleft()
                self._advance(now_s, worker, self._trial(sweep, trial, worker))

    def _advance(self, now_s: float, worker: SimulatedWorker, work: Iterator[float]) -> None:
        wait_s = next(work, None)
        if wait_s is None:
            self._free.append(worker)
        else:
            heapq.heappush(self._events, (now_s + wait_s, next(self._order), worker, work))

    def _trial(self, sweep: SimulatedSweep, trial: Trial, worker: SimulatedWorker) -> Iterator[float]:
        """Take a trial to its end as `run_trial` does; yield the seconds until its next update that matters."""
        chain, name = trial.chain, trial.record.trial
        first = max((index + 1 for index, task in enumerate(chain) if task.stage_id in self._store.published), default=0)
        for index, task in enumerate(chain):
            if index < first:
                if not sweep.coordinator.update(name, self._update(trial, index, worker, "reused", task.config.epochs)):
                    return
            elif self._store.trained_by.setdefault(task.stage_id, sweep.name) != sweep.name:
                sweep.coordinator.update(name, self._update(trial, index, worker, "held", 0))
                return
            else:
                goes_on = yield from self._stage(sweep, trial, index, worker)
                self._store.trained_by.pop(task.stage_id)
                if not goes_on:
                    return

    def _stage(self, sweep: SimulatedSweep, trial: Trial, index: int, worker: SimulatedWorker) -> Generator[float, None, bool]:
        task, name = trial.chain[index], trial.record.trial
        stage_id, epochs, epoch_s = task.stage_id, task.config.epochs, self._epoch_s(trial.chain[index]) / worker.speed
        done = self._store.unfinished.pop(stage_id, 0)
        goes_on = True
        # A budget may end a trial after any epoch, a score only at a rung.
        may_stop = range(1, epochs) if sweep.coordinator.budget.limits.any_set else middle_epochs(task.config)
        for until in [*(epoch for epoch in may_stop if epoch > done), epochs]:
            yield (until - done) * epoch_s
            self._result.worker_s += (until - done) * epoch_s
            self._result.work_s += (until - done) * epoch_s * worker.speed
            self._result.epochs += until - done
            if until == epochs:
                self._store.published.add(stage_id)
                self._result.executed[stage_id] = self._result.executed.get(stage_id, 0) + 1
            for epoch in range(done + 1, until + 1):
                goes_on = sweep.coordinator.update(name, self._update(trial, index, worker, "epoch", epoch, epoch_s))
            done = until
            if not goes_on and done < epochs:
                self._store.unfinished[stage_id] = done
                break
        return goes_on

    def _update(
        self, trial: Trial, index: int, worker: SimulatedWorker, kind: Any, epoch: int, cost_s: float = 0.0
    ) -> TrialUpdate:
        task = trial.chain[index]
        score = self._score(task, epoch)
        return TrialUpdate(
            kind=kind,
            stage=task.name,
            stage_index=index,
            stage_id=task.stage_id,
            epoch=epoch,
            epochs=task.config.epochs,
            score=score,
            cost_s=cost_s if kind == "epoch" else self._epoch_s(task) * task.config.epochs,
            device=worker.device,
            done=index == len(trial.chain) - 1 and epoch == task.config.epochs,
        )
