"""Delivers the journal to a tracking server: one thread, which waits while the server is away and then goes on.

An event that a healthy server refuses is set aside, so that it cannot hold up those behind it.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Protocol

from birdclef_core.errors import FileContentError, InputError
from birdclef_core.store.storage import Storage
from sweeps.tracking.events import DeliveryStatus, Event, from_line
from sweeps.tracking.journal import JOURNAL_NAME, REJECTED_NAME, DeliveryState, Journal, JournalCopy, keep_rejected

_MOST_EVENTS = 5000
"""A batch is everything that waits, up to this: the longer a server takes, the more of one run goes into one request."""
_GATHER_S = 0.5
_LATE_S = 60.0
"""That the server is behind the sweep is said when events have waited for this time."""
_RETRY_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_RETRY_AT_THE_END_S = 1.0
_FAULTS_ALLOWED = 3

_log = logging.getLogger(__name__)

LoggedEvent = tuple[Event, int]
"""An event and the Unix time in ms at which it was logged."""


class Rejected(Exception):
    """A healthy server refuses an event, and would refuse it again."""


class Denied(Exception):
    """The server refuses a user or a password, or the user lacks a right: what it refuses now it takes once that is put right."""


class Sink(Protocol):
    """A server as the delivery thread sees it. Only that thread calls it."""

    rest: Callable[[float], object]
    """Waits for so many seconds, or less once everything is to be delivered at once. The sink rests so that it leaves the driver its CPU."""

    def apply(self, events: Sequence[LoggedEvent], *, seen_before: bool) -> None:
        """Write events in order. When this returns, the server has all of them.

        `seen_before`: the server may have some already, from an attempt that failed, so that each thing must be looked for before it
        is created. Raises Rejected if the server refuses an event, Denied if it refuses the user, anything else if they could not
        be written now.
        """

    @property
    def steps(self) -> int:
        """How much has been written so far. It grows while events are applied, which tells a slow server from one that hangs."""

    def is_well(self) -> bool:
        """Return True if the server answers a simple question; return False or raise otherwise."""


Connect = Callable[[dict[str, str]], AbstractContextManager[Sink]]
"""Connects to the server, and starts it first where it is a local one. The dict is the sink's memory, kept between processes."""


