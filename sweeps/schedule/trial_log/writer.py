"""Writes the records of a running sweep: at once on a local storage, in the background on a remote one, many changes as one file.

A request to an object store takes tens of milliseconds, and the driver has one thread, which must take the updates of a thousand trials. So
it does not wait. What it needs is that records are written in the order of the changes, and to know how far they are: it hands a trial to
a worker only when the record of its start is there, and with it everything that was decided before. Everything else may be a moment late:
a driver that is killed loses what it did in this moment, as if it had been killed a moment earlier, and the next one finds in the store what
workers did.
"""

import threading
import time
from collections.abc import Callable, Sequence

from birdclef_core.json_files import to_json
from birdclef_core.store.patience import StorageAway
from sweeps.schedule.records import SWEEP_FILE, SweepRecord, SweepRecords, TrialRecord, to_line
from sweeps.schedule.trial_log.pieces import LineLog

BATCH_EVERY_S = 0.25
"""A batch begins at most this often, on a remote storage. Requests cost money, and a start waits for this time."""


def _nothing() -> None:
    pass


class RecordWriter:
    """Keeps the records of a sweep's trials. The driver's main thread alone calls it."""

    def __init__(self, records: SweepRecords, before_batch: Callable[[], None] = _nothing) -> None:
        """`before_batch` is called before each batch on a remote storage, by the thread that writes it: it keeps the events that have led to
        these changes. While it raises an OSError of a storage that is away, the batch waits."""
        self._records, self._storage = records, records.storage
        self._before_batch = before_batch
        self._log = LineLog(records.trials_storage, [], {})
        self._changed = threading.Condition()
        self._waiting: dict[str, bytes] = {}
        """Lines of records that no batch has yet, by trial, in the order of their first change: so new trials come in the order of their
        names."""
        self._writing: dict[str, bytes] = {}
        """Those of the batch that is being written."""
        self._sweep = b""
        """The sweep's own record, if it is to be written."""
        self._problem: Exception | None = None
        self._is_at_work = False
        """Whether a thread writes, which ends when it has written everything."""
        self._next_batch_at = 0.0

    def load_trials(self) -> list[TrialRecord]:
        trials, self._log = self._records.open_log()
        return trials

    def save_trials(self, trials: Sequence[TrialRecord]) -> None:
        self._take({trial.trial: to_line(trial) for trial in trials})

    def save_sweep(self, record: SweepRecord) -> None:
        """Take the sweep's own record, as `save_trials` takes those of trials."""
        self._take({}, to_json(record, indent=1).encode())

    def is_saved(self, trial: str) -> bool:
        return trial not in self._waiting and trial not in self._writing

    @property
    def is_away(self) -> bool:
        return not self._storage.is_local and self._storage.patience.is_away

    @property
    def all_saved(self) -> bool:
        with self._changed:
            return not (self._waiting or self._writing or self._sweep)

    def wait(self, limit_s: float | None = None) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._problem or not (self._waiting or self._writing or self._sweep), limit_s)
            if self._problem is not None:
                raise self._problem

    def _take(self, lines: dict[str, bytes], sweep: bytes = b"") -> None:
        if self._storage.is_local:
            self._write(lines, sweep)
            return
        with self._changed:
            # Of a storage that was away for too long, the patience that all share tells the main thread.
            if self._problem is not None and not isinstance(self._problem, StorageAway):
                raise self._problem
            self._waiting |= lines
            self._sweep = sweep or self._sweep
            if not self._is_at_work and self._problem is None:
                self._is_at_work = True
                threading.Thread(target=self._run, name="records", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(max(0.0, self._next_batch_at - time.monotonic()))
            self._next_batch_at = time.monotonic() + BATCH_EVERY_S
            with self._changed:
                self._writing, self._waiting = self._waiting, {}
                sweep = self._sweep
            problem = self._try_to_write(self._writing, sweep)
            with self._changed:
                self._problem = problem
                if problem is None:
                    self._writing = {}
                    self._sweep = b"" if self._sweep is sweep else self._sweep
                self._changed.notify_all()
                if problem is not None or not (self._waiting or self._sweep):
                    self._is_at_work = False
                    return

    def _try_to_write(self, lines: dict[str, bytes], sweep: bytes) -> Exception | None:
        try:
            try:
                self._before_batch()
            except OSError:
                # Not for every call: one that has nothing to keep succeeds without the storage, which would then count as back.
                self._storage.wait_for(self._before_batch)
            self._write(lines, sweep)
        except Exception as error:  # for the main thread
            return error
        return None

    def _write(self, lines: dict[str, bytes], sweep: bytes) -> None:
        if sweep:
            self._storage.write_bytes(SWEEP_FILE, sweep)
        if lines:
            self._log.append(lines)
