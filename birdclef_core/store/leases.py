"""Who is training a stage: leases with a heartbeat, so that sweeps on one store do not train a stage twice at the same time.

Needs no locks and no conditional writes, only that a listing shows what was written before it (local folders, NFS, S3 and GS
do): whoever wants a lease writes an entry, lists, and holds the lease if there is no other live entry. Of two that see each
other, the one whose entry sorts first tries again and the other gives up, so nobody holds it beside another. Time is the
store's: an entry is dead when the store's clock is further than the lease's time past the entry's last heartbeat.

A lease saves work; it protects nothing. Two writers of a stage do no harm (see store.py), so a holder that was cut off and
is outlived by its lease costs an epoch or two that are trained twice.

Layout: `leases/<stage_id>~<sweep>~<run>~<trial>~<token>`, a small file, written anew with each heartbeat.
"""

import json
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

from birdclef_core.store.storage import Storage

DEFAULT_DURATION_S = 60.0
HEARTBEATS = 4
"""In one lease's time."""
SAFE_SHARE = 0.8
"""A holder whose last heartbeat is older than this share of its time takes its lease for lost; for others it ends at 1."""
ATTEMPTS = 5
PAUSE_S = 0.2

FOLDER = "leases"
_SEPARATOR = "~"


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who wants a lease. Names are made of letters, digits, `.`, `_` and `-`."""

    sweep: str
    run: str
    """One run of the sweep's driver; a sweep has one at a time."""
    trial: str

    def succeeds(self, other: "Holder") -> bool:
        """Whether it takes over from `other`, which should be gone: an earlier run of the sweep, or of the same trial."""
        return self.sweep == other.sweep and (self.run != other.run or self.trial == other.trial)


@dataclass(frozen=True, kw_only=True)
class LeaseEntry:
    """One entry of the store's lease folder."""

    stage_id: str
    holder: Holder
    token: str
    beat_at_s: float = field(compare=False)
    """Last heartbeat by the store's clock."""

    @property
    def name(self) -> str:
        holder = self.holder
        return _SEPARATOR.join((self.stage_id, holder.sweep, holder.run, holder.trial, self.token))

    @classmethod
    def parse(cls, info: pafs.FileInfo) -> "LeaseEntry | None":
        parts = info.base_name.split(_SEPARATOR)
        if len(parts) != 5 or info.type != pafs.FileType.File or info.base_name.endswith(".tmp"):
            return None
        stage_id, sweep, run, trial, token = parts
        holder = Holder(sweep=sweep, run=run, trial=trial)
        return cls(stage_id=stage_id, holder=holder, token=token, beat_at_s=info.mtime_ns / 1e9)


