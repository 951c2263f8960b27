"""Finds what a cache lacks, and what it costs to complete it, before anything is decoded."""

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.data.cache_entries import entry_bytes, entry_path, stored_samples
from birdclef_core.data.cache_sources import SourceList
from birdclef_core.data.containers.layout import TOLERANCE_S
from birdclef_core.data.decode import decode, num_samples_at, to_int16
from birdclef_core.errors import DataError

_SPARE_BYTES = 2**30
"""Disk space that the cache leaves to others."""
_TIMED_FILES = 8
_TIMED_S = 60.0


@dataclass(frozen=True)
class CacheWork:
    """What a build has to do."""

    to_decode: NDArray[np.int64]
    """Rows that have room and no entry yet, the most useful first."""
    direct: NDArray[np.int64]
    """Rows that have no room: they are decoded for every clip."""
    stored_samples: NDArray[np.int64]
    """Length of the entries that are there; -1 for the others."""
    num_bytes: int
    """Disk space that `to_decode` needs."""
    free_bytes: int
    """Disk space that the cache may still use; 0 where it cannot be written to."""


@dataclass(frozen=True)
class CacheEstimate:
    """What a build costs."""

    num_files: int
    """Files to be decoded."""
    num_bytes: int
    """Bytes to be written."""
    free_bytes: int
    """Bytes of the disk that the cache may use."""
    decode_s: float
    """Duration on this machine, from a few files decoded now."""
    num_direct: int
    """Files that have no room."""
    direct_clip_s: float
    """CPU time of one clip of such a file."""

    def describe(self) -> str:
        """Return one line for the user."""
        if not self.num_files and not self.num_direct:
            return "nothing to decode, everything is cached"
        line = (
            f"{self.num_files:,} files to decode, {self.num_bytes / 1e9:.1f} GB and about {self.decode_s / 60:.1f} minutes on "
            f"{num_cores()} cores; {self.free_bytes / 1e9:.1f} GB can be used"
        )
        if self.num_direct:
            line += (
                f"; {self.num_direct:,} files do not fit and cost {1e3 * self.direct_clip_s:.0f} ms of CPU time for every clip"
            )
        return line


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def find_work(sources: SourceList, cache_dir: Path, max_bytes: int | None) -> CacheWork:
    """Return what is stored, what is to be decoded, and what has no room on the disk or within `max_bytes`.

    An entry that is .1 s or more longer or shorter than its file does not count: it was made by an older version, which read such
    a file in part.
    """
    wanted = np.array([num_samples_at(duration) for duration in sources.duration_s], dtype=np.int64)
    found = (stored_samples(entry_path(f"{cache_dir}/audio", key)) for key in sources.keys)
    stored = np.array([-1 if count is None else count for count in found], dtype=np.int64)
    stored = np.where(np.abs(stored - wanted) <= TOLERANCE_S * SAMPLE_RATE_HZ, stored, -1)
    sizes = np.array([entry_bytes(count) for count in wanted.tolist()], dtype=np.int64)
    is_stored = stored >= 0
    free_bytes = _usable_bytes(cache_dir)
    allowed = free_bytes if max_bytes is None else min(free_bytes, max_bytes - int(sizes[is_stored].sum()))
    missing = sources.by_use[~is_stored[sources.by_use]]
    fits = np.cumsum(sizes[missing]) <= allowed
    to_decode, direct = missing[fits], missing[~fits]
    return CacheWork(
        to_decode=to_decode,
        direct=direct,
        stored_samples=stored,
        num_bytes=int(sizes[to_decode].sum()),
        free_bytes=free_bytes,
    )


def estimate(sources: SourceList, work: CacheWork) -> CacheEstimate:
    """Return the cost of a build in bytes and seconds."""
    return CacheEstimate(
        num_files=len(work.to_decode),
        num_bytes=work.num_bytes,
        free_bytes=work.free_bytes,
        decode_s=_slowness(sources, work.to_decode) * float(sources.duration_s[work.to_decode].sum()) / num_cores(),
        num_direct=len(work.direct),
        direct_clip_s=direct_clip_s(sources, work.direct),
    )


def direct_clip_s(sources: SourceList, rows: NDArray[np.int64]) -> float:
    """Return the CPU time of a clip of these rows when they are decoded for it: each time the whole file, for its mean."""
    return _slowness(sources, rows) * float(sources.duration_s[rows].mean()) if len(rows) else 0.0


def _usable_bytes(cache_dir: Path) -> int:
    """Return the bytes that may be used of the disk that the folder is on, or will be on."""
    there = next(folder for folder in (cache_dir, *cache_dir.absolute().parents) if os.access(folder, os.F_OK))
    if not os.access(there, os.W_OK):
        return 0
    return max(0, shutil.disk_usage(there).free - _SPARE_BYTES)


def _slowness(sources: SourceList, rows: NDArray[np.int64]) -> float:
    """Return the CPU seconds that a second of audio takes, from a few of the files."""
    chosen: Sequence[int] = rows[np.linspace(0, len(rows) - 1, min(_TIMED_FILES, len(rows))).astype(int)].tolist()
    spent_s = audio_s = 0.0
    for row in chosen:
        started = time.thread_time()
        try:
            to_int16(decode(Path(sources.paths[row]), max_s=_TIMED_S))
        except DataError:
            continue  # The build counts and names it.
        spent_s += time.thread_time() - started
        audio_s += min(float(sources.duration_s[row]), _TIMED_S)
    return spent_s / audio_s if audio_s else 0.0
