"""Why a tracking server may come and go: one thread delivers the journal, waits while the server is away, and goes on.

A record that a healthy server refuses is set aside, so that it cannot hold up those behind it.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Protocol

from sweeps.tracking.events import DeliveryStatus, Event, from_json
from sweeps.tracking.journal import REJECTED_NAME, Journal, Progress, keep_rejected

_BATCH_RECORDS = 200
_GATHER_S = 0.5
_RETRY_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_RETRY_AT_THE_END_S = 1.0
_FAULTS_ALLOWED = 3

_log = logging.getLogger(__name__)

Record = tuple[Event, int]
"""An event and the Unix time in ms at which it was recorded."""


class Rejected(Exception):
    """A healthy server refuses what it was given, and would again."""


class Sink(Protocol):
    """A server as the delivery thread sees it; called from that thread only."""

    def apply(self, records: Sequence[Record], *, seen_before: bool) -> None:
        """Writes records, in order; all of it is on the server on return.

        `seen_before`: some may be there already, from an attempt that ended badly, so that nothing is created before it was
        looked for. Raises Rejected if the server refuses one of them, anything else if they could not be written now.
        """

    def is_well(self) -> bool:
        """True if the server answers a simple question; raises or returns False otherwise."""


Connect = Callable[[dict[str, str]], AbstractContextManager[Sink]]
"""Reaches the server, starting it if need be. The dict is the sink's memory, kept from one process to the next."""


class JournalTracker:
    """The Tracker that writes a journal and has it delivered. Raises StoreError if another process does so already."""

    def __init__(self, folder: Path, destination: str, connect: Connect) -> None:
        self._journal = Journal(folder)
        self._delivery = _Delivery(folder, self._journal, Progress.load(folder, destination), connect)
        self._delivery.start()

    def record(self, event: Event) -> None:
        self._journal.append(event, time.time_ns() // 1_000_000)
        self._delivery.news.set()

    def wait(self, patience_s: float) -> None:
        """Returns when all is delivered, or when nothing was for `patience_s`."""
        self._delivery.finish()
        offset, deadline = -1, 0.0
        while self._delivery.is_alive():
            if self._delivery.progress.offset != offset:
                offset, deadline = self._delivery.progress.offset, time.monotonic() + patience_s
            if time.monotonic() >= deadline:
                return
            self._delivery.join(timeout=0.1)

    def close(self, timeout_s: float = 60.0) -> DeliveryStatus:
        self._delivery.finish()
        self._delivery.join(timeout=timeout_s)
        self._delivery.give_up()
        self._delivery.join(timeout=1.0)
        progress = self._delivery.progress
        kept = self._journal.count(progress.offset)
        if not self._delivery.is_alive():
            self._journal.close()
        problem = self._delivery.problem if kept else ""
        return DeliveryStatus(delivered=progress.delivered, kept=kept, rejected=progress.rejected, problem=problem)


class _Delivery(threading.Thread):
    """Delivers a journal from where it was left, until it is finished or gives up."""

    def __init__(self, folder: Path, journal: Journal, progress: Progress, connect: Connect) -> None:
        super().__init__(name="tracking", daemon=True)
        self.progress = progress
        self.news = threading.Event()
        self.problem = ""
        self._folder = folder
        self._journal = journal
        self._size_at_start = journal.size()
        self._saved_offset, self._saved_bytes = progress.offset, 0
        """What is remembered of the server grows with the sweep, so it is written after as much of the journal has been delivered:
        all of a sweep then costs as much as its journal. After a kill -9 what was delivered since is delivered again, which is seen."""
        self._connect = connect
        self._connection = ExitStack()
        self._sink: Sink | None = None
        self._finishing = threading.Event()
        self._given_up = threading.Event()

    def finish(self) -> None:
        """No more records will come."""
        self._finishing.set()
        self.news.set()

    def give_up(self) -> None:
        """What is not delivered yet stays in the journal."""
        self._given_up.set()

    def run(self) -> None:
        with self._connection:
            self._run()
        self._save()

    def _run(self) -> None:
        while not self._given_up.is_set():
            finishing = self._finishing.is_set()
            self.news.clear()
            if lines := self._journal.read(self.progress.offset, _BATCH_RECORDS):
                self._deliver(lines, seen_before=self.progress.offset < self._size_at_start)
            elif finishing:
                return
            else:
                self.news.wait()
                self._finishing.wait(_GATHER_S)

    def _deliver(self, lines: list[bytes], *, seen_before: bool) -> None:
        """Takes lines off the journal, however long that takes; returns early only if delivery gives up."""
        try:
            records = [from_json(line.decode()) for line in lines]
        except ValueError as error:
            self._one_by_one(lines, str(error), seen_before=seen_before)
            return
        attempts = faults = 0
        while not self._given_up.is_set():
            try:
                self._reached().apply(records, seen_before=seen_before or attempts > 0)
            except Rejected as error:
                self._one_by_one(lines, str(error), seen_before=True)
                return
            except Exception as error:
                attempts += 1
                faults += self._server_is_well()
                if faults == _FAULTS_ALLOWED:
                    self._one_by_one(lines, repr(error), seen_before=True)
                    return
                self._stand_by(error, attempts)
            else:
                self._advance(lines)
                return

    def _one_by_one(self, lines: list[bytes], reason: str, *, seen_before: bool) -> None:
        """One of the lines is refused: finds it, sets it aside and delivers the others."""
        if len(lines) > 1:
            for line in lines:
                if not self._given_up.is_set():
                    self._deliver([line], seen_before=seen_before)
            return
        keep_rejected(self._folder, lines[0], reason)
        _log.warning("The tracking server refused a record, kept in %s: %s", self._folder / REJECTED_NAME, reason)
        self._advance(lines, rejected=1)

    def _advance(self, lines: list[bytes], rejected: int = 0) -> None:
        if self.problem:
            _log.warning("Tracking goes on.")
            self.problem = ""
        self.progress.offset += sum(len(line) for line in lines)
        self.progress.rejected += rejected
        self.progress.delivered += len(lines) - rejected
        if rejected or self.progress.offset - self._saved_offset >= self._saved_bytes:
            self._save()

    def _save(self) -> None:
        self._saved_offset, self._saved_bytes = self.progress.offset, self.progress.save(self._folder)

    def _reached(self) -> Sink:
        if self._sink is None:
            self._sink = self._connection.enter_context(self._connect(self.progress.memory))
        return self._sink

    def _server_is_well(self) -> bool:
        """Lets go of a server that does not answer, so that the next attempt reaches for it anew."""
        try:
            well = self._sink is not None and self._sink.is_well()
        except Exception:
            well = False
        if not well:
            self._connection.close()
            self._sink = None
        return well

    def _stand_by(self, error: Exception, attempts: int) -> None:
        if not self.problem:
            _log.warning("The tracking server is away; records are kept and delivered later. %s", error)
        self.problem = str(error) or repr(error)
        delay_s = _RETRY_S[min(attempts, len(_RETRY_S)) - 1]
        if not self._finishing.wait(delay_s):
            return
        self._given_up.wait(min(delay_s, _RETRY_AT_THE_END_S))
