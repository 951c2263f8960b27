"""Leases on stages, kept alive by heartbeats, so that two sweeps on one store do not train a stage at the same time.

They need neither locks nor conditional writes, only a storage whose listings show what was written before (local folders, NFS, S3
and GS do). Who wants a lease writes an entry, lists all entries, and holds the lease if no other entry is alive. If two see each
other, the one whose entry sorts first tries again and the other gives up, so there is never more than one holder. All times are
the storage's: an entry is dead when its last heartbeat is longer ago than a lease lasts, by the storage's clock.

A lease saves work and protects nothing. Several writers of a stage do no harm (see stage_store.py), so a holder that was cut off
from the storage and lost its lease costs an epoch or two that are trained twice.

Layout: `leases/<stage_id>~<sweep>~<run>~<trial>~<token>`, a small file that each heartbeat writes again.
"""

import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pyarrow import fs as pafs

from birdclef_core.errors import FileContentError, InputError
from birdclef_core.store.storage import Storage

DEFAULT_DURATION_S = 60.0
"""A lease lasts so long after its last heartbeat."""
HEARTBEATS = 4
"""Number of heartbeats in a lease's duration."""
SAFE_SHARE = 0.8
"""A holder gives its lease up after this share of the duration without a heartbeat; others wait for all of it."""
ATTEMPTS = 5
"""How often a lease is tried for when two want it at the same moment."""
PAUSE_S = 0.2
"""Seconds between these attempts."""

FOLDER = "leases"
_SEPARATOR = "~"
GONE = 0
"""Stands for the process of a lease that has been removed: no process has this id."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The trial that wants a lease. Names are made of letters, digits, `.`, `_` and `-`."""

    sweep: str
    run: str
    """Id of one run of the sweep's driver; a sweep has one driver at a time."""
    trial: str

    def succeeds(self, other: "Holder") -> bool:
        """Return whether it takes over from `other`, which must be gone: of an earlier run of the sweep, or of the same trial."""
        return self.sweep == other.sweep and (self.run != other.run or self.trial == other.trial)


@dataclass(frozen=True, kw_only=True)
class HolderProcess:
    """What the file of a lease holds: the process that wrote it."""

    machine: str
    """See `_machine`."""
    process: int
    """Process id."""

    def __post_init__(self) -> None:
        if not 0 < self.process < 2**31:
            raise InputError(f"process must be the id of a process, but is {self.process}.")


@dataclass(frozen=True, kw_only=True)
class LeaseEntry:
    """One file of the store's lease folder."""

    stage_id: str
    holder: Holder
    token: str
    beat_at_s: float = field(compare=False)
    """Unix time of the last heartbeat, by the storage's clock."""

    @property
    def name(self) -> str:
        holder = self.holder
        return _SEPARATOR.join((self.stage_id, holder.sweep, holder.run, holder.trial, self.token))

    @classmethod
    def parse(cls, info: pafs.FileInfo) -> "LeaseEntry | None":
        """Return the entry that a file of the folder stands for; None for any other file."""
        parts = info.base_name.split(_SEPARATOR)
        if len(parts) != 5 or info.type != pafs.FileType.File or info.base_name.endswith(".tmp"):
            return None
        stage_id, sweep, run, trial, token = parts
        holder = Holder(sweep=sweep, run=run, trial=trial)
        return cls(stage_id=stage_id, holder=holder, token=token, beat_at_s=info.mtime_ns / 1e9)


