"""Events reach a server that comes and goes, each once, and none is lost on the way."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from damage import damages

import sweeps
from birdclef_core.errors import InputError, StoreError
from birdclef_core.json_files import to_json
from birdclef_core.store.storage import Storage
from sweeps.tracking import delivery as tracking_delivery
from sweeps.tracking import journal as tracking_journal
from sweeps.tracking.delivery import Denied, JournalTracker, Rejected
from sweeps.tracking.events import TrialStarted
from sweeps.tracking.journal import JOURNAL_NAME, REJECTED_NAME, STATE_NAME, DeliveryState, Journal, JournalCopy, last_state


class Server:
    """What a tracking server holds, and how it misbehaves."""

    def __init__(self):
        self.up = True
        self.trials = []
        self.refused = set()
        self.breaks_on = set()
        self.dies_after = None
        self.connections = 0
        self.denied = ""
        self.denials = 0

    @contextmanager
    def connect(self, memory):
        self.connections += 1
        yield Sink(self, memory)

    def wait_for(self, count):
        deadline = time.monotonic() + 5
        while len(self.trials) < count and time.monotonic() < deadline:
            time.sleep(0.005)
        assert len(self.trials) == count


class Sink:
    """Creates one thing a record; as with a real server, creating it again would double it."""

    steps = 0

    def __init__(self, server, memory):
        self.server, self.memory = server, memory

    def apply(self, records, *, seen_before):
        if self.server.denied:
            self.server.denials += 1
            raise Denied(self.server.denied)
        for event, _ in records:
            if not self.server.up:
                raise ConnectionError("connection refused")
            if event.trial in self.server.refused:
                raise Rejected(f"{event.trial} has a bad parameter")
            if event.trial in self.server.breaks_on:
                raise TypeError("a bug")
            if not (seen_before and event.trial in self.server.trials):
                self.server.trials.append(event.trial)
            self.memory[event.trial] = "known"
            if self.server.dies_after == len(self.server.trials):
                self.server.dies_after = None
                raise ConnectionError("reset by peer")

    def is_well(self):
        return self.server.up


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(tracking_delivery, "_GATHER_S", 0.0)
    monkeypatch.setattr(tracking_delivery, "_RETRY_S", (0.01,))
    monkeypatch.setattr(tracking_delivery, "_MOST_EVENTS", 20)


@pytest.fixture
def server():
    return Server()


def names(start, stop):
    return [f"t{number}" for number in range(start, stop)]


def log(tracker, trials):
    for trial in trials:
        tracker.log(TrialStarted(trial=trial))


def test_all_is_delivered_in_order(tmp_path, server):
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(0, 50))
    report = tracker.close()
    assert (report.delivered, report.kept, report.rejected, report.problem) == (50, 0, 0, "")
    assert server.trials == names(0, 50)


def test_an_outage_only_delays(tmp_path, server, caplog):
    server.up = False
    tracker = JournalTracker(tmp_path, "server", server.connect)
    with caplog.at_level(logging.WARNING):
        log(tracker, names(0, 30))
        time.sleep(0.1)
        assert server.trials == []
        server.up = True
        server.wait_for(30)
        server.up = False
        log(tracker, names(30, 40))
        time.sleep(0.1)
        server.up = True
        report = tracker.close()
    assert report.delivered == 40
    assert server.trials == names(0, 40)
    assert sum("is away" in message for message in caplog.messages) == 2, "an outage is said once"
    assert server.connections > 1, "a server that went away is reached for anew"


def test_recording_does_not_wait_for_the_server(tmp_path, server):
    server.up = False
    tracker = JournalTracker(tmp_path, "server", server.connect)
    started = time.perf_counter()
    log(tracker, names(0, 200))
    assert time.perf_counter() - started < 0.5
    tracker.close(timeout_s=0)


def test_what_is_kept_is_counted_and_delivered_by_the_next(tmp_path, server):
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(0, 10))
    server.wait_for(10)
    server.up = False
    log(tracker, names(10, 25))
    report = tracker.close(timeout_s=0.1)
    assert (report.delivered, report.kept) == (10, 15)
    assert report.problem == "connection refused"
    server.up = True
    report = JournalTracker(tmp_path, "server", server.connect).close()
    assert (report.delivered, report.kept) == (25, 0)
    assert server.trials == names(0, 25)


def test_a_server_that_dies_within_a_batch_gets_nothing_twice(tmp_path, server):
    server.dies_after = 7
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(0, 20))
    assert tracker.close().delivered == 20
    assert server.trials == names(0, 20)


def test_a_crash_between_delivery_and_its_note_doubles_nothing(tmp_path, server, monkeypatch):
    with monkeypatch.context() as crash:
        crash.setattr(DeliveryState, "save", lambda self, folder: 0)
        tracker = JournalTracker(tmp_path, "server", server.connect)
        log(tracker, names(0, 30))
        tracker.close()
    assert not (tmp_path / STATE_NAME).exists()
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(30, 35))
    assert tracker.close().delivered == 35
    assert server.trials == names(0, 35)


def test_a_killed_driver_loses_nothing(tmp_path, server):
    code = """
