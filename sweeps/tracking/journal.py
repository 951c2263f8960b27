"""Where records wait: a journal in the sweep's folder that is only ever appended to, and how far it has been delivered.

`tracking.jsonl` holds one record a line; `tracking_state.json` how far one server has them and what it calls things;
`tracking_rejected.jsonl` what that server refused, with its reason.
"""

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from birdclef_core.errors import StoreError
from sweeps.tracking.events import Event, to_json

JOURNAL_NAME = "tracking.jsonl"
STATE_NAME = "tracking_state.json"
REJECTED_NAME = "tracking_rejected.jsonl"
_LOCK_NAME = "tracking.lock"


class Journal:
    """Records of a sweep, one a line. What was appended survives a kill -9 of this process.

    Raises StoreError if another process has the journal of this folder open.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder / _LOCK_NAME)
        self._path = folder / JOURNAL_NAME
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._end_torn_line()

    def append(self, event: Event, time_ms: int) -> None:
        """By any thread: the system appends what one call writes in one piece."""
        os.write(self._file, f"{to_json(event, time_ms)}\n".encode())

    def read(self, offset: int, max_lines: int) -> list[bytes]:
        """Up to `max_lines` complete lines from a byte offset on."""
        with self._path.open("rb") as file:
            file.seek(offset)
            lines = [line for line, _ in zip(file, range(max_lines), strict=False)]
        return lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]

    def count(self, offset: int) -> int:
        """Number of lines from a byte offset on."""
        with self._path.open("rb") as file:
            file.seek(offset)
            return sum(1 for _ in file)

    def size(self) -> int:
        """In bytes."""
        return os.fstat(self._file).st_size

    def close(self) -> None:
        os.close(self._file)
        os.close(self._lock)

    def _end_torn_line(self) -> None:
        """A line that a full disk cut short becomes a line of its own, rejected later, and does not spoil the next."""
        size = self.size()
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")


@dataclass(kw_only=True)
class Progress:
    """How far a journal has been delivered to one server."""

    destination: str
    offset: int = 0
    """Bytes of the journal that are done with."""
    delivered: int = 0
    rejected: int = 0
    memory: dict[str, str] = field(default_factory=dict)
    """What the server calls things, such as the run of each trial."""

    @classmethod
    def load(cls, folder: Path, destination: str) -> "Progress":
        """What was saved for this destination; another server starts from the first record."""
        if last_destination(folder) == destination:
            return cls(**json.loads((folder / STATE_NAME).read_text(encoding="utf-8")))
        return cls(destination=destination)

    def save(self, folder: Path) -> int:
        """Returns how large it is, in bytes."""
        draft = folder / f"{STATE_NAME}.draft"
        size = draft.write_text(json.dumps(asdict(self)), encoding="utf-8")
        draft.replace(folder / STATE_NAME)
        return size


def last_destination(folder: Path) -> str | None:
    """Where the journal of a folder was delivered to last; None if nowhere yet."""
    path = folder / STATE_NAME
    return str(json.loads(path.read_text(encoding="utf-8"))["destination"]) if path.exists() else None


def keep_rejected(folder: Path, line: bytes, reason: str) -> None:
    """Sets a refused line aside, with the reason."""
    with (folder / REJECTED_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"reason": reason, "record": line.decode(errors="replace").rstrip("\n")}) + "\n")


def _lock(path: Path) -> int:
    """An open file that is locked until it is closed or this process ends, however it ends."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise StoreError(
            f"The records of {path.parent} are being delivered by another process, which holds {path.name}. "
            "Wait until that sweep has ended, or stop it."
        ) from error
    return file
