"""Reads decoded recordings and noise by row from the cache; what did not fit into it is decoded when it is read.

Shapes: T samples.
"""

import functools
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birdclef_core.data.cache_entries import DamagedEntry, entry_bytes, entry_path, read_entry, write_entry
from birdclef_core.data.cache_index import CacheIndex, read_index, read_sources
from birdclef_core.data.cache_sources import source_key
from birdclef_core.data.decode import Decoding, to_int16
from birdclef_core.errors import DataError
from birdclef_core.findings import Finding

_KEPT_DECODED = 4
"""Recordings that a reader keeps decoded when they are not in the cache: the windows of one are asked for in a row."""
_log = logging.getLogger(__name__)


class WaveCache:
    """Decoded recordings and noise of one dataset, by row.

    A clip is checked whenever it is read. A damaged entry is decoded again there and then, with a warning to the log and a line
    in `mended`; training goes on with the same samples. Pickled, it is the path of its list, which is opened again where it is
    unpickled; or all of the list, where that could not be written.
    """

    def __init__(self, cache_dir: Path, index: CacheIndex, directory: Path | None = None) -> None:
        """Read entries under `cache_dir` by `index`; `directory` is where that was read from, if anywhere. See `build_cache`."""
        self.directory = directory
        """Folder of the finished list; None where it could not be written."""
        self._cache_dir, self._index = cache_dir, index
        self._audio_dir = f"{cache_dir}/audio"
        self._num_recordings = index.num_recordings
        self._num_samples, self._is_direct = index.num_samples, index.is_direct
        self.mended: list[str] = []
        """Entries that were damaged and have been decoded again by this reader."""
        self._unwritable: set[int] = set()
        self._decoded = functools.lru_cache(_KEPT_DECODED)(self._decode)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.directory is not None:
            return open_cache, (self.directory,)
        return WaveCache, (self._cache_dir, self._index)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Files that could not be decoded, whose rows have no samples; that are damaged; and that did not fit, which are decoded
        whenever they are read."""
        return self._index.findings

    @property
    def recording_samples(self) -> NDArray[np.int64]:
        """Length of each recording; 0 for one that could not be decoded."""
        return self._num_samples[: self._num_recordings]

    @property
    def noise_samples(self) -> NDArray[np.int64]:
        """Length of each noise file; 0 for one that could not be decoded."""
        return self._num_samples[self._num_recordings :]

    @property
    def direct_rows(self) -> NDArray[np.int64]:
        """Files, counted over recordings and noise, that are decoded whenever they are read: the cache has no room for them."""
        return np.flatnonzero(self._is_direct)

    def num_samples(self, row: int) -> int:
        """Return the length of a row of `dataset.recordings`."""
        return int(self.recording_samples[row])

    def num_noise_samples(self, row: int) -> int:
        """Return the length of a row of `dataset.noise`."""
        return int(self.noise_samples[row])

    def read(self, row: int, start: int, length: int) -> NDArray[np.int16]:
        """Return `length` samples of a recording from sample `start`.

        Raises IndexError outside of it, DataError for a damaged entry whose source is missing or has changed.
        """
        return self._read(row, start, length)

    def read_noise(self, row: int, start: int, length: int) -> NDArray[np.int16]:
        """Return samples of a noise file, as `read` does of a recording."""
        return self._read(self._num_recordings + row, start, length)

    def is_complete(self) -> bool:
        """Return whether every entry is there in its full size, apart from what could not be decoded or has no room."""
        stored = np.flatnonzero((self._num_samples > 0) & ~self._is_direct)
        sizes = zip(self._index.keys[stored].tolist(), self._num_samples[stored].tolist(), strict=True)
        return all(_file_bytes(entry_path(self._audio_dir, key.decode())) == entry_bytes(count) for key, count in sizes)

    def _read(self, entry: int, start: int, length: int) -> NDArray[np.int16]:
        num_samples = int(self._num_samples[entry])
        if start < 0 or length < 0 or start + length > num_samples:
            raise IndexError(f"0 <= start and start + length <= {num_samples} must hold, but got start={start}, length={length}.")
        if not length:
            return np.empty(0, dtype=np.int16)
        if self._is_direct[entry]:
            return self._decoded(entry)[start : start + length]
        try:
            return read_entry(self._path(entry), num_samples, start, length)
        except DamagedEntry as damage:
            return self._mend(entry, str(damage))[start : start + length]

    def _path(self, entry: int) -> str:
        return entry_path(self._audio_dir, self._key(entry))

    def _key(self, entry: int) -> str:
        return bytes(self._index.keys[entry]).decode()

    @functools.cached_property
    def _sources(self) -> tuple[str, ...]:
        """Paths of the audio files, read when the first one is needed."""
        if self._index.sources is not None or self.directory is None:
            return self._index.sources or ()
        return read_sources(self.directory)

    def _decode(self, entry: int) -> NDArray[np.int16]:
        """Return all samples of a source, as many as the index says."""
        source = Path(self._sources[entry])
        if source_key(str(source), self._index.max_s) != self._key(entry):
            raise DataError(f"{source} has changed since the cache was built. Start again, so that it is decoded again.")
        samples_T = np.zeros(int(self._num_samples[entry]), dtype=np.int16)
        place = 0
        for block_T in Decoding(source, max_s=self._index.max_s).blocks():
            given_T = to_int16(block_T)[: len(samples_T) - place]
            samples_T[place : place + len(given_T)] = given_T
            place += len(given_T)
        return samples_T

    def _mend(self, entry: int, damage: str) -> NDArray[np.int16]:
        """Decode a damaged entry again and write it. Where that fails, it is decoded whenever it is read, with one warning."""
        if entry in self._unwritable:
            return self._decoded(entry)
        path = self._path(entry)
        line = f"{path} of the cache {damage}: {self._sources[entry]} is decoded again."
        _log.warning(line)
        self.mended.append(line)
        samples_T = self._decoded(entry)
        try:
            write_entry(path, [samples_T], self._cache_dir / "tmp")
        except OSError as error:
            self._unwritable.add(entry)
            _log.warning("%s of the cache cannot be written: %s.", path, error.strerror)
        return samples_T


def open_cache(directory: Path) -> WaveCache:
    """Return the cache whose list `build_cache` finished in `directory`. Raises DataError when it is missing or damaged."""
    return WaveCache(directory.parent.parent, read_index(directory), directory)


def _file_bytes(path: str) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a hundred thousand of them at every start
    except OSError:
        return None