class JournalTracker:
    """The tracker that writes a journal, which a thread delivers."""

    def __init__(
        self,
        folder: Path,
        destination: str,
        connect: Connect,
        storage: Storage | None = None,
        say: Callable[[str], None] = _log.warning,
    ) -> None:
        """`storage`: the sweep's, if the journal has a copy there. `say` is told once when the server is behind the sweep.

        Raises StoreError if another process delivers this journal, InputError if the state of its delivery cannot be read.
        """
        self._journal = Journal(folder)
        try:
            self._copy = JournalCopy(folder, storage) if storage is not None else None
            state = DeliveryState.load(folder, destination)
        except InputError:
            self._journal.close()
            raise
        state.offset = min(state.offset, self._journal.size())  # a journal that has lost its end
        fetched = self._copy is not None and self._copy.was_fetched
        if self._copy is not None:
            self._copy.start()
        self._delivery = _Delivery(folder, self._journal, state, connect, say, looks_first=fetched)
        self._delivery.start()

    def log(self, event: Event) -> None:
        self._journal.append(event, time.time_ns() // 1_000_000)
        self._delivery.news.set()

    def keep(self) -> None:
        if self._copy is not None:
            self._copy.keep()

    def wait(self, patience_s: float) -> None:
        """Return when everything is delivered, or when nothing has been delivered for `patience_s`."""
        self._delivery.finish()
        progress, deadline = (-1, -1), 0.0
        while self._delivery.is_alive():
            if self._delivery.progress != progress:
                progress, deadline = self._delivery.progress, time.monotonic() + patience_s
            if time.monotonic() >= deadline:
                return
            self._delivery.join(timeout=0.1)

    def close(self, timeout_s: float = 60.0) -> DeliveryStatus:
        self._delivery.finish()
        self._delivery.join(timeout=timeout_s)
        self._delivery.give_up()
        self._delivery.join(timeout=1.0)
        state = self._delivery.state
        kept = self._journal.count(state.offset)
        if not self._delivery.is_alive():
            self._journal.close()
        if self._copy is not None:
            self._copy.close()
        problem = self._delivery.problem if kept else ""
        return DeliveryStatus(
            delivered=state.delivered,
            kept=kept,
            rejected=state.rejected,
            problem=problem,
            denied=bool(problem) and self._delivery.denied,
        )


class _Delivery(threading.Thread):
    """Delivers a journal from where the last process stopped, until everything is delivered or it gives up."""

    def __init__(
        self,
        folder: Path,
        journal: Journal,
        state: DeliveryState,
        connect: Connect,
        say: Callable[[str], None],
        *,
        looks_first: bool = False,
    ) -> None:
        """`looks_first`: whether the server may have more than the journal and its state know of."""
        super().__init__(name="tracking", daemon=True)
        self.state = state
        self.news = threading.Event()
        self.problem, self.denied = "", False
        self._folder = folder
        self._journal = journal
        self._size_at_start, self._looks_first = journal.size(), looks_first
        self._saved_offset, self._saved_bytes = state.offset, 0
        """The state grows with the sweep. It is written only after as many bytes of the journal have been delivered, so that all writes
        of a sweep together cost as much as its journal. After a kill -9, what was delivered since is delivered again and recognised."""
        self._connect, self._say, self._said_late = connect, say, False
        self._there_since_ms = 0.0
        """When the server was last away, as a Unix time: what was logged before is late by that, and not because the server is slow."""
        self._connection = ExitStack()
        self._sink: Sink | None = None
        self._finishing = threading.Event()
        self._given_up = threading.Event()

    @property
    def progress(self) -> tuple[int, int]:
        """Changes whenever something was delivered."""
        sink = self._sink
        return self.state.offset, sink.steps if sink is not None else 0

    def finish(self) -> None:
        """Say that no more events will come."""
        self._finishing.set()
        self.news.set()

    def give_up(self) -> None:
        """Stop. What is not delivered yet stays in the journal."""
        self._given_up.set()

    def run(self) -> None:
        with self._connection:
            self._run()
        self._save()

    def _run(self) -> None:
        while not self._given_up.is_set():
            finishing = self._finishing.is_set()
            self.news.clear()
            if lines := self._journal.read(self.state.offset, _MOST_EVENTS):
                self._deliver(lines, seen_before=self._looks_first or self.state.offset < self._size_at_start)
            elif finishing:
                return
            else:
                self.news.wait()
                self._finishing.wait(_GATHER_S)

    def _deliver(self, lines: list[bytes], *, seen_before: bool) -> None:
        """Deliver lines of the journal, however long that takes. Return early only if delivery gives up."""
        try:
            events = [from_line(line, file=JOURNAL_NAME) for line in lines]
        except FileContentError as error:
            self._by_halves(lines, str(error), seen_before=seen_before)
            return
        self._note_late(events[0][1])
        attempts = faults = 0
        while not self._given_up.is_set():
            try:
                self._reached().apply(events, seen_before=seen_before or attempts > 0)
            except Rejected as error:
                self._by_halves(lines, str(error), seen_before=True)
                return
            except Denied as error:
                attempts += 1
                self._stand_by(error, attempts)
            except Exception as error:
                attempts += 1
                faults += self._server_is_well()
                if faults == _FAULTS_ALLOWED:
                    self._by_halves(lines, repr(error), seen_before=True)
                    return
                self._stand_by(error, attempts)
            else:
                self._advance(lines)
                return

    def _by_halves(self, lines: list[bytes], reason: str, *, seen_before: bool) -> None:
        """Find the line that is refused by halves, set it aside and deliver the others."""
        if len(lines) > 1:
            middle = len(lines) // 2
            for half in (lines[:middle], lines[middle:]):
                if not self._given_up.is_set():
                    self._deliver(half, seen_before=seen_before)
            return
        keep_rejected(self._folder, lines[0], reason)
        _log.warning("The tracking server refused an event, which is kept in %s: %s", self._folder / REJECTED_NAME, reason)
        self._advance(lines, rejected=1)

    def _note_late(self, logged_ms: int) -> None:
        """Say once that the server is behind the sweep, by the age of an event that is to be delivered now."""
        late_s = time.time() - logged_ms / 1000
        was_there = logged_ms >= self._there_since_ms and self.state.offset >= self._size_at_start
        if late_s > _LATE_S and was_there and not (self._said_late or self.problem):
            self._said_late = True
            self._say(
                f"MLflow is behind the sweep: {self._journal.count(self.state.offset)} events wait, for up to {late_s:.0f} s. None is lost: "
                "what one run gets meanwhile is sent together, and what is left at the end waits for `birdclef track sync`."
            )

    def _advance(self, lines: list[bytes], rejected: int = 0) -> None:
        if self.problem:
            _log.warning("Tracking goes on.")
            self.problem, self._there_since_ms = "", 1000 * time.time()
        self.state.offset += sum(len(line) for line in lines)
        self.state.rejected += rejected
        self.state.delivered += len(lines) - rejected
        if rejected or self.state.offset - self._saved_offset >= self._saved_bytes:
            self._save()

    def _save(self) -> None:
        self._saved_offset, self._saved_bytes = self.state.offset, self.state.save(self._folder)

    def _reached(self) -> Sink:
        if self._sink is None:
            self._sink = self._connection.enter_context(self._connect(self.state.memory))
            self._sink.rest = self._finishing.wait
        return self._sink

    def _server_is_well(self) -> bool:
        """Ask the server. Disconnect from one that does not answer, so that the next attempt connects again."""
        try:
            well = self._sink is not None and self._sink.is_well()
        except Exception:
            well = False
        if not well:
            self._connection.close()
            self._sink = None
        return well

    def _stand_by(self, error: Exception, attempts: int) -> None:
        self.denied = isinstance(error, Denied)
        if not self.problem:
            what = "refuses the sweep's events" if self.denied else "is away"
            _log.warning("The tracking server %s; events are kept and delivered later. %s", what, error)
        self.problem = str(error) or repr(error)
        delay_s = _RETRY_S[min(attempts, len(_RETRY_S)) - 1]
        if not self._finishing.wait(delay_s):
            return
        self._given_up.wait(min(delay_s, _RETRY_AT_THE_END_S))