import os, signal, sys
from contextlib import contextmanager
from sweeps.tracking.events import TrialStarted
from sweeps.tracking.delivery import JournalTracker
@contextmanager
def connect(memory):
    raise ConnectionError("away")
    yield
tracker = JournalTracker(__import__("pathlib").Path(sys.argv[1]), "server", connect)
for number in range(300):
    tracker.log(TrialStarted(trial=f"t{number}"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(sweeps.__file__).parent.parent
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=False)
    assert process.returncode == -signal.SIGKILL
    assert JournalTracker(tmp_path, "server", server.connect).close().delivered == 300
    assert server.trials == names(0, 300)


def test_a_refused_record_holds_nobody_up(tmp_path, server):
    server.refused = {"t3", "t33"}
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(0, 50))
    report = tracker.close()
    assert (report.delivered, report.rejected, report.kept) == (48, 2, 0)
    assert server.trials == [trial for trial in names(0, 50) if trial not in server.refused]
    refused = [json.loads(line) for line in (tmp_path / REJECTED_NAME).read_text().splitlines()]
    assert [line["reason"] for line in refused] == ["t3 has a bad parameter", "t33 has a bad parameter"]
    assert json.loads(refused[0]["line"])["trial"] == "t3"


def test_what_breaks_a_healthy_server_again_and_again_is_set_aside(tmp_path, server):
    server.breaks_on = {"t5"}
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(0, 10))
    report = tracker.close()
    assert (report.delivered, report.rejected) == (9, 1)


def test_a_torn_line_spoils_only_itself(tmp_path, server):
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(0, 3))
    tracker.close()
    with (tmp_path / JOURNAL_NAME).open("a") as journal:
        journal.write('{"event":"TrialSta')
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(3, 5))
    report = tracker.close()
    assert (report.delivered, report.rejected) == (5, 1)
    assert server.trials == names(0, 5)


def test_another_server_gets_all_of_it(tmp_path, server):
    tracker = JournalTracker(tmp_path, "one", server.connect)
    log(tracker, names(0, 5))
    tracker.close()
    other = Server()
    report = JournalTracker(tmp_path, "other", other.connect).close()
    assert report.delivered == 5
    assert other.trials == names(0, 5)


def test_memory_lasts_from_one_process_to_the_next(tmp_path, server):
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(0, 2))
    tracker.close()
    assert DeliveryState.load(tmp_path, "server").memory == {"t0": "known", "t1": "known"}
    assert DeliveryState.load(tmp_path, "other").memory == {}


def test_two_may_not_deliver_one_journal(tmp_path, server):
    tracker = JournalTracker(tmp_path, "server", server.connect)
    with pytest.raises(StoreError, match="another process"):
        JournalTracker(tmp_path, "server", server.connect)
    tracker.close()
    JournalTracker(tmp_path, "server", server.connect).close()


def test_closing_does_not_hang_on_a_server_that_does(tmp_path, server, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(Sink, "apply", lambda self, records, seen_before: released.wait(20))
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(0, 3))
    started = time.monotonic()
    report = tracker.close(timeout_s=0.1)
    assert time.monotonic() - started < 3
    assert report.kept == 3
    released.set()


