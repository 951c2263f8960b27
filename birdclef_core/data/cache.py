"""Every file decoded once on a machine, mono int16 at 32 kHz, a file each, which all trials read through the page cache.

Layout of the cache folder: `audio/<2 digits>/<key>.wave`, where the key names a source file with its size and time of change, and
`lists/<key>/`, which maps the rows of a dataset to those. Entries are written aside, in `tmp/`, and renamed, so what is there is
whole. One builder works at a time; it uses all cores.
"""

import errno
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from birdclef_core.data.cache_entries import write_entry
from birdclef_core.data.cache_plan import (
    CacheEstimate,
    CachePlan,
    SourceList,
    direct_clip_s,
    estimate,
    list_sources,
    num_cores,
    plan_list,
    sources_of,
)
from birdclef_core.data.dataset import Dataset
from birdclef_core.data.decode import decode, num_samples_at, to_int16
from birdclef_core.data.prefetch import Prefetcher
from birdclef_core.data.soundscapes import Soundscapes
from birdclef_core.data.wave_cache import WaveCache, entry_path, write_index
from birdclef_core.errors import DataError
from birdclef_core.findings import Finding, settle_unusable

__all__ = [
    "CacheEstimate",
    "Progress",
    "WaveCache",
    "build_cache",
    "build_list",
    "build_soundscape_cache",
    "estimate_cache",
    "estimate_soundscape_cache",
    "open_cache",
]

Progress = Callable[[float, float], None]
"""Gets the seconds of audio that have been decoded, and those to be decoded in all."""

_ORPHAN_S = 3600.0
"""What a killed builder left in `tmp/` is removed after this time."""
_AHEAD = 32
"""Files handed to each thread ahead, so that one long recording does not hold up the others."""
_log = logging.getLogger(__name__)


def open_cache(directory: Path) -> WaveCache:
    """The cache that `build_cache` finished in `directory` (`WaveCache.directory`)."""
    return WaveCache(directory)


def estimate_cache(
    dataset: Dataset, cache_dir: Path, *, max_s_per_recording: float | None = None, max_bytes: int | None = None
) -> CacheEstimate:
    """What `build_cache` with the same arguments would cost: files, bytes, minutes, and what has no room. Writes nothing."""
    sources = sources_of(dataset, max_s_per_recording)
    return estimate(sources, plan_list(sources, cache_dir, max_bytes))


def build_cache(
    dataset: Dataset,
    cache_dir: Path,
    *,
    max_s_per_recording: float | None = None,
    max_bytes: int | None = None,
    max_bad_share: float = 0.05,
    progress: Progress | None = None,
) -> WaveCache:
    """Decodes what `cache_dir` does not hold yet of a dataset, on all cores, and returns the cache.

    Of two processes that build at once, the second waits and finds the work done; a build that was killed goes on where it was; a
    file whose size or time has changed is decoded anew, and so is a missing or cut entry. What has no room, on the disk or within
    `max_bytes`, is decoded whenever it is read: a finding says how much that is and what it costs, and the next call tries again.
    The samples are the same either way.

    Raises DataError when more than `max_bad_share` of the files cannot be decoded, InputError when `max_s_per_recording` is less
    than what scoring reads. `max_s_per_recording` changes which clips are drawn: it belongs to the identity of a stage.
    """
    sources = sources_of(dataset, max_s_per_recording)
    return build_list(sources, cache_dir, max_bytes=max_bytes, max_bad_share=max_bad_share, progress=progress)


def build_soundscape_cache(
    soundscapes: Soundscapes, cache_dir: Path, *, max_bytes: int | None = None, progress: Progress | None = None
) -> WaveCache:
    """As `build_cache`, of labelled soundscapes; the rows are those of `soundscapes.files`."""
    return build_list(_soundscape_sources(soundscapes), cache_dir, max_bytes=max_bytes, progress=progress)


def estimate_soundscape_cache(soundscapes: Soundscapes, cache_dir: Path, *, max_bytes: int | None = None) -> CacheEstimate:
    """As `estimate_cache`, of labelled soundscapes."""
    sources = _soundscape_sources(soundscapes)
    return estimate(sources, plan_list(sources, cache_dir, max_bytes))


def _soundscape_sources(soundscapes: Soundscapes) -> SourceList:
    files = soundscapes.files
    every = np.arange(len(files))
    return list_sources(soundscapes.root, files["path"], files["duration_s"], num_recordings=len(files), max_s=None, by_use=every)


def build_list(
    sources: SourceList,
    cache_dir: Path,
    *,
    max_bytes: int | None = None,
    max_bad_share: float = 0.05,
    progress: Progress | None = None,
) -> WaveCache:
    """As `build_cache`, for any list of files."""
    directory = cache_dir / "lists" / sources.fingerprint
    finished = _finished(directory)
    if finished and not len(finished.direct_rows):
        return finished
    for folder in (directory, cache_dir / "audio", cache_dir / "tmp"):
        folder.mkdir(parents=True, exist_ok=True)
    with _only_builder(cache_dir):
        finished = _finished(directory)
        if finished and not len(finished.direct_rows):
            return finished
        plan = plan_list(sources, cache_dir, max_bytes)
        if finished and not _news(finished, plan):
            return finished
        _remove_orphans(cache_dir / "tmp")
        _Build(sources, plan, cache_dir).run(directory, max_bad_share, progress)
    return WaveCache(directory)


