"""The journal of a sweep's events, to which lines are only ever appended, the state of its delivery, and a copy of both on a storage.

In the sweep's folder, `tracking.jsonl` holds one event a line, `tracking_state.json` how many of them one server has and what it
calls things, and `tracking_rejected.jsonl` the events that this server refused, with its reasons.

A sweep whose storage is not a local folder has a copy in `tracking/` there, from which a driver on another machine goes on. A file of an
object store cannot be appended to, so the copy of the journal is in pieces that are named by the byte at which they begin.
"""

import fcntl
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from birdclef_core.errors import FileContentError, InputError, StoreError
from birdclef_core.json_files import from_json, to_json
from birdclef_core.store.storage import Storage
from sweeps.tracking.events import Event, to_line

JOURNAL_NAME = "tracking.jsonl"
STATE_NAME = "tracking_state.json"
REJECTED_NAME = "tracking_rejected.jsonl"
_LOCK_NAME = "tracking.lock"
COPY_FOLDER = "tracking"
_COPY_EVERY_S = 1.0
_MOST_PIECES = 64


class Journal:
    """The events of a sweep, one a line. A kill -9 of this process loses none that was appended."""

    def __init__(self, folder: Path) -> None:
        """Open the journal of a folder. Raises StoreError if another process has it open."""
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder / _LOCK_NAME)
        self._path = folder / JOURNAL_NAME
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._end_torn_line()

    def append(self, event: Event, time_ms: int) -> None:
        """Append an event. Any thread may do so: the system appends in one piece what one call writes."""
        os.write(self._file, f"{to_line(event, time_ms)}\n".encode())

    def read(self, offset: int, max_lines: int) -> list[bytes]:
        """Return up to `max_lines` complete lines from a byte offset on."""
        with self._path.open("rb") as file:
            file.seek(offset)
            lines = [line for line, _ in zip(file, range(max_lines), strict=False)]
        return lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]

    def count(self, offset: int) -> int:
        """Return the number of lines from a byte offset on."""
        with self._path.open("rb") as file:
            file.seek(offset)
            return sum(1 for _ in file)

    def size(self) -> int:
        """Return the size in bytes."""
        return os.fstat(self._file).st_size

    def close(self) -> None:
        os.close(self._file)
        os.close(self._lock)

    def _end_torn_line(self) -> None:
        """End a line that a full disk cut short. It is rejected later, and the next event gets a line of its own."""
        size = self.size()
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")


@dataclass(kw_only=True)
class DeliveryState:
    """How much of a journal has been delivered to one server, `tracking_state.json`."""

    destination: str
    """The server: a URL, or the folder of a local one."""
    offset: int = 0
    """Bytes of the journal that are done with: delivered or rejected."""
    delivered: int = 0
    """Number of events that the server has."""
    rejected: int = 0
    """Number of events that the server refused."""
    memory: dict[str, str] = field(default_factory=dict)
    """What the server calls things, such as the run of each trial."""

    def __post_init__(self) -> None:
        if self.offset < 0:
            raise InputError(f"offset >= 0 must hold, but is {self.offset}.")

    @classmethod
    def load(cls, folder: Path, destination: str) -> "DeliveryState":
        """Return the saved state of this destination. Another server starts from the first event. Raises as `last_state` does."""
        state = last_state(folder)
        return state if state is not None and state.destination == destination else cls(destination=destination)

    def save(self, folder: Path) -> int:
        """Write the state and return its size in bytes."""
        draft = folder / f"{STATE_NAME}.draft"
        size = draft.write_text(to_json(self), encoding="utf-8")
        draft.replace(folder / STATE_NAME)
        return size


def last_state(folder: Path) -> DeliveryState | None:
    """Return the state of a folder's last delivery; None when there was none. Raises InputError when it cannot be read."""
    path = folder / STATE_NAME
    if not path.exists():
        return None
    try:
        return from_json(DeliveryState, path.read_bytes(), file=str(path))
    except FileContentError as error:
        raise InputError(
            f"{error} Move it away: then all events of the sweep are delivered again, and a server that has them keeps each once."
        ) from None


