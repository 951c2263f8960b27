"""Decodes every audio file once on a machine, to a file of mono int16 at 32 kHz that all trials read through the page cache.

Layout of the cache folder: `audio/<2 digits>/<key>.wave`, where the key names a source file with its size and time of change;
`faults/<key>.txt`, what is missing from a source file that is damaged; and `lists/<name>/`, which maps the rows of a dataset to
those. Entries are written in `tmp/` and moved, so what is there is complete. One builder works at a time; it uses all cores.
"""

import errno
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from birdclef_core.data.audio_files import read_header
from birdclef_core.data.cache_entries import entry_path, write_entry
from birdclef_core.data.cache_estimate import CacheEstimate, CacheWork, direct_clip_s, estimate, find_work, num_cores
from birdclef_core.data.cache_index import CacheIndex, write_index
from birdclef_core.data.cache_sources import SourceList, list_sources, soundscape_sources, source_key, sources_of
from birdclef_core.data.dataset import Dataset
from birdclef_core.data.decode import Decoding, num_samples_at, to_int16
from birdclef_core.data.prefetch import Prefetcher
from birdclef_core.data.soundscapes import Soundscapes
from birdclef_core.data.unlabelled import Unlabelled
from birdclef_core.data.wave_cache import WaveCache, open_cache
from birdclef_core.errors import DataError, InputError
from birdclef_core.findings import Finding, settle_unusable

__all__ = [
    "CacheEstimate",
    "Progress",
    "WaveCache",
    "build_cache",
    "build_list",
    "build_soundscape_cache",
    "build_unlabelled_cache",
    "estimate_cache",
    "estimate_soundscape_cache",
    "open_cache",
]

Progress = Callable[[float, float], None]
"""Gets the seconds of audio that have been decoded, and those to be decoded in all."""

_ORPHAN_S = 3600.0
"""Age at which files that a killed builder left in `tmp/` are removed."""
_AHEAD = 32
"""Files handed to each thread ahead, so that one long recording does not hold up the others."""
_UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
"""Errors of a disk that is full or read-only, or of a folder of another user: training goes on without room in the cache."""
_log = logging.getLogger(__name__)


def estimate_cache(
    dataset: Dataset, cache_dir: Path, *, max_s_per_recording: float | None = None, max_bytes: int | None = None
) -> CacheEstimate:
    """Return what `build_cache` with the same arguments would cost: files, bytes, minutes, what has no room. Writes nothing."""
    sources = sources_of(dataset, max_s_per_recording)
    return estimate(sources, find_work(sources, cache_dir, max_bytes))


def build_cache(
    dataset: Dataset,
    cache_dir: Path,
    *,
    max_s_per_recording: float | None = None,
    max_bytes: int | None = None,
    max_bad_share: float = 0.05,
    progress: Progress | None = None,
) -> WaveCache:
    """Decode what `cache_dir` does not hold yet of a dataset, on all cores, and return the cache.

    Of two processes that build at once, the second waits and finds the work done. A build that was killed goes on where it was. A
    file whose size or time has changed is decoded again, and so is an entry that is missing or incomplete. What has no room, on
    the disk or within `max_bytes`, is decoded whenever it is read; so is everything that is not there yet where the folder cannot
    be written to. A finding says how much that is and what it costs, and the next call tries again. The samples are the same
    either way.

    Raises DataError when more than `max_bad_share` of the files cannot be decoded, InputError when `max_s_per_recording` is less
    than what scoring reads, or when `cache_dir` cannot be a folder. `max_s_per_recording` changes which clips are drawn: it
    belongs to the identity of a stage.
    """
    sources = sources_of(dataset, max_s_per_recording)
    return build_list(sources, cache_dir, max_bytes=max_bytes, max_bad_share=max_bad_share, progress=progress)


def build_soundscape_cache(
    soundscapes: Soundscapes, cache_dir: Path, *, max_bytes: int | None = None, progress: Progress | None = None
) -> WaveCache:
    """Build the cache of labelled soundscapes as `build_cache` does; its rows are those of `soundscapes.files`."""
    return build_list(soundscape_sources(soundscapes), cache_dir, max_bytes=max_bytes, progress=progress)


def build_unlabelled_cache(unlabelled: Unlabelled, cache_dir: Path, *, max_bytes: int | None = None) -> WaveCache:
    """Build the cache of soundscapes without labels as `build_cache` does, however many cannot be decoded; its rows are those of
    `unlabelled.files`."""
    files = unlabelled.files
    every = np.arange(len(files))
    sources = list_sources(
        unlabelled.root, files["path"], files["duration_s"], num_recordings=len(files), max_s=None, by_use=every
    )
    return build_list(sources, cache_dir, max_bytes=max_bytes, max_bad_share=1.0)


