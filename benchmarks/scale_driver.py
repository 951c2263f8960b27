"""What `scale.py` and `scale_tune.py` measure: a driver with made-up trials, its storage, and its load."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from stage_tree import RATE, Study, make_chain_builder
from stage_tree_overhead import moto_bucket

from birdclef_core.recipes import sed_b3ns, sed_v2s
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.objective import Objective
from sweeps.plan.simulate import SimulatedStore, SimulatedView, even_score
from sweeps.run.console import SweepConsole
from sweeps.schedule.coordinator import Coordinator, Observer
from sweeps.schedule.records import SweepRecords, TrialRecord
from sweeps.schedule.trial_log.writer import RecordWriter
from sweeps.schedule.trials import Trial, TrialBook
from sweeps.schedule.update import TrialUpdate
from sweeps.search.chains import ChainBuilder
from sweeps.search.space import Choice, Search
from sweeps.tracking.events import SweepStarted, Tracker
from sweeps.tracking.observer import TrackingObserver

T = TypeVar("T")

REQUEST_S = 0.031
"""What a request to the object store takes more than one to moto's server on this machine."""
EPOCH_S = 60.0
NUM_METRICS = 12
TAGS = {"birdclef.sweep": "scale"}


class FarStorage(Storage):
    """A storage each of whose requests takes REQUEST_S more."""

    def wait_for(self, work: Callable[[], T]) -> T:
        time.sleep(REQUEST_S)
        return super().wait_for(work)


class OneEach(RecordWriter):
    """The control: every record is a file, which is written with a request of its own while the driver waits."""

    def save_trials(self, trials: Sequence[TrialRecord]) -> None:
        for trial in trials:
            self._storage.write_json(f"each/{trial.trial}.json", trial, indent=1)

    def save_sweep(self, record: object) -> None:
        self._storage.write_json("each/sweep.json", record)


def make_chains(sampler: str) -> ChainBuilder:
    """Return chains of two recipes with all five stages and the recipes' own numbers of epochs; every trial has its own first stage."""
    space = {f"{stage}.learning_rate": RATE for stage in ("pretrain_ce", "train_ce", "finetune")}
    search = Search(
        name="scale", recipes=(sed_v2s(), sed_b3ns()), space={**space, "train.mixing.wave_prob": Choice((0.3, 0.5, 0.7))}
    )
    chains = make_chain_builder(Study("scale", search, 1, 1))
    return replace(chains, search=replace(chains.search, sampler=sampler, objective="val/cmap"))


@contextmanager
def far_storage() -> Iterator[Storage]:
    with moto_bucket() as uri:
        near = Storage.parse(uri)
        yield FarStorage(near.filesystem, near.root)


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def made_up_updates(trial: Trial, first_epoch: int) -> Iterator[TrialUpdate]:
    """Yield the updates of a trial's chain, beginning with an epoch of its first stage."""
    for index, task in enumerate(trial.chain):
        for epoch in range(first_epoch if index == 0 else 1, task.config.epochs + 1):
            score = even_score(task, epoch)
            yield TrialUpdate(
                kind="epoch",
                stage=task.config.name,
                stage_index=index,
                stage_id=task.stage_id,
                epoch=epoch,
                epochs=task.config.epochs,
                score=score,
                error=0.01 if epoch == task.config.epochs else 0.0,
                metrics={"val/cmap": score, **{f"train/figure_{number}": score / number for number in range(1, NUM_METRICS)}},
                cost_s=EPOCH_S,
                device="made up",
                time_s=time.time(),
                done=index == len(trial.chain) - 1 and epoch == task.config.epochs,
            )


@dataclass
class Load:
    """What a driver did in a while."""

    seconds: float
    events: int
    busy_s: float
    """In which the driver's loop could do nothing else."""
    loop_cpu_s: float
    """CPU seconds of the loop's thread."""
    cpu_s: float
    """CPU seconds of the whole process."""
    late_s: list[float] = field(default_factory=list)
    """How late each event was taken."""
    parts_s: dict[str, float] = field(default_factory=dict)

    def text(self) -> str:
        parts = ", ".join(f"{name} {1e2 * seconds / self.seconds:.1f} %" for name, seconds in self.parts_s.items())
        return (
            f"{self.events / self.seconds:.1f} events a second; {100 * self.cpu_s / self.seconds:.1f} % of a core ({100 * self.loop_cpu_s / self.seconds:.1f} % in the loop's "
            f"thread), loop busy {100 * self.busy_s / self.seconds:.1f} % of the time; events late by {1e3 * statistics.median(self.late_s):.0f} ms (median), "
            f"{1e3 * percentile(self.late_s, 0.99):.0f} ms (99th percentile), {1e3 * max(self.late_s):.0f} ms (most). Busy with: {parts}"
        )


class Parts:
    """The wall time of some calls by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, call: Callable[..., T]) -> Callable[..., T]:
        self.seconds.setdefault(name, 0.0)

        def wrapper(*given: object, **named: object) -> T:
            began = time.perf_counter()
            try:
                return call(*given, **named)
            finally:
                self.seconds[name] += time.perf_counter() - began

        return wrapper

    def watch(self, name: str, observer: Observer) -> Observer:
        for method in ("trial_started", "updated", "stage_recovered", "worker_lost", "trial_ended"):
            setattr(observer, method, self.timed(name, getattr(observer, method)))
        return observer


class Driver:
    """Coordinator, records, journal and terminal of a sweep on a far storage, with the time of each."""

    def __init__(
        self,
        storage: Storage,
        folder: Path,
        tracker: Tracker,
        trials: int,
        sampler: str,
        console: Console,
    ) -> None:
        self.parts, self.chains, self.tracker = Parts(), make_chains(sampler), tracker
        self._records = RecordWriter(SweepRecords(storage))
        for method in ("save_trials", "wait"):
            setattr(self._records, method, self.parts.timed("records", getattr(self._records, method)))
        self.store = StageStore(storage.at("store"))
        book = TrialBook(self._records, SimulatedView(SimulatedStore(), "s"))
        objective = Objective.of("val/cmap")
        space = self.chains.search.space
        tracking = TrackingObserver(tracker, self.store, folder, space=space, tags=TAGS, objective=objective)
        self.table = SweepConsole(console, book, None, objective, {"all": 834, "target": 264})
        self.coordinator = Coordinator(
            self.chains,
            book,
            samples=10 * trials,
            max_running=trials,
            observers=[self.parts.watch("tracking", tracking), self.parts.watch("terminal", self.table)],
            stops_by_worth=sampler == "stage",
        )
        tracker.log(SweepStarted(sweep="scale", search="scale", tags=TAGS))

    def make_records_due(self) -> None:
        """Let each trial's record be written at its next epoch, as after the first minute of a sweep."""
        saved_at = self.coordinator.book._saved_at
        saved_at.update(dict.fromkeys(saved_at, time.monotonic() - 2 * EPOCH_S))

    def write_each_alone(self) -> None:
        """From now on do as the control does."""
        self._records.wait()
        each = OneEach(SweepRecords(self._records._storage))
        self._records.save_trials = self.parts.timed("records", each.save_trials)  # type: ignore[method-assign]
