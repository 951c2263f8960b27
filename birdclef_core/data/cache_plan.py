"""What a cache will hold and what it will cost, worked out before anything is decoded."""

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from birdclef_core.data.cache_entries import entry_bytes, stored_samples
from birdclef_core.data.dataset import Dataset
from birdclef_core.data.decode import decode, num_samples_at, to_int16
from birdclef_core.data.wave_cache import entry_path, source_key
from birdclef_core.errors import DataError, InputError
from birdclef_core.identity import fingerprint

MIN_S_PER_RECORDING = 60.0
"""Scoring reads this much of a recording, so the cache must not keep less."""

_SPARE_BYTES = 2**30
"""Disk space that the cache leaves to others."""
_TIMED_FILES = 8
_TIMED_S = 60.0


@dataclass(frozen=True)
class SourceList:
    """Audio files to be cached, in the order of their rows: recordings, then noise."""

    paths: list[str]
    """Absolute."""
    keys: list[str]
    """What their entries are called."""
    duration_s: NDArray[np.float64]
    """What is kept of each."""
    num_recordings: int
    max_s: float | None
    by_use: NDArray[np.int64]
    """Rows in the order in which they deserve room: noise, then the recordings of rare species, which are drawn most often."""

    @property
    def fingerprint(self) -> str:
        return fingerprint([self.num_recordings, self.keys])[:32]


@dataclass(frozen=True)
class CachePlan:
    """What a build has to do."""

    to_decode: NDArray[np.int64]
    """Rows whose entries are not there yet and have room, the most useful first."""
    direct: NDArray[np.int64]
    """Rows that have no room: they are decoded for every clip."""
    stored_samples: NDArray[np.int64]
    """Length of the entries that are there; -1 for the others."""
    num_bytes: int
    """Disk space that is still needed for what is to be decoded."""
    free_bytes: int


@dataclass(frozen=True)
class CacheEstimate:
    """What a build will cost."""

    num_files: int
    """To be decoded."""
    num_bytes: int
    """To be written."""
    free_bytes: int
    """What the cache may use of the disk."""
    decode_s: float
    """Duration on this machine, from a few files decoded now."""
    num_direct: int
    """Files that have no room."""
    direct_clip_s: float
    """CPU time of a clip of one of those."""

    def describe(self) -> str:
        """One line for the user."""
        if not self.num_files and not self.num_direct:
            return "nothing to decode, all is cached"
        line = (
            f"{self.num_files:,} files to decode, {self.num_bytes / 1e9:.1f} GB and about {self.decode_s / 60:.1f} minutes on "
            f"{num_cores()} cores; {self.free_bytes / 1e9:.1f} GB are free"
        )
        if self.num_direct:
            line += f"; {self.num_direct:,} files do not fit and cost {1e3 * self.direct_clip_s:.0f} ms of CPU for every clip"
        return line


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def sources_of(dataset: Dataset, max_s: float | None) -> SourceList:
    """The recordings and noise files of a dataset. Raises InputError for too small a `max_s`, DataError for a file that has
    gone."""
    if max_s is not None and max_s < MIN_S_PER_RECORDING:
        raise InputError(f"max_s_per_recording >= {MIN_S_PER_RECORDING:g} must hold, but got {max_s:g}.")
    recordings, noise = dataset.recordings, dataset.noise
    species_count = recordings["primary_label"].map(recordings["primary_label"].value_counts())
    return list_sources(
        dataset.root,
        pd.concat([recordings["path"], noise["path"]]),
        pd.concat([recordings["duration_s"], noise["duration_s"]]),
        num_recordings=len(recordings),
        max_s=max_s,
        by_use=np.argsort([*species_count, *([0] * len(noise))], kind="stable"),
    )


def list_sources(
    root: Path, paths: pd.Series, duration_s: pd.Series, *, num_recordings: int, max_s: float | None, by_use: NDArray[np.int64]
) -> SourceList:
    """Files under `root` with the keys that they have now."""
    folder = str(root.resolve())
    absolute = [os.path.join(folder, path) for path in paths]  # noqa: PTH118 - Path takes ten times as long
    keys = [source_key(path, max_s) for path in absolute]
    return SourceList(absolute, keys, duration_s.clip(upper=max_s).to_numpy(), num_recordings, max_s, by_use)


def plan_list(sources: SourceList, cache_dir: Path, max_bytes: int | None) -> CachePlan:
    """What is there, what will be decoded, and what has no room on the disk or within `max_bytes`."""
    stored = np.array([_or_none(stored_samples(entry_path(f"{cache_dir}/audio", key))) for key in sources.keys], dtype=np.int64)
    sizes = np.array([entry_bytes(num_samples_at(duration)) for duration in sources.duration_s], dtype=np.int64)
    is_stored = stored >= 0
    free_bytes = max(0, _free_bytes(cache_dir) - _SPARE_BYTES)
    allowed = free_bytes if max_bytes is None else min(free_bytes, max_bytes - int(sizes[is_stored].sum()))
    missing = sources.by_use[~is_stored[sources.by_use]]
    fits = np.cumsum(sizes[missing]) <= allowed
    to_decode, direct = missing[fits], missing[~fits]
    return CachePlan(
        to_decode=to_decode,
        direct=direct,
        stored_samples=stored,
        num_bytes=int(sizes[to_decode].sum()),
        free_bytes=free_bytes,
    )


def estimate(sources: SourceList, plan: CachePlan) -> CacheEstimate:
    """The plan in bytes and seconds."""
    return CacheEstimate(
        num_files=len(plan.to_decode),
        num_bytes=plan.num_bytes,
        free_bytes=plan.free_bytes,
        decode_s=_slowness(sources, plan.to_decode) * float(sources.duration_s[plan.to_decode].sum()) / num_cores(),
        num_direct=len(plan.direct),
        direct_clip_s=direct_clip_s(sources, plan.direct),
    )


def direct_clip_s(sources: SourceList, rows: NDArray[np.int64]) -> float:
    """CPU time of a clip of these rows, if they are decoded for it: a recording is decoded whole, for its mean and its length."""
    return _slowness(sources, rows) * float(sources.duration_s[rows].mean()) if len(rows) else 0.0


def _or_none(num_samples: int | None) -> int:
    return -1 if num_samples is None else num_samples


def _free_bytes(cache_dir: Path) -> int:
    """Of the disk that the folder is on or will be on."""
    there = next(folder for folder in (cache_dir, *cache_dir.parents) if folder.is_dir())
    return shutil.disk_usage(there).free


def _slowness(sources: SourceList, rows: NDArray[np.int64]) -> float:
    """CPU seconds to decode a second of audio, from a few of the files."""
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