def estimate_soundscape_cache(soundscapes: Soundscapes, cache_dir: Path, *, max_bytes: int | None = None) -> CacheEstimate:
    """Return what `build_soundscape_cache` with the same arguments would cost."""
    sources = soundscape_sources(soundscapes)
    return estimate(sources, find_work(sources, cache_dir, max_bytes))


def build_list(
    sources: SourceList,
    cache_dir: Path,
    *,
    max_bytes: int | None = None,
    max_bad_share: float = 0.05,
    progress: Progress | None = None,
) -> WaveCache:
    """Build the cache of any list of files as `build_cache` does."""
    directory = cache_dir / "lists" / sources.fingerprint
    finished = _finished(directory)
    if finished and not len(finished.direct_rows):
        return finished
    try:
        lock = _locked(cache_dir, directory)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise InputError(f"The cache {cache_dir} must be a folder that can be written to, but: {error.strerror}.") from error
        work = find_work(sources, cache_dir, max_bytes=0)
        return finished or _Build(sources, work, cache_dir, unwritable=error.strerror or "no reason given").run(
            None, max_bad_share, progress
        )
    try:
        finished = _finished(directory)
        if finished and not len(finished.direct_rows):
            return finished
        work = find_work(sources, cache_dir, max_bytes)
        if finished and not _has_new_room(finished, work):
            return finished
        _remove_orphans(cache_dir / "tmp")
        return _Build(sources, work, cache_dir).run(directory, max_bad_share, progress)
    finally:
        lock.release()


