"""Packs a data folder into shards: plain tar archives, named by their content, so that packing goes on where it was cut off."""

import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from birdclef_core.data.packed.contents import Contents, find_contents
from birdclef_core.data.packed.index import INDEX_NAME, PACK_VERSION, PackIndex, Shard, find_index
from birdclef_core.errors import DataError, InputError, StoreError
from birdclef_core.identity import file_sha256
from birdclef_core.store.storage import Storage

SHARD_BYTES = 256 * 2**20
"""A shard is closed when its files have so many bytes: large enough for a fast transfer, small enough to begin anew."""
AT_ONCE = 4
"""Shards that are written and sent at the same time. Each needs room in the folder of temporary files."""

PROBE_NAME = "probe.tmp"
"""A file that is written and removed at the start, to see whether that can be done."""

Progress = Callable[[int, int], None]
"""Gets the shards that are done, and all."""


@dataclass(frozen=True, kw_only=True)
class PackReport:
    """What a packing did."""

    index: PackIndex
    num_sent: int
    """Shards that were not there yet."""
    missing: tuple[str, ...]
    """Audio that the manifest names and that cannot be read: it is missing in the packed set as it is in the folder."""


def pack(root: Path, place: str, *, shard_bytes: int = SHARD_BYTES, progress: Progress | None = None) -> PackReport:
    """Pack the data folder `root` into `place`, a folder or a URI of a storage.

    Packed are the tables and all audio that they name, as it is: the packed set has the same data fingerprint, which is found out
    before anything is sent. The index is written last. Cut off, the same call goes on: shards that are there in full size are not sent again.
    Raises DataError as `load_dataset` does, InputError when `place` holds another packed set or cannot be written to, and StoreError when
    writing fails on the way.
    """
    storage = Storage.parse(place)
    if storage.is_local and Path(storage.root) == root.resolve():
        raise InputError(f"A packed set must lie in a folder of its own, but {place} is the data folder itself.")
    _check_writable(storage)
    there = find_index(storage)
    with tempfile.TemporaryDirectory(prefix="birdclef-pack-") as name:
        scratch = Path(name)
        contents = find_contents(root, scratch)
        lots = [("tables", contents.tables), *(("audio", lot) for lot in _lots(contents.audio, shard_bytes))]
        shards: list[Shard] = []
        num_sent = 0
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                for shard, is_new in pool.map(lambda lot: _send(lot[0], lot[1], storage, scratch, there), lots):
                    shards.append(shard)
                    num_sent += is_new
                    if progress:
                        progress(len(shards), len(lots))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    index = _index(contents, shards)
    if there is not None and there.pack_id != index.pack_id:
        raise _another(there, place)
    _write(storage, lambda: storage.write_json(INDEX_NAME, index, indent=1))
    return PackReport(index=index, num_sent=num_sent, missing=contents.missing)


def _index(contents: Contents, shards: Sequence[Shard]) -> PackIndex:
    dataset = contents.dataset
    return PackIndex(
        version=PACK_VERSION,
        data_fingerprint=dataset.fingerprint,
        num_recordings=len(dataset.recordings),
        num_noise=len(dataset.noise),
        num_soundscapes=len(dataset.soundscapes.files) if dataset.soundscapes else 0,
        shards=tuple(shards),
    )


def _lots(audio: Mapping[str, Path], shard_bytes: int) -> Iterator[Mapping[str, Path]]:
    """Yield the files of each shard, in order: the same for the same files."""
    lot: dict[str, Path] = {}
    num_bytes = 0
    for path, file in audio.items():
        size = file.stat().st_size
        if lot and num_bytes + size > shard_bytes:
            yield lot
            lot, num_bytes = {}, 0
        lot[path] = file
        num_bytes += size
    yield lot


def _send(kind: str, files: Mapping[str, Path], storage: Storage, scratch: Path, there: PackIndex | None) -> tuple[Shard, bool]:
    """Write a shard into the storage unless it is there, and return it, and whether it was not there."""
    handle, name = tempfile.mkstemp(suffix=".tar", dir=scratch)
    os.close(handle)
    archive = Path(name)
    try:
        file_bytes = _write_archive(archive, files)
        digest = file_sha256(archive)
        shard = Shard(
            name=f"{kind}-{digest[:32]}.tar",
            sha256=digest,
            num_bytes=archive.stat().st_size,
            num_files=len(files),
            file_bytes=file_bytes,
        )
        if there is not None and shard not in there.shards:
            raise _another(there, storage.root)
        if storage.num_bytes(shard.name) == shard.num_bytes:
            return shard, False
        _write(storage, lambda: storage.put(archive, shard.name))
        return shard, True
    except OSError as error:
        raise StoreError(
            f"A shard must be written to {scratch} before it is sent, but: {error}. What is sent is kept: make room, and run the same command "
            "again. TMPDIR names another folder."
        ) from None
    finally:
        archive.unlink(missing_ok=True)


def _write_archive(archive: Path, files: Mapping[str, Path]) -> int:
    """Write a tar archive with the same bytes for the same files, and return the size of the files."""
    num_bytes = 0
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for path, file in files.items():
            with file.open("rb") as content:
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = os.fstat(content.fileno()).st_size, 0o644
                try:
                    tar.addfile(entry, content)
                except OSError as error:
                    if error.errno is not None:
                        raise
                    raise DataError(
                        f"{file} must not change while it is packed, but became shorter. Run the same command again."
                    ) from None
            num_bytes += entry.size
    return num_bytes


def _write(storage: Storage, work: Callable[[], None]) -> None:
    try:
        work()
    except OSError as error:
        raise StoreError(
            f"{storage.root} must be writable, with room for the packed set, but: {error}. What is there is kept: run the same command again."
        ) from None


def _check_writable(storage: Storage) -> None:
    """Raise InputError when nothing can be written, before every file is looked at."""
    try:
        storage.write_text(PROBE_NAME, "")
        storage.delete(PROBE_NAME)
    except OSError as error:
        raise InputError(
            f"{storage.root} must be a folder or bucket that can be written to, but: {error}. Make the bucket, or give this machine "
            "credentials that may write to it."
        ) from None


def _another(there: PackIndex, place: str) -> InputError:
    return InputError(
        f"{place} holds another packed set already (data {there.data_fingerprint[:16]}, {there.num_recordings:,} recordings), which sweeps may be "
        "using. Give a place of its own to this one."
    )