def test_threads_do_not_tear_each_others_lines(tmp_path, server):
    tracker = JournalTracker(tmp_path, "server", server.connect)
    threads = [threading.Thread(target=log, args=(tracker, names(100 * n, 100 * n + 100))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.close().delivered == 400
    assert sorted(server.trials) == sorted(names(0, 400))


def test_sync_goes_on_while_records_get_through(tmp_path, server):
    server.up = False
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(0, 60))
    tracker.close(timeout_s=0)
    server.up = True
    tracker = JournalTracker(tmp_path, "server", server.connect)
    tracker.wait(patience_s=5)
    assert tracker.close(timeout_s=0).delivered == 60


def test_sync_waits_for_a_slow_server_as_long_as_it_writes(tmp_path, server, monkeypatch):
    """One batch takes longer than the patience."""
    tracker = JournalTracker(tmp_path, "server", server.connect)

    def slowly(self, records, seen_before):
        for _ in range(10):
            time.sleep(0.1)
            Sink.steps += 1

    monkeypatch.setattr(Sink, "apply", slowly)
    monkeypatch.setattr(Sink, "steps", 0)
    log(tracker, names(0, 5))
    tracker.wait(patience_s=0.8)
    assert tracker.close(timeout_s=0).delivered == 5


def test_what_waits_goes_together(tmp_path, server, monkeypatch):
    monkeypatch.setattr(tracking_delivery, "_MOST_EVENTS", 5000)
    sizes = []
    apply = Sink.apply
    monkeypatch.setattr(
        Sink,
        "apply",
        lambda self, records, seen_before: (sizes.append(len(records)), apply(self, records, seen_before=seen_before)),
    )
    server.up = False
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(0, 3))
    wait_until(lambda: sizes)
    log(tracker, names(3, 1000))
    server.up = True
    assert tracker.close().delivered == 1000 and server.trials == names(0, 1000)
    assert sorted(set(sizes))[-1] >= 997 and len(set(sizes)) <= 3


def test_a_refused_event_among_many_is_found_by_halves(tmp_path, server, monkeypatch):
    monkeypatch.setattr(tracking_delivery, "_MOST_EVENTS", 5000)
    server.refused = {"t700"}
    calls = []
    apply = Sink.apply
    monkeypatch.setattr(
        Sink, "apply", lambda self, records, seen_before: (calls.append(1), apply(self, records, seen_before=seen_before))
    )
    journal = Journal(tmp_path)
    for name in names(0, 1024):
        journal.append(TrialStarted(trial=name), 0)
    journal.close()
    report = JournalTracker(tmp_path, "server", server.connect).close()
    assert (report.delivered, report.rejected) == (1023, 1) and len(calls) <= 25


def test_that_the_server_is_slower_than_the_sweep_is_said_once(tmp_path, server, monkeypatch):
    monkeypatch.setattr(tracking_delivery, "_LATE_S", 0.05)
    said = []
    apply = Sink.apply
    slow = lambda self, records, seen_before: (time.sleep(0.1), apply(self, records, seen_before=seen_before))  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(Sink, "apply", slow)
        tracker = JournalTracker(tmp_path, "server", server.connect, say=said.append)
        for start in range(0, 12, 3):
            log(tracker, names(start, start + 3))
            time.sleep(0.05)
        tracker.close()
    assert len(said) == 1 and said[0].startswith("MLflow is behind the sweep: ") and "events wait, for up to 0 s" in said[0]
    late, other = [], Server()
    again = JournalTracker(tmp_path, "other", other.connect, say=late.append)
    other.wait_for(12)
    other.up = False
    log(again, names(12, 40))
    time.sleep(0.1)
    other.up = True
    again.close()
    assert late == [], "neither what an earlier process left nor what waited for a server that was away"


def test_sync_gives_up_on_a_server_that_stays_away(tmp_path, server):
    server.up = False
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(0, 5))
    started = time.monotonic()
    tracker.wait(patience_s=0.2)
    assert time.monotonic() - started < 2
    assert tracker.close(timeout_s=0).kept == 5


def test_a_line_that_is_still_being_written_is_not_read(tmp_path):
    journal = Journal(tmp_path)
    journal.append(TrialStarted(trial="whole"), 0)
    os.write(journal._file, b'{"event":')
    assert len(journal.read(0, 10)) == 1
    journal.close()