class Lease:
    """A lease that is held. Its heartbeat stops while the holder is suspended, so that a forgotten lease ends by itself."""

    def __init__(self, leases: "Leases", entry: LeaseEntry) -> None:
        self._leases, self._entry = leases, entry
        self._beaten = time.monotonic()
        self._gone = False
        self._away = False
        """Whether the storage could not be reached at the last heartbeat."""
        self._impatient = Leases(leases.storage.impatient(), leases.duration_s)
        self._suspended = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease {entry.stage_id[:12]}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether another holder may have it by now. For as long as work waits for a storage that is away, nobody takes it over there."""
        waits_s = self._leases.storage.patience.limit_s if self._away else 0.0
        return self._gone or time.monotonic() - self._beaten > SAFE_SHARE * self._leases.duration_s + waits_s

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Stop the heartbeat for a block from which the holder may never return, such as the yield of a generator."""
        self._suspended = True
        try:
            yield
        finally:
            self._suspended = False

    def reason_to_stop(self) -> str:
        """Return why training must stop, or an empty text; a `Stop` for the training under this lease."""
        return "its lease was lost" if self.lost else ""

    def release(self) -> None:
        """Give the lease back. A second call does nothing."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        with suppress(OSError):  # where the storage cannot be reached, the lease ends by itself
            self._impatient.storage.delete(f"{FOLDER}/{self._entry.name}")

    def _keep(self) -> None:
        while not self._ended.wait(self._leases.duration_s / HEARTBEATS):
            if self._suspended:
                self._away = False
                continue
            if self.lost:
                return
            try:
                self._away = not self._leases.storage.attempt(self._beat)
            except OSError:
                self._away = True  # `lost` becomes true if that lasts

    def _beat(self) -> None:
        started = time.monotonic()
        if not self._impatient.storage.exists(f"{FOLDER}/{self._entry.name}"):
            self._gone = True  # another holder has taken over
            return
        self._impatient.write(self._entry)
        self._beaten = started


class NoLease:
    """Stands for a lease in a store that has one user."""

    lost = False

    def suspended(self) -> AbstractContextManager[None]:
        return nullcontext()

    def reason_to_stop(self) -> str:
        return ""

    def release(self) -> None:
        pass


Hold = Callable[[str], AbstractContextManager[Lease | NoLease | None]]
"""Holds the lease of a stage id for a block and gives it; None when another holder has it."""


def alone(stage_id: str) -> AbstractContextManager[Lease | NoLease | None]:
    """Give a NoLease; a `Hold` for a store that has one user."""
    return nullcontext(NoLease())


@dataclass(frozen=True)
class Leases:
    """The leases of one store."""

    storage: Storage
    duration_s: float = DEFAULT_DURATION_S

    def acquire(self, stage_id: str, holder: Holder) -> Lease | None:
        """Return the lease, kept by a thread of this process until it is released; None when another holder has it."""
        mine = LeaseEntry(stage_id=stage_id, holder=holder, token=uuid.uuid4().hex[:8], beat_at_s=0.0)
        self.write(mine)
        for _ in range(ATTEMPTS):
            alive = self._alive(mine)
            if alive == [mine]:
                return Lease(self, mine)
            if mine not in alive or min(entry.name for entry in alive) < mine.name:
                break
            time.sleep(PAUSE_S)
        self.storage.delete(f"{FOLDER}/{mine.name}")
        return None

    @contextmanager
    def hold(self, stage_id: str, holder: Holder) -> Iterator[Lease | None]:
        """Call `acquire`, yield what it returns, and give the lease back at the end of the block."""
        lease = self.acquire(stage_id, holder)
        try:
            yield lease
        finally:
            if lease is not None:
                lease.release()

    def entries(self) -> list[LeaseEntry]:
        """Return every entry, dead ones included."""
        selector = pafs.FileSelector(f"{self.storage.root}/{FOLDER}", allow_not_found=True)
        found = self.storage.wait_for(lambda: self.storage.filesystem.get_file_info(selector))
        parsed = (LeaseEntry.parse(info) for info in found)
        return [entry for entry in parsed if entry is not None]

    def is_dead(self, entry: LeaseEntry, now_s: float) -> bool:
        """Return whether an entry is dead at a time by the storage's clock."""
        return now_s - entry.beat_at_s > self.duration_s or self._process_is_gone(entry)

    def clock_offset_s(self) -> float:
        """Return the seconds by which the storage's clock is ahead of this machine's."""
        probe = LeaseEntry(stage_id="clock", holder=Holder(sweep="", run="", trial=""), token=uuid.uuid4().hex[:8], beat_at_s=0.0)
        self.write(probe)
        now_s = time.time()
        written = self.storage.wait_for(
            lambda: self.storage.filesystem.get_file_info(self.storage.path(f"{FOLDER}/{probe.name}"))
        )
        self.storage.delete(f"{FOLDER}/{probe.name}")
        return written.mtime_ns / 1e9 - now_s

    def write(self, entry: LeaseEntry) -> None:
        """Write an entry's file: a heartbeat. Its time of writing is what counts; its content says which process holds the lease."""
        self.storage.write_json(f"{FOLDER}/{entry.name}", HolderProcess(machine=_machine(), process=os.getpid()))

    def _alive(self, mine: LeaseEntry) -> list[LeaseEntry]:
        """Remove the dead entries for the stage and return the others, `mine` included unless another process has removed it."""
        entries = [entry for entry in self.entries() if entry.stage_id == mine.stage_id]
        now_s = max((entry.beat_at_s for entry in entries if entry == mine), default=0.0)
        alive = []
        for entry in entries:
            takes_over = entry != mine and mine.holder.succeeds(entry.holder) and not self._trains_on(entry, now_s)
            if entry == mine or not (takes_over or self.is_dead(entry, now_s)):
                alive.append(entry)
            else:
                self.storage.delete(f"{FOLDER}/{entry.name}")
        return alive

    def _trains_on(self, entry: LeaseEntry, now_s: float) -> bool:
        """Return whether the holder is another process of this machine that still works: a worker may outlive its driver."""
        process = self._process_here(entry)
        beats = now_s - entry.beat_at_s < 2 * self.duration_s / HEARTBEATS
        return beats and process is not None and process != os.getpid() and _runs(process)

    def _process_is_gone(self, entry: LeaseEntry) -> bool:
        """Return whether the holder is a process of this machine that has ended, or the entry has been removed."""
        process = self._process_here(entry)
        return process is not None and not _runs(process)

    def _process_here(self, entry: LeaseEntry) -> int | None:
        """Return the id of the holder's process; GONE when the entry has been removed, None for one of another machine.

        None also when the file cannot be read: the holder may be at work, and without heartbeats the lease ends by itself.
        """
        try:
            holder = self.storage.read_json(HolderProcess, f"{FOLDER}/{entry.name}")
        except (OSError, FileContentError):  # it was removed while it was being read, the storage is away, or it is damaged
            return None
        if holder is None:
            return GONE
        return holder.process if holder.machine == _machine() else None


def _machine() -> str:
    """Return the name of this machine, of its last start and of its container: where a process id means one process."""
    boot, processes = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    started = boot.read_text().strip() if boot.is_file() else ""
    return f"{platform.node()} {started} {processes.readlink() if processes.is_symlink() else ''}"


def _runs(process_id: int) -> bool:
    if process_id == GONE:
        return False
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    status = Path(f"/proc/{process_id}/stat")
    # A process that was killed, and for which its parent has not waited yet, is listed as Z.
    return not (status.is_file() and status.read_text().rpartition(")")[2].split()[0] == "Z")
