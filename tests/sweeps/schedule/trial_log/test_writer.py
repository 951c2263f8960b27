"""Records of a running sweep: on a remote storage they are written in the background, in order and together, and an outage only delays them."""

import threading
from dataclasses import replace

import pytest
from made_up_records import sweep_record
from pyarrow import fs as pafs

from birdclef_core.store.patience import Patience, StorageAway
from birdclef_core.store.storage import Storage
from sweeps.schedule.records import SweepRecords, TrialRecord
from sweeps.schedule.trial_log import writer as writer_module
from sweeps.schedule.trial_log.writer import RecordWriter


class Remote(Storage):
    """A folder that takes writing like a remote storage: it lets the test say when, and may be away."""

    may_write = threading.Event()
    error: OSError | None = None
    written: list[str]

    @property
    def is_local(self) -> bool:
        return False

    def write_bytes(self, name: str, content: bytes) -> None:
        def write() -> None:
            assert Remote.may_write.wait(10)
            if Remote.error is not None:
                raise Remote.error
            Remote.written.append(f"{self.root.rpartition('/')[2]}/{name}")
            self.filesystem.create_dir(self.root)
            with self.filesystem.open_output_stream(self.path(name)) as stream:
                stream.write(content)

        self.wait_for(write)


class NoWaiting:
    """A clock by which waiting takes no time."""

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        pass


@pytest.fixture
def remote(tmp_path, monkeypatch) -> Remote:
    monkeypatch.setattr(writer_module, "BATCH_EVERY_S", 0.0)
    Remote.may_write, Remote.error, Remote.written = threading.Event(), None, []
    return Remote(pafs.LocalFileSystem(), str(tmp_path / "s"), Patience(limit_s=0.05, say=lambda line: None))


def trial(number: int, **changes) -> TrialRecord:
    record = TrialRecord(trial=f"t{number:04d}", recipe="r", params={}, stage_ids=["a"], stages=["train_ce"], kinds=["target ce"])
    return replace(record, **changes)


def load(remote: Remote) -> list[TrialRecord]:
    return SweepRecords(remote).load_trials()


def test_on_a_local_storage_what_is_saved_is_there(tmp_path):
    records = SweepRecords(Storage.parse(str(tmp_path / "s")))
    writer = RecordWriter(records)
    writer.save_trials([trial(0), trial(1)])
    assert writer.is_saved("t0001") and writer.all_saved and records.load_trials() == [trial(0), trial(1)]
    writer.save_sweep(sweep_record())
    assert records.load_sweep() == sweep_record()


def test_saving_does_not_wait_and_what_comes_meanwhile_is_written_together(remote):
    writer = RecordWriter(SweepRecords(remote))
    assert writer.load_trials() == []
    writer.save_trials([trial(0)])
    while not writer._writing:
        pass
    for number in range(1, 100):
        writer.save_trials([trial(number)])
    writer.save_trials([trial(0, epoch=3)])
    writer.save_sweep(sweep_record())
    assert not writer.is_saved("t0000") and not writer.all_saved and Remote.written == []
    Remote.may_write.set()
    writer.wait()
    assert Remote.written == ["trials/00000000-00000000.jsonl", "s/sweep.json", "trials/00000001-00000001.jsonl"]
    assert writer.is_saved("t0000") and writer.is_saved("t0099") and writer.all_saved
    assert load(remote) == [trial(0, epoch=3), *(trial(number) for number in range(1, 100))]


def test_the_events_before_a_record_are_kept_before_it(remote):
    """Otherwise a trial that has ended by its record could run for ever in the tracker. Where they cannot be kept, the record waits."""
    Remote.may_write.set()
    away = [OSError("AWS Error NETWORK_CONNECTION")]

    def keep_events() -> None:
        if away:
            raise away.pop()
        Remote.written.append("events")

    writer = RecordWriter(
        SweepRecords(replace(remote, patience=Patience(limit_s=60, say=lambda line: None, clock=NoWaiting()))), keep_events
    )
    writer.save_trials([trial(0)])
    writer.wait()
    assert Remote.written == ["events", "trials/00000000-00000000.jsonl"]


def test_a_record_is_kept_as_it_was_when_it_was_saved(remote):
    """The driver changes a record while it waits to be written; what the change belongs to may not be saved yet."""
    writer, record = RecordWriter(SweepRecords(remote)), trial(0)
    writer.save_trials([record])
    record.status = "running"
    Remote.may_write.set()
    writer.wait()
    assert load(remote) == [trial(0)]


def test_a_writer_goes_on_where_an_earlier_one_was_killed(remote):
    Remote.may_write.set()
    for epoch in range(3):
        writer = RecordWriter(SweepRecords(remote))
        assert [known.epoch for known in writer.load_trials()] == ([epoch - 1] if epoch else [])
        writer.save_trials([trial(0, epoch=epoch)])
        writer.wait()
    assert load(remote) == [trial(0, epoch=2)]


def test_a_storage_that_was_away_for_too_long_is_said_to_whoever_waits_and_records_are_taken_on(remote):
    Remote.may_write.set()
    Remote.error = OSError("When completing: AWS Error SLOW_DOWN")
    writer = RecordWriter(SweepRecords(remote))
    writer.save_trials([trial(0)])
    with pytest.raises(StorageAway):
        writer.wait()
    writer.save_trials([trial(1)])
    assert not writer.all_saved and not writer.is_saved("t0000")


def test_what_does_not_get_better_is_raised_by_the_next_that_saves(remote):
    Remote.may_write.set()
    Remote.error = OSError("AWS Error ACCESS_DENIED")
    writer = RecordWriter(SweepRecords(remote))
    writer.save_trials([trial(0)])
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        writer.wait()
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        writer.save_trials([trial(1)])


def test_waiting_ends_after_its_time(remote):
    writer = RecordWriter(SweepRecords(remote))
    writer.save_trials([trial(0)])
    writer.wait(0.01)
    assert not writer.all_saved
    Remote.may_write.set()
    writer.wait()


def test_a_storage_that_is_away_is_not_back_because_there_was_nothing_to_keep(remote):
    patience = Patience(limit_s=60, say=lambda line: None, clock=NoWaiting())
    patience.attempt("s3://b", fail, lambda: None)
    asked = []

    class Seen(Remote):
        def write_bytes(self, name: str, content: bytes) -> None:
            asked.append(patience.is_away)
            super().write_bytes(name, content)

    writer = RecordWriter(SweepRecords(Seen(remote.filesystem, remote.root, patience)), before_batch=lambda: None)
    Remote.may_write.set()
    writer.save_trials([trial(0)])
    writer.wait()
    assert asked[0], "nobody has asked the storage before the record was written"
    assert not patience.is_away


def fail() -> None:
    raise OSError("AWS Error NETWORK_CONNECTION")