@contextmanager
def _only_builder(cache_dir: Path) -> Iterator[None]:
    lock = FileLock(cache_dir / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.warning("Another process decodes into %s: waiting for it.", cache_dir)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _finished(directory: Path) -> WaveCache | None:
    """The cache of a finished list; None where there is none, or something of it is missing or damaged."""
    with suppress(DataError):
        cache = WaveCache(directory)
        return cache if cache.is_whole() else None
    return None


def _news(finished: WaveCache, plan: CachePlan) -> bool:
    """Whether anything has room that had none when the list was finished."""
    return bool(np.isin(plan.to_decode, finished.direct_rows).any())


def _remove_orphans(folder: Path) -> None:
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _ORPHAN_S:
                path.unlink()


@dataclass(frozen=True)
class _Decoded:
    """What became of one file."""

    row: int
    num_samples: int = 0
    reason: str = ""
    """Why it cannot be decoded."""
    is_direct: bool = False
    """It has no room."""


class _Build:
    """One build under the lock."""

    def __init__(self, sources: SourceList, plan: CachePlan, cache_dir: Path) -> None:
        self._sources, self._plan, self._cache_dir = sources, plan, cache_dir
        self._has_room = np.isin(np.arange(len(sources.keys)), plan.direct, invert=True)
        self._disk_full = False

    def run(self, directory: Path, max_bad_share: float, progress: Progress | None) -> None:
        """Decodes what is planned and writes the index."""
        sources = self._sources
        num_samples = np.maximum(self._plan.stored_samples, 0)
        is_direct = np.zeros(len(sources.keys), dtype=bool)
        reasons: dict[str, str] = {}
        for done in self._decode_all(progress):
            num_samples[done.row], is_direct[done.row] = done.num_samples, done.is_direct
            if done.reason:
                reasons[sources.paths[done.row]] = done.reason
        findings = settle_unusable(
            reasons,
            total=len(sources.keys),
            max_share=max_bad_share,
            kind="undecodable",
            files="[audio file|audio files]",
            csv_path=directory / "undecodable.csv",
        )
        write_index(
            directory,
            sources.paths,
            keys=sources.keys,
            num_samples=num_samples,
            is_direct=is_direct,
            num_recordings=sources.num_recordings,
            max_s=sources.max_s,
            findings=findings + self._no_room(is_direct),
        )

    def _decode_all(self, progress: Progress | None) -> Iterator[_Decoded]:
        duration_s = self._sources.duration_s
        rows = np.concatenate([self._plan.to_decode, self._plan.direct])
        total_s, done_s = float(duration_s[rows].sum()), 0.0
        threads = num_cores()
        with closing(Prefetcher(self._decode_one, threads=threads, depth=threads * _AHEAD)) as pool:
            for done in pool.batches(rows.tolist()):
                done_s += float(duration_s[done.row])
                if progress:
                    progress(done_s, total_s)
                yield done

    def _decode_one(self, row: int) -> _Decoded:
        path = self._sources.paths[row]
        has_room = bool(self._has_room[row]) and not self._disk_full
        if not has_room and not path.lower().endswith(".mp3"):
            return _Decoded(row, num_samples_at(self._sources.duration_s[row]), is_direct=True)
        try:  # An mp3 without room too: its header may be .1 s out, and clips must not depend on what has room.
            samples_T = to_int16(decode(Path(path), max_s=self._sources.max_s))
        except DataError as error:
            return _Decoded(row, reason=str(error))
        return _Decoded(row, len(samples_T), is_direct=not (has_room and self._write(row, samples_T)))

    def _write(self, row: int, samples_T: NDArray[np.int16]) -> bool:
        """Whether there was room."""
        try:
            write_entry(entry_path(f"{self._cache_dir}/audio", self._sources.keys[row]), samples_T, self._cache_dir / "tmp")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._disk_full = True
        return not self._disk_full

    def _no_room(self, is_direct: NDArray[np.bool_]) -> tuple[Finding, ...]:
        rows = np.flatnonzero(is_direct)
        if not len(rows):
            return ()
        hours, clip_s = self._sources.duration_s[rows].sum() / 3600, direct_clip_s(self._sources, rows)
        cost = (
            f"{hours:.1f} hours of audio are decoded anew for every clip, which takes about {1e3 * clip_s:.0f} ms "
            f"of CPU each instead of .1 ms. Free some space on the disk of {self._cache_dir}, or move the cache to a larger one."
        )
        paths = [self._sources.paths[row] for row in rows]
        return (Finding.of("not_cached", "[audio file does|audio files do] not fit into the cache", paths, cost, level="note"),)