def test_what_is_remembered_of_the_server_is_written_in_proportion_to_the_journal(tmp_path, server, monkeypatch):
    """Else a sweep's tracking would cost the square of its trials."""
    written = []
    save = DeliveryState.save
    monkeypatch.setattr(DeliveryState, "save", lambda self, folder: written.append(save(self, folder)) or written[-1])
    monkeypatch.setattr(tracking_delivery, "_MOST_EVENTS", 5)
    tracker = JournalTracker(tmp_path, "server", server.connect)
    for start in range(0, 300, 5):
        log(tracker, names(start, start + 5))
        server.wait_for(start + 5)
    assert tracker.close().delivered == 300
    assert sum(written) < 3 * (tmp_path / JOURNAL_NAME).stat().st_size


STATE = DeliveryState(destination="server", offset=10, delivered=2, rejected=1, memory={"t0": "known"})


def test_the_state_of_delivery_comes_back_as_it_was_written(tmp_path):
    assert last_state(tmp_path) is None
    size = STATE.save(tmp_path)
    assert (tmp_path / STATE_NAME).stat().st_size == size
    assert last_state(tmp_path) == DeliveryState.load(tmp_path, "server") == STATE
    assert DeliveryState.load(tmp_path, "other") == DeliveryState(destination="other")


@pytest.mark.parametrize("damage", list(damages(DeliveryState, to_json(STATE))), ids=lambda damage: damage.what)
def test_a_damaged_state_is_refused_with_the_way_out_and_the_journal_stays_free(tmp_path, server, damage):
    (tmp_path / STATE_NAME).write_bytes(damage.content)
    for ask in (lambda: last_state(tmp_path), lambda: JournalTracker(tmp_path, "server", server.connect)):
        with pytest.raises(InputError, match=r"tracking_state\.json cannot be read: .*Move it away") as error:
            ask()
        assert damage.place in str(error.value)
    assert (tmp_path / STATE_NAME).read_bytes() == damage.content
    (tmp_path / STATE_NAME).unlink()
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(0, 2))
    assert tracker.close().delivered == 2


def test_a_state_before_the_journal_is_damaged(tmp_path):
    (tmp_path / STATE_NAME).write_text(to_json({**vars(STATE), "offset": -1}))
    with pytest.raises(InputError, match="offset >= 0 must hold, but is -1"):
        last_state(tmp_path)


def test_a_state_that_an_earlier_version_wrote_is_read():
    state = last_state(Path(__file__).parents[2] / "data" / "records" / "sweep")
    assert (state.destination, state.delivered, state.memory["t0000"]) == ("http://localhost:5000", 8, "known")


def test_a_damaged_line_is_kept_with_the_reason_and_the_others_are_delivered(tmp_path, server):
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(0, 2))
    tracker.close()
    with (tmp_path / JOURNAL_NAME).open("ab") as journal:
        journal.write(b'{"event":"TrialStarted","time_ms":1,"trial":5,"params":{},"tags":{}}\n\xff\n')
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(2, 4))
    status = tracker.close()
    assert (status.delivered, status.rejected, status.kept) == (4, 2, 0)
    reasons = [json.loads(line)["reason"] for line in (tmp_path / REJECTED_NAME).read_text().splitlines()]
    assert "trial must be text, but is 5" in reasons[0] and "not UTF-8" in reasons[1]


def test_a_server_that_refuses_the_user_gets_everything_once_the_right_is_given(tmp_path, server):
    """Nothing is set aside: what was refused for want of a right is not wrong."""
    server.denied = "user 'ann' needs the right EDIT"
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(0, 5))
    deadline = time.monotonic() + 5
    while server.denials < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert server.denials >= 5 and not (tmp_path / REJECTED_NAME).exists()
    server.denied = ""
    server.wait_for(5)
    server.denied = "user 'ann' needs the right EDIT"
    log(tracker, names(5, 8))
    report = tracker.close(timeout_s=0.2)
    assert (report.delivered, report.kept, report.rejected, report.denied) == (5, 3, 0, True)
    assert report.problem == "user 'ann' needs the right EDIT"


@pytest.fixture
def storage(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking_journal, "_COPY_EVERY_S", 0.01)
    return Storage.parse(str(tmp_path / "storage"))


def wait_until(done):
    deadline = time.monotonic() + 5
    while not done() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert done()


