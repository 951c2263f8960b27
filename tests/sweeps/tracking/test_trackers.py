"""Every Tracker keeps the same contract: one suite, run over the one that delivers a journal and the one that keeps nothing."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import pytest

from sweeps.tracking import delivery
from sweeps.tracking.delivery import JournalTracker
from sweeps.tracking.events import (
    CheckpointUsed,
    DeliveryStatus,
    EpochFinished,
    NullTracker,
    StageFinished,
    StageStarted,
    SweepFinished,
    SweepStarted,
    Tracker,
    TrialFinished,
    TrialStarted,
)

EVENTS = (
    SweepStarted(sweep="s", search="sed", tags={"a": "b"}),
    TrialStarted(trial="t", params={"clip_s": 5.0, "recipe": "sed_v2s"}),
    StageStarted(trial="t", execution="t/train_ce", stage="train_ce"),
    EpochFinished(trial="t", execution="t/train_ce", epoch=1, trial_epoch=1, metrics={"loss": math.inf}, time_s=0.0),
    StageFinished(trial="t", execution="t/train_ce", stage_id="a", status="finished"),
    CheckpointUsed(trial="t", stage_id="a"),
    TrialFinished(trial="t", status="finished", metrics={"objective": 0.5}),
    SweepFinished(status="finished", table_markdown="| a |"),
)


class MemorySink:
    """A server in memory that takes everything, or cannot be reached, or does not answer."""

    steps = 0

    def __init__(self) -> None:
        self.events = []
        self.is_away = False
        self.answers = threading.Event()
        self.answers.set()

    @contextmanager
    def connect(self, memory: dict[str, str]) -> Iterator["MemorySink"]:
        yield self

    def apply(self, records, *, seen_before: bool) -> None:
        self.answers.wait()
        if self.is_away:
            raise ConnectionError("connection refused")
        self.events += [event for event, _ in records]

    def is_well(self) -> bool:
        return not self.is_away


@pytest.fixture
def sink(monkeypatch) -> Iterator[MemorySink]:
    monkeypatch.setattr(delivery, "_GATHER_S", 0.0)
    sink = MemorySink()
    yield sink
    sink.answers.set()


@pytest.fixture(params=["null", "journal"])
def tracker(request, tmp_path, sink) -> Tracker:
    return NullTracker() if request.param == "null" else JournalTracker(tmp_path, "memory", sink.connect)


def delivered(tracker: Tracker, status: DeliveryStatus, sink: MemorySink, events: list) -> None:
    """All events have come to where the tracker delivers, in order; NullTracker delivers nowhere."""
    expected = [] if isinstance(tracker, NullTracker) else events
    assert sink.events == expected
    assert status == DeliveryStatus(delivered=len(expected), kept=0, rejected=0)


def test_every_kind_of_event_is_taken_in_order(tracker, sink):
    for event in deepcopy(EVENTS):
        tracker.log(event)
    delivered(tracker, tracker.close(), sink, list(EVENTS))


def test_a_sweep_without_events_can_be_closed(tracker, sink):
    delivered(tracker, tracker.close(), sink, [])


def test_an_event_is_not_changed(tracker):
    given = deepcopy(EVENTS)
    for event in given:
        tracker.log(event)
    tracker.close()
    assert given == EVENTS


def test_any_thread_may_record_and_its_own_events_keep_their_order(tracker, sink):
    def record(thread: int) -> None:
        for number in range(25):
            tracker.log(TrialStarted(trial=f"{thread}-{number:02d}"))

    threads = [threading.Thread(target=record, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status = tracker.close()
    by_thread = [[event for event in sink.events if event.trial.startswith(f"{thread}-")] for thread in range(4)]
    assert all(events == sorted(events, key=lambda event: event.trial) for events in by_thread)
    delivered(tracker, status, sink, sink.events)
    assert len(sink.events) in ({0} if isinstance(tracker, NullTracker) else {100})


def test_recording_does_not_wait_for_a_server_that_does_not_answer(tracker, sink):
    sink.answers.clear()
    started = time.monotonic()
    for number in range(100):
        tracker.log(TrialStarted(trial=f"t{number}"))
    assert time.monotonic() - started < 2.0
    sink.answers.set()
    tracker.close()


def test_closing_waits_no_longer_than_it_is_told(tracker, sink):
    sink.answers.clear()
    tracker.log(TrialStarted(trial="t"))
    started = time.monotonic()
    status = tracker.close(timeout_s=0.1)
    assert time.monotonic() - started < 5.0
    assert status.delivered == 0 and sink.events == []
    assert status.kept == (0 if isinstance(tracker, NullTracker) else 1)


def test_a_server_that_is_away_raises_nothing_and_is_named_at_the_end(tracker, sink):
    sink.is_away = True
    for event in deepcopy(EVENTS):
        tracker.log(event)
    status = tracker.close(timeout_s=0.1)
    assert (status.delivered, status.rejected) == (0, 0)
    assert bool(status.problem) == bool(status.kept)
    if not isinstance(tracker, NullTracker):
        assert status.kept == len(EVENTS) and "refused" in status.problem