class JournalCopy(threading.Thread):
    """Keeps the copy of a folder's journal and state on a storage.

    A machine that is lost takes along the events of its last second, but none of which a record tells: these are kept first (`keep`).
    """

    def __init__(self, folder: Path, storage: Storage) -> None:
        """Put the storage's journal and state into the folder, unless the folder's own go on from there. `storage`: of the sweep."""
        super().__init__(name="tracking copy", daemon=True)
        self._folder, self._storage = folder, storage.at(COPY_FOLDER).impatient()
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._pieces, kept = _read_copy(storage.at(COPY_FOLDER))
        self._copied, self._state = len(kept), b""
        path = folder / JOURNAL_NAME
        own = path.read_bytes() if path.exists() else b""
        self.was_fetched = not own.startswith(kept) or (bool(self._pieces) and not own)
        """Whether the folder's journal is that of another machine, which may have delivered events that the copy does not have."""
        if not self._pieces:
            # A machine that is lost within its first second has delivered events, too: this tells that there was one.
            storage.at(COPY_FOLDER).write_bytes(_piece(0), b"")
            self._pieces = [_piece(0)]
        if self.was_fetched:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(kept)
            state = storage.at(COPY_FOLDER).read_bytes(STATE_NAME)
            (folder / STATE_NAME).unlink(missing_ok=True)
            if state is not None:
                (folder / STATE_NAME).write_bytes(state)

    def close(self) -> None:
        """Copy what is left, and end. What cannot be written now is lost to other machines, and still in the folder."""
        self._ending.set()
        self.join()

    def run(self) -> None:
        ended = False
        while not ended:
            ended = self._ending.wait(_COPY_EVERY_S)
            try:
                self.keep()
            except OSError:
                continue  # the storage is away; later more is copied at once

    def keep(self) -> None:
        """Copy what is new now. Raises OSError when the storage is away."""
        with self._lock:
            self._copy()

    def _copy(self) -> None:
        path = self._folder / STATE_NAME
        state = path.read_bytes() if path.exists() else b""  # before the journal, so that it is never ahead of it
        with (self._folder / JOURNAL_NAME).open("rb") as file:
            file.seek(self._copied)
            new = file.read()
            if piece := new[: new.rfind(b"\n") + 1]:
                name = _piece(self._copied)
                self._storage.write_bytes(name, piece)
                self._pieces += [name] if name not in self._pieces else []
                self._copied += len(piece)
        if state != self._state:
            self._storage.write_bytes(STATE_NAME, state)
            self._state = state
        if len(self._pieces) > _MOST_PIECES:
            self._join_pieces()

    def _join_pieces(self) -> None:
        """Write pieces as one and remove the others: whoever reads in between finds every byte, some of them twice.

        A piece is joined with those after it once they have as many bytes together, so a byte is written again as often as the journal
        doubles, and not each time.
        """
        starts = [*(int(name.removesuffix(".part")) for name in self._pieces), self._copied]
        ripe = (at for at in range(len(self._pieces)) if starts[at + 1] - starts[at] <= self._copied - starts[at + 1])
        if (at := next(ripe, None)) is None:
            return
        with (self._folder / JOURNAL_NAME).open("rb") as file:
            file.seek(starts[at])
            self._storage.write_bytes(self._pieces[at], file.read(self._copied - starts[at]))
        for name in self._pieces[at + 1 :]:
            self._storage.delete(name)
        self._pieces = self._pieces[: at + 1]


def _read_copy(storage: Storage) -> tuple[list[str], bytes]:
    """The names of the pieces of a copy, and the journal that they are of."""
    names, kept = [name for name in storage.names() if name.endswith(".part")], bytearray()
    for name in names:
        start, piece = int(name.removesuffix(".part")), storage.read_bytes(name) or b""
        if start > len(kept):  # a piece before it is lost: its events are only where they were delivered
            break
        kept += piece[len(kept) - start :]
    return names, bytes(kept)


def _piece(start: int) -> str:
    return f"{start:015d}.part"


def keep_rejected(folder: Path, line: bytes, reason: str) -> None:
    """Keep a refused line with the reason."""
    with (folder / REJECTED_NAME).open("a", encoding="utf-8") as file:
        file.write(to_json({"reason": reason, "line": line.decode(errors="replace").rstrip("\n")}) + "\n")


def _lock(path: Path) -> int:
    """Return an open file that is locked until it is closed or this process ends, however it ends."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise StoreError(
            f"The events of {path.parent} are being delivered by another process, which has locked {path.name}. "
            "Wait until that sweep has ended, or stop it."
        ) from error
    return file
