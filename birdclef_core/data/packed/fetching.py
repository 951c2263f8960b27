"""Brings a packed data set onto a machine's own disk, once, where it is a data folder like any other."""

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from filelock import FileLock, Timeout

from birdclef_core.data.packed.index import PackIndex, Shard, read_index
from birdclef_core.errors import DataError, InputError
from birdclef_core.store.patience import Patience
from birdclef_core.store.storage import Storage

AT_ONCE = 8
"""Shards that are fetched at the same time."""
SPARE_BYTES = 2**30
"""Disk space that is left to others."""
_BLOCK = 2**20
_TIME_NS = 946_684_800 * 10**9
"""Time of change of every file: entries of the cache stay valid when a file that was lost is fetched again."""

_GO_ON = "What has arrived is kept: the same command goes on."

Say = Callable[[str], None]


class _Damaged(Exception):
    """A shard that is not what was packed; says how."""


@dataclass(frozen=True, kw_only=True)
class PackedData:
    """A packed set and its place in the caches of machines. Picklable.

    On a machine it lies in `packed/<id>/` of the cache folder; `packed/<id>.parts/` notes which files of which shards are complete. A
    shard counts once its hash is right and all its files are on the disk, so a process that is killed loses at most the shards at work.
    """

    place: str
    """The folder or URI, as the user gave it."""
    storage: Storage
    index: PackIndex
    cache_dir: Path

    @classmethod
    def open(cls, place: str, cache_dir: Path, *, outage_s: float = 0.0) -> "PackedData":
        """Return the packed set at a folder or URI. `outage_s`: how long fetching waits for a storage that is away.

        Raises InputError for a URI that no storage can have, and DataError where there is no packed set, or it cannot be read.
        """
        storage = Storage.parse(place)
        index = read_index(storage, place)  # without patience: a mistyped address is said at once
        return cls(place=place, storage=replace(storage, patience=Patience(outage_s)), index=index, cache_dir=cache_dir)

    @property
    def root(self) -> Path:
        """The data folder on this machine."""
        return self.cache_dir / "packed" / self.index.pack_id[:32]

    @property
    def is_here(self) -> bool:
        """Whether all files are on this machine in their full size."""
        return not self.missing()

    def missing(self) -> list[Shard]:
        """Return the shards of which this machine lacks a file."""
        return [shard for shard in self.index.shards if not self._is_complete(shard)]

    def problem(self) -> str:
        """Return what keeps this machine from having the set, with the way out; empty when nothing does. Fetches nothing but the index."""
        if not (missing := self.missing()):
            return ""
        try:
            index = read_index(self.storage.impatient(), self.place)
        except DataError as error:
            return str(error)
        if index.pack_id != self.index.pack_id:
            return f"{self.place} is another packed set here than on the driver's machine. Give a place that is the same for all nodes."
        return self._no_room(missing)

    def fetch(self, *, max_bytes: int | None = None, say: Say | None = None) -> Path:
        """Bring what is not on this machine yet, and return the data folder.

        Of several processes on a machine, one fetches and the others wait for it. Raises InputError when the set has more than `max_bytes`,
        and DataError for a shard that is missing or damaged, a storage that cannot be read, or a disk without room. What has arrived is kept.
        """
        if max_bytes is not None and self.index.file_bytes > max_bytes:
            raise InputError(
                f"--max-bytes must leave room for the packed set, whose files take {_gb(self.index.file_bytes)}, but is {_gb(max_bytes)}. Give more."
            )
        if not self.missing():
            return self.root
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
            with self._locked(say):
                if missing := self.missing():
                    self._fetch_all(missing, say)
        except OSError as error:
            raise DataError(f"{self.place} must be fetched to {self.root}, but: {error}. {_GO_ON}") from None
        return self.root

    def _fetch_all(self, missing: list[Shard], say: Say | None) -> None:
        if problem := self._no_room(missing):
            raise DataError(problem)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        self.root.mkdir(exist_ok=True)
        if say:
            say(f"Fetching {_gb(sum(shard.num_bytes for shard in missing))} of {self.place} to {self.root}.")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                for _ in pool.map(self._fetch_shard, missing):
                    pass
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _fetch_shard(self, shard: Shard) -> None:
        try:
            files = self.storage.wait_for(lambda: self._unpack(shard))
        except (_Damaged, FileNotFoundError) as error:
            how = str(error) if isinstance(error, _Damaged) else "is not there"
            raise DataError(
                f"{self.place} must hold {shard.name} as it was packed, but it {how}. Remove it if it is there, and pack the data again to the "
                "same place, which sends what is missing. What has arrived on this machine is kept."
            ) from None
        note = self._scratch / f"{shard.name}.json"
        note.write_text(json.dumps(files))
        note.replace(self._note(shard))

    def _unpack(self, shard: Shard) -> dict[str, int]:
        """Write the files of a shard, each complete or not at all, and return their sizes."""
        folder = self._scratch / shard.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        with self.storage.filesystem.open_input_stream(self.storage.path(shard.name)) as stream:
            counted = _Counted(stream)
            try:
                files = _extract(counted, folder)
            except tarfile.TarError as error:
                counted.drain()
                raise _Damaged(counted.difference(shard) or f"is no archive: {error}") from None
            counted.drain()
        if difference := counted.difference(shard):
            raise _Damaged(difference)
        for name in files:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).replace(self.root / name)
        shutil.rmtree(folder)
        return files

    def _is_complete(self, shard: Shard) -> bool:
        root = str(self.root)
        try:
            files = json.loads(self._note(shard).read_bytes())
            return all(os.stat(f"{root}/{name}").st_size == size for name, size in files.items())  # noqa: PTH116 - a hundred thousand
        except (OSError, ValueError, AttributeError):
            return False

    def _no_room(self, missing: list[Shard]) -> str:
        needed = sum(shard.file_bytes for shard in missing) + SPARE_BYTES
        there = next(folder for folder in (self.root, *self.root.absolute().parents) if folder.exists())
        free = shutil.disk_usage(there).free
        if free >= needed:
            return ""
        return (
            f"the disk of {self.cache_dir} must have {_gb(needed)} free for what is missing of {self.place}, but has {_gb(free)}. Make room, or "
            "give a folder on another disk: --cache-dir."
        )

    @contextmanager
    def _locked(self, say: Say | None) -> Iterator[None]:
        lock = FileLock(self._parts / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if say:
                say(f"Another process fetches {self.place} to this machine: waiting for it.")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @property
    def _parts(self) -> Path:
        return self.root.with_name(f"{self.root.name}.parts")

    @property
    def _scratch(self) -> Path:
        return self._parts / "tmp"

    def _note(self, shard: Shard) -> Path:
        return self._parts / f"{shard.name}.json"


class _Counted:
    """A stream that is hashed and counted as it is read."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._digest, self._num_bytes = stream, hashlib.sha256(), 0

    def read(self, count: int = _BLOCK) -> bytes:
        block = bytes(self._stream.read(count))
        self._digest.update(block)
        self._num_bytes += len(block)
        return block

    def drain(self) -> None:
        while self.read():
            pass

    def difference(self, shard: Shard) -> str:
        """Return how what was read differs from a shard; empty when it does not."""
        if self._num_bytes != shard.num_bytes:
            return f"has {self._num_bytes:,} bytes in place of {shard.num_bytes:,}"
        return "" if self._digest.hexdigest() == shard.sha256 else "has other bytes (sha256 differs)"


def _extract(stream: _Counted, folder: Path) -> dict[str, int]:
    """Write the files of an archive under a folder, and return their sizes by path."""
    files: dict[str, int] = {}
    with tarfile.open(fileobj=stream, mode="r|", bufsize=_BLOCK) as tar:  # type: ignore[call-overload]
        for entry in tar:
            pure = PurePosixPath(entry.name)
            content: IO[bytes] | None = tar.extractfile(entry) if entry.isreg() else None
            if content is None or pure.is_absolute() or ".." in pure.parts:
                raise tarfile.TarError(f"{entry.name!r} is no file with a path inside of it")
            target = folder / pure
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file, _BLOCK)
            os.utime(target, ns=(_TIME_NS, _TIME_NS))
            files[str(pure)] = entry.size
    return files


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB"