def _locked(cache_dir: Path, directory: Path) -> FileLock:
    """Make the folders and take the lock of the only builder. Raises OSError when the cache cannot be written to."""
    for folder in (directory, cache_dir / "audio", cache_dir / "faults", cache_dir / "tmp"):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(cache_dir / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.warning("Another process decodes into %s: waiting for it.", cache_dir)
        lock.acquire()
    return lock


def _finished(directory: Path) -> WaveCache | None:
    """Return the cache of a finished list; None where there is none, or part of it is missing or damaged."""
    with suppress(DataError):
        cache = open_cache(directory)
        return cache if cache.is_complete() else None
    return None


def _has_new_room(finished: WaveCache, work: CacheWork) -> bool:
    """Return whether something has room now that had none when the list was finished."""
    return bool(np.isin(work.to_decode, finished.direct_rows).any())


def _remove_orphans(folder: Path) -> None:
    for path in folder.iterdir():
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ORPHAN_S:
                path.unlink()


@dataclass(frozen=True)
class _Decoded:
    """What became of one file."""

    row: int
    num_samples: int = 0
    reason: str = ""
    """Why it cannot be decoded."""
    fault: str = ""
    """What is missing from it."""
    is_direct: bool = False
    """It has no room."""


class _Build:
    """One build under the lock, or one that can write nothing."""

    def __init__(self, sources: SourceList, work: CacheWork, cache_dir: Path, *, unwritable: str = "") -> None:
        """Prepare a build. `unwritable` says why nothing can be written, if that is so."""
        self._sources, self._work, self._cache_dir = sources, work, cache_dir
        self._has_room = np.isin(np.arange(len(sources.keys)), work.direct, invert=True)
        self._unwritable = unwritable

    def run(self, directory: Path | None, max_bad_share: float, progress: Progress | None) -> WaveCache:
        """Do the work and return the cache, whose index is in `directory` unless that is None or cannot be written to."""
        sources = self._sources
        num_samples = np.maximum(self._work.stored_samples, 0)
        is_direct = np.zeros(len(sources.keys), dtype=bool)
        reasons: dict[str, str] = {}
        faults = self._known_faults()
        for done in self._decode_all(progress):
            num_samples[done.row], is_direct[done.row] = done.num_samples, done.is_direct
            faults.pop(done.row, None)
            if done.reason:
                reasons[sources.paths[done.row]] = done.reason
            if done.fault:
                faults[done.row] = done.fault
        findings = settle_unusable(
            reasons,
            total=len(sources.keys),
            max_share=max_bad_share,
            kind="undecodable",
            files="[audio file|audio files]",
            csv_path=directory / "undecodable.csv" if directory else None,
        )
        index = CacheIndex(
            keys=np.array(sources.keys, dtype="S32"),
            num_samples=num_samples,
            is_direct=is_direct,
            num_recordings=sources.num_recordings,
            max_s=sources.max_s,
            findings=findings + self._damaged(faults) + self._no_room(is_direct),
            sources=tuple(sources.paths),
        )
        if directory is not None:
            try:
                write_index(directory, index)
                return open_cache(directory)
            except OSError as error:
                if error.errno not in _UNWRITABLE:
                    raise
                _log.warning("%s cannot be written to: %s.", directory, error.strerror)
        return WaveCache(self._cache_dir, index)

    def _decode_all(self, progress: Progress | None) -> Iterator[_Decoded]:
        duration_s = self._sources.duration_s
        rows = np.concatenate([self._work.to_decode, self._work.direct])
        total_s, done_s = float(duration_s[rows].sum()), 0.0
        threads = num_cores()
        with closing(Prefetcher(self._decode_one, threads=threads, depth=threads * _AHEAD)) as pool:
            for done in pool.batches(rows.tolist()):
                done_s += float(duration_s[done.row])
                if progress:
                    progress(done_s, total_s)
                yield done

    def _decode_one(self, row: int) -> _Decoded:
        try:
            if self._has_room[row] and not self._unwritable and (done := self._store(row)):
                return done
            return self._leave_out(row)
        except DataError as error:
            return _Decoded(row, reason=str(error))

    def _store(self, row: int) -> _Decoded | None:
        """Decode a file into its entry; None when the entry cannot be written."""
        path, key = self._sources.paths[row], self._sources.keys[row]
        decoding = Decoding(Path(path), max_s=self._sources.max_s)
        blocks = (to_int16(block) for block in decoding.blocks())
        try:
            num_samples = write_entry(entry_path(f"{self._cache_dir}/audio", key), blocks, self._cache_dir / "tmp")
            fault = _in_words(decoding)
            self._note_fault(key, fault)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            self._unwritable = error.strerror or "no reason given"
            return None
        if source_key(path, self._sources.max_s) != key:
            raise DataError(f"{path} must not change while it is read, but did. Start again when nothing writes to it.")
        return _Decoded(row, num_samples, fault=fault)

    def _leave_out(self, row: int) -> _Decoded:
        """Find the length of a file that has no room, to a sample: clips must not depend on what has room."""
        path, max_s = Path(self._sources.paths[row]), self._sources.max_s
        header = read_header(path)
        if header.error or header.fault or header.format in ("MP3", "MPEG"):
            decoding = Decoding(path, max_s=max_s)
            count = sum(len(block) for block in decoding.blocks())
            return _Decoded(row, count, fault=_in_words(decoding), is_direct=True)
        return _Decoded(row, num_samples_at(min(header.duration_s, max_s or np.inf)), is_direct=True)

    def _note_fault(self, key: str, fault: str) -> None:
        """Keep what is missing from a file beside its entry, for lists that are made of the entry later."""
        path = self._fault_dir / f"{key}.txt"
        if fault:
            path.write_text(fault, encoding="utf-8")
        else:
            path.unlink(missing_ok=True)

    def _known_faults(self) -> dict[int, str]:
        """Return what is missing from files that are stored already, by row."""
        try:
            damaged = {path.stem: path for path in self._fault_dir.iterdir()}
        except OSError:
            return {}
        stored = np.flatnonzero(self._work.stored_samples >= 0).tolist()
        rows = {row: damaged[self._sources.keys[row]] for row in stored if self._sources.keys[row] in damaged}
        faults = {}
        for row, path in rows.items():
            with suppress(OSError):
                faults[row] = path.read_text(encoding="utf-8", errors="replace")
        return faults

    @property
    def _fault_dir(self) -> Path:
        return self._cache_dir / "faults"

    def _damaged(self, faults: dict[int, str]) -> tuple[Finding, ...]:
        if not faults:
            return ()
        cases = [f"{self._sources.paths[row]}: {fault}" for row, fault in sorted(faults.items())]
        meaning = "trained on and scored as far as it can be read; what is missing inside is silence. Get the files again."
        return (Finding.of("damaged", "audio [file is|files are] damaged, and part of the sound is missing", cases, meaning),)

    def _no_room(self, is_direct: NDArray[np.bool_]) -> tuple[Finding, ...]:
        rows = np.flatnonzero(is_direct)
        if not len(rows):
            return ()
        hours, clip_s = self._sources.duration_s[rows].sum() / 3600, direct_clip_s(self._sources, rows)
        cost = (
            f"{hours:.1f} hours of audio are decoded again for every clip, which takes about {1e3 * clip_s:.0f} ms of CPU time "
            f"instead of .1 ms. Free some space on the disk of {self._cache_dir}, make the folder writable, or move the cache."
        )
        fault = "audio [file does|files do] not fit into the cache"
        if self._unwritable:
            fault = f"audio [file is|files are] not in the cache, which cannot be written to ({self._unwritable})"
        return (Finding.of("not_cached", fault, [self._sources.paths[row] for row in rows], cost, level="note"),)


def _in_words(decoding: Decoding) -> str:
    """Return what is missing from a file, or "". A wrong length is no loss."""
    return "; ".join(fault.text for fault in decoding.faults if fault.kind != "length")
