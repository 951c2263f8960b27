"""A driver that is lost at any moment, and one on another machine that goes on with what the storage has: each epoch that a stage has
trained is told to the server, under the run that has trained the stage, and once.

Nothing runs at the same time here, so "any moment" is each write to the storage, each event and each update on its way to the driver. Of
the server's state there are the two extremes: it has all events that the driver had written, or only those that are in the copy.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up_stage import NO_DATA, ExecutionLog, MadeUpStage

import sweeps.execution.trial
import sweeps.tracking.journal
from birdclef_core.config import ModelConfig, Recipe, StageConfig
from birdclef_core.models.encoders import RANDOM
from birdclef_core.store.leases import Leases
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.taxonomy import LabelSpace
from sweeps.execution.trial import run_trial
from sweeps.objective import Objective
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.records import SweepRecords
from sweeps.schedule.store_view import DriverStoreView
from sweeps.schedule.trial_log.writer import RecordWriter
from sweeps.schedule.trials import TrialBook
from sweeps.schedule.update import TrialUpdate
from sweeps.search.chains import ChainBuilder
from sweeps.search.space import Choice, Search
from sweeps.tracking.delivery import JournalTracker, LoggedEvent
from sweeps.tracking.events import EpochFinished, SweepStarted
from sweeps.tracking.journal import Journal
from sweeps.tracking.observer import TrackingObserver

COMMON = {"learning_rate": 1e-3, "clip_s": 1.0, "batch_size": 2, "loss": "ce"}
STAGES = (
    StageConfig(name="pretrain_ce", label_space="all", seed=1, epochs=2, **COMMON),
    StageConfig(name="train_ce", label_space="target", seed=2, epochs=2, **COMMON),
)
SEARCH = Search(
    name="lost",
    recipes=(Recipe(name="r", model=ModelConfig(encoder="mobilenetv3_small_050"), stages=STAGES),),
    space={"train_ce.learning_rate": Choice((1e-4, 1e-3))},
    sampler="grid",
)


class Lost(BaseException):
    """The machine of the driver and of its worker, at this moment."""


class Moments:
    """Counts what a driver does and ends it at one of these moments. Nothing that it writes afterwards arrives."""

    def __init__(self) -> None:
        self.begin(0)

    def begin(self, lost_at: int) -> None:
        """`lost_at`: number of the moment at which the next driver is lost; 0: at none."""
        self.passed, self._lost_at = 0, lost_at

    def __call__(self) -> None:
        self.passed += 1
        if self._lost_at and self.passed >= self._lost_at:
            raise Lost if threading.current_thread() is threading.main_thread() else OSError("of a machine that is lost")


class Server:
    """Keeps points as MLflow does, where one that is written again is the same."""

    steps = 0

    def __init__(self) -> None:
        self.points: set[tuple[str, int, int, float, float]] = set()
        self.is_away = False

    def apply(self, events: Sequence[LoggedEvent], *, seen_before: bool) -> None:
        if self.is_away:
            raise ConnectionError("away")
        for event, _ in events:
            if isinstance(event, EpochFinished):
                score = next(value for name, value in event.metrics.items() if name.endswith("/cmap"))
                self.points.add((event.execution, event.epoch, event.trial_epoch, event.time_s, score))

    def is_well(self) -> bool:
        return not self.is_away

    @contextmanager
    def connect(self, memory: dict[str, str]) -> Iterator["Server"]:
        yield self


class RecordsAtOnce(RecordWriter):
    """Writes as on a remote storage, without the thread."""

    def _take(self, lines: dict[str, bytes], sweep: bytes = b"") -> None:
        self._before_batch()
        self._write(lines, sweep)


class LateRecords(RecordWriter):
    """Writes as late as a remote storage may: when a trial is to be handed out, which waits for its record, or at the end."""

    def _take(self, lines: dict[str, bytes], sweep: bytes = b"") -> None:
        self._waiting |= lines

    def is_saved(self, trial: str) -> bool:
        self.wait()
        return True

    def wait(self, limit_s: float | None = None) -> None:
        self._before_batch()
        waiting, self._waiting = self._waiting, {}
        self._write(waiting, b"")


@pytest.fixture
def moments(monkeypatch, tmp_path) -> Moments:
    moments = Moments()

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any) -> Any:
            moments()
            return call(*arguments)

        return wrapper

    monkeypatch.setattr(Storage, "write_bytes", counted(Storage.write_bytes))
    monkeypatch.setattr(Journal, "append", counted(Journal.append))
    monkeypatch.setattr(Coordinator, "update", counted(Coordinator.update))
    monkeypatch.setattr(sweeps.tracking.journal, "_COPY_EVERY_S", 3600.0)
    monkeypatch.setattr(StageStore, "copy_reports", lambda self, stage_id, folder: folder.mkdir(parents=True, exist_ok=True))
    monkeypatch.setattr(sweeps.execution.trial, "train_stage", MadeUpStage(ExecutionLog(tmp_path / "log"), epoch_s=0.0))
    return moments


def chain_builder() -> ChainBuilder:
    return ChainBuilder(
        search=SEARCH,
        seed=0,
        pretrained={"mobilenetv3_small_050": RANDOM},
        all_species=LabelSpace.of("all", "abcd"),
        target_species=LabelSpace.of("target", "ab"),
        data_fingerprint="data",
        code_version="code",
    )


def drive(storage: Storage, own: Path, server: Server, writer: type[RecordWriter]) -> None:
    """Run a driver with its workers from what the storage has, until the sweep has ended or the machine is lost."""
    store = StageStore(storage.at("store"))
    tracker = JournalTracker(own, "server", server.connect, storage.at("s"))
    observer = TrackingObserver(tracker, store, own, space=SEARCH.space, tags={}, objective=Objective.of(None))
    try:
        records = writer(SweepRecords(storage.at("s")), before_batch=tracker.keep)
        book = TrialBook(records, DriverStoreView(store, Leases(store.storage), sweep="s"))
        coordinator = Coordinator(chain_builder(), book, samples=2, max_running=2, observers=(observer,))
        tracker.log(SweepStarted(sweep="s", search="lost"))
        running: dict[str, Iterator[TrialUpdate]] = {}
        while not coordinator.finished:
            while (trial := coordinator.next_trial()) is not None:
                name = trial.record.trial
                running[name] = run_trial(trial.chain, NO_DATA, store, torch.device("cpu"), [], name=f"s/{name}")
            for name, updates in list(running.items()):
                if not coordinator.update(name, next(updates)):
                    del running[name]
        records.wait()
    finally:
        tracker.close(0 if server.is_away else 5)


def trained(storage: Storage) -> set[tuple[str, int, int, float, float]]:
    """What the server must have, by the records of all stages."""
    store = StageStore(storage.at("store"))
    before = {"pretrain_ce": 0, "train_ce": 2}
    return {
        (
            f"{record.trained_by.removeprefix('s/')}/{record.stage}",
            epoch["epoch"],
            before[record.stage] + epoch["epoch"],
            epoch["time_s"],
            epoch["scores"]["cmap"],
        )
        for record in map(store.record, store.known_ids())
        if record is not None
        for epoch in record.history
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("delivered", "writer"), [(True, RecordsAtOnce), (False, LateRecords)], ids=["the server had all", "the server had nothing"]
)
def test_no_epoch_is_missing_and_none_is_there_twice(tmp_path, moments, delivered, writer):
    lost_at, was_lost = 0, True
    while was_lost:
        lost_at += 1
        place, server = tmp_path / str(lost_at), Server()
        storage = Storage.parse(str(place / "storage"))
        server.is_away = not delivered
        moments.begin(lost_at)
        try:
            drive(storage, place / "first", server, writer)
            was_lost = False
        except Lost:
            moments.begin(0)
            server.is_away = False
            drive(storage, place / "second", server, writer)
        if delivered or was_lost:
            expected = trained(storage)
            assert len(expected) == 6
            assert server.points == expected, f"lost at moment {lost_at}"
    assert lost_at > 40