def lost(tracker):
    """The machine of a tracker goes away: nothing that it has is written any more."""
    tracker._delivery.give_up()
    tracker._delivery.finish()
    tracker._copy.close()
    tracker._journal.close()


def test_a_driver_on_another_machine_goes_on_with_the_copy(tmp_path, server, storage):
    """Nothing is created twice, also not what was delivered after the state had last been copied, and nothing is left out."""
    first = JournalTracker(tmp_path / "a", "server", server.connect, storage)
    log(first, names(0, 30))
    server.wait_for(30)
    server.up = False
    log(first, names(30, 35))
    lost(first)
    assert storage.read_json(DeliveryState, f"tracking/{STATE_NAME}") is not None
    storage.delete(f"tracking/{STATE_NAME}")
    server.up = True
    second = JournalTracker(tmp_path / "b", "server", server.connect, storage)
    log(second, names(34, 40))
    report = second.close()
    assert server.trials == names(0, 40)
    assert (report.kept, report.rejected) == (0, 0)
    again = JournalTracker(tmp_path / "b", "server", server.connect, storage)
    assert not again._copy.was_fetched and again.close().delivered == report.delivered
    assert server.trials == names(0, 40)


def test_the_copy_is_in_few_pieces_and_a_storage_that_is_away_only_delays_it(tmp_path, server, storage, monkeypatch):
    monkeypatch.setattr(tracking_journal, "_MOST_PIECES", 4)
    tracker = JournalTracker(tmp_path / "a", "server", server.connect, storage)
    write = Storage.write_bytes
    for number in range(8):
        log(tracker, names(number, number + 1))
        wait_until(lambda: tracker._copy._copied == tracker._journal.size())
    assert len(storage.at("tracking").names()) <= 4 + 2

    def away(*arguments):
        raise OSError("AWS Error NETWORK_CONNECTION")

    monkeypatch.setattr(Storage, "write_bytes", away)
    log(tracker, names(8, 10))
    server.wait_for(10)
    monkeypatch.setattr(Storage, "write_bytes", write)
    tracker.close()
    own = (tmp_path / "a" / JOURNAL_NAME).read_bytes()
    assert tracking_journal._read_copy(storage.at("tracking"))[1] == own


def test_what_is_kept_is_in_the_copy_at_once_and_a_machine_that_was_there_is_known(tmp_path, server, storage, monkeypatch):
    """One that is lost before its first event was copied may have delivered some, too."""
    monkeypatch.setattr(tracking_journal, "_COPY_EVERY_S", 60.0)
    assert not JournalCopy(tmp_path / "lost", storage).was_fetched
    tracker = JournalTracker(tmp_path / "a", "server", server.connect, storage)
    assert tracker._copy.was_fetched
    log(tracker, names(0, 3))
    tracker.keep()
    assert tracking_journal._read_copy(storage.at("tracking"))[1] == (tmp_path / "a" / JOURNAL_NAME).read_bytes() != b""
    tracker.close()


def test_what_the_copy_writes_grows_with_the_journal_and_not_with_its_square(tmp_path, storage, monkeypatch):
    monkeypatch.setattr(tracking_journal, "_MOST_PIECES", 4)
    written, write = [], Storage.write_bytes
    monkeypatch.setattr(
        Storage, "write_bytes", lambda self, name, content: (written.append(len(content)), write(self, name, content))
    )
    journal, copy = Journal(tmp_path), JournalCopy(tmp_path, storage)
    for name in names(0, 1000):
        journal.append(TrialStarted(trial=name), 0)
        copy._copy()
    assert sum(written) < 14 * journal.size(), "ten doublings; written anew each time it would be hundreds of times"
    assert tracking_journal._read_copy(storage.at("tracking"))[1] == (tmp_path / JOURNAL_NAME).read_bytes()
    journal.close()


def test_a_state_that_is_ahead_of_a_cut_journal_starts_at_its_end(tmp_path, server):
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(0, 5))
    tracker.close()
    (tmp_path / JOURNAL_NAME).write_bytes(b"")
    tracker = JournalTracker(tmp_path, "server", server.connect)
    log(tracker, names(5, 8))
    assert tracker.close().kept == 0
    assert server.trials == names(0, 8)