class Lease:
    """A lease that is held. Its heartbeat stops while the holder is suspended, so that a forgotten one ends by itself."""

    def __init__(self, leases: "Leases", entry: LeaseEntry) -> None:
        self._leases, self._entry = leases, entry
        self._beaten = time.monotonic()
        self._gone = False
        self._suspended = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease {entry.stage_id[:12]}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether somebody else may hold it by now."""
        return self._gone or time.monotonic() - self._beaten > SAFE_SHARE * self._leases.duration_s

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Around a time in which the holder may never be heard of again, such as the yield of a generator."""
        self._suspended = True
        try:
            yield
        finally:
            self._suspended = False

    def reason_to_stop(self) -> str:
        """A `Stop` for the training that is done under it."""
        return "its lease was lost" if self.lost else ""

    def release(self) -> None:
        """Gives it back; once is enough."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        with suppress(OSError):  # a store that is away: the lease ends by itself
            self._leases.storage.delete(f"{FOLDER}/{self._entry.name}")

    def _keep(self) -> None:
        while not self._ended.wait(self._leases.duration_s / HEARTBEATS):
            if self._suspended:
                continue
            if self.lost:
                return
            try:
                self._beat()
            except OSError:
                continue  # a store that is away for a moment; `lost` is true if it stays away

    def _beat(self) -> None:
        started = time.monotonic()
        if not self._leases.storage.exists(f"{FOLDER}/{self._entry.name}"):
            self._gone = True  # somebody has taken it over
            return
        self._leases.write(self._entry)
        self._beaten = started


class NoLease:
    """Stands for a lease where nobody else could want it."""

    lost = False

    def suspended(self) -> AbstractContextManager[None]:
        return nullcontext()

    def reason_to_stop(self) -> str:
        return ""

    def release(self) -> None:
        pass


Hold = Callable[[str], AbstractContextManager[Lease | NoLease | None]]
"""Holds the lease of a stage id for a block; None when somebody else has it."""


def alone(stage_id: str) -> AbstractContextManager[Lease | NoLease | None]:
    """A `Hold` for a store that nobody else uses."""
    return nullcontext(NoLease())


@dataclass(frozen=True)
class Leases:
    """The leases of one store."""

    storage: Storage
    duration_s: float = DEFAULT_DURATION_S

    def acquire(self, stage_id: str, holder: Holder) -> Lease | None:
        """The lease, kept by a thread of this process until it is released; None when somebody else has it."""
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
        """`acquire` for a block; the lease is given back at its end."""
        lease = self.acquire(stage_id, holder)
        try:
            yield lease
        finally:
            if lease is not None:
                lease.release()

    def entries(self) -> list[LeaseEntry]:
        """Every entry, dead ones too."""
        selector = pafs.FileSelector(f"{self.storage.root}/{FOLDER}", allow_not_found=True)
        parsed = (LeaseEntry.parse(info) for info in self.storage.filesystem.get_file_info(selector))
        return [entry for entry in parsed if entry is not None]

    def is_dead(self, entry: LeaseEntry, now_s: float) -> bool:
        """Whether an entry counts no more at a time by the store's clock."""
        return now_s - entry.beat_at_s > self.duration_s or self._process_is_gone(entry)

    def clock_offset_s(self) -> float:
        """Seconds by which the store's clock is ahead of this machine's."""
        probe = LeaseEntry(stage_id="clock", holder=Holder(sweep="", run="", trial=""), token=uuid.uuid4().hex[:8], beat_at_s=0.0)
        self.write(probe)
        now_s = time.time()
        written = self.storage.filesystem.get_file_info(self.storage.path(f"{FOLDER}/{probe.name}"))
        self.storage.delete(f"{FOLDER}/{probe.name}")
        return written.mtime_ns / 1e9 - now_s

    def write(self, entry: LeaseEntry) -> None:
        """A heartbeat: the store's time of the file is what counts, what is in it is for people and for `_process_is_gone`."""
        self.storage.write_text(f"{FOLDER}/{entry.name}", json.dumps({"machine": _machine(), "process": os.getpid()}))

    def _alive(self, mine: LeaseEntry) -> list[LeaseEntry]:
        """The live entries for the stage, one's own among them unless somebody has removed it; dead ones are removed."""
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
        """Whether the holder is another process of this machine that is still at work: a worker has outlived its driver."""
        text = self._text(entry)
        process = _process_here(text) if text else None
        beats = now_s - entry.beat_at_s < 2 * self.duration_s / HEARTBEATS
        return beats and process is not None and process != os.getpid() and _runs(process)

    def _process_is_gone(self, entry: LeaseEntry) -> bool:
        """Whether the holder was a process of this machine that has ended; then there is no need to wait."""
        text = self._text(entry)
        if text is None:
            return True
        process = _process_here(text)
        return process is not None and not _runs(process)

    def _text(self, entry: LeaseEntry) -> str | None:
        """None when the entry is gone by now; empty when that cannot be known."""
        try:
            return self.storage.read_text(f"{FOLDER}/{entry.name}")
        except OSError:  # it was removed while it was being read, or the store is away for a moment
            return ""


def _machine() -> str:
    """This machine, this start of it, and the container if it is in one: where process ids mean the same."""
    boot, processes = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    started = boot.read_text().strip() if boot.is_file() else ""
    return f"{platform.node()} {started} {processes.readlink() if processes.is_symlink() else ''}"


def _process_here(text: str) -> int | None:
    """The process id of an entry's holder, if that is of this machine."""
    try:
        facts = json.loads(text)
        return int(facts["process"]) if facts["machine"] == _machine() else None
    except (ValueError, KeyError, TypeError):
        return None


def _runs(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    status = Path(f"/proc/{process_id}/stat")
    # A process that was killed and not yet waited for is listed as Z.
    return not (status.is_file() and status.read_text().rpartition(")")[2].split()[0] == "Z")
