"""Decoded recordings and noise by row, read from the cache; what did not fit into it is decoded on the spot.

Shapes: T samples.
"""

import functools
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from birdclef_core.data.cache_entries import DamagedEntry, entry_bytes, read_entry, write_entry
from birdclef_core.data.decode import decode, to_int16
from birdclef_core.errors import DataError
from birdclef_core.findings import Finding

_FORMAT = "int16 32 kHz 2"
_KEPT_DECODED = 4
"""Recordings that a reader keeps decoded when they are not in the cache: the windows of one are asked for in a row."""
_log = logging.getLogger(__name__)


class WaveCache:
    """Decoded recordings and noise of one dataset, by row. Pickles as its path and opens again where it is unpickled.

    A clip is checked whenever it is read. A damaged entry is decoded anew there and then, with a warning to the log and a line in
    `mended`; training goes on with the same samples.
    """

    def __init__(self, directory: Path) -> None:
        """Opens a finished list; see `build_cache`. Raises DataError when there is none in `directory`, or a damaged one."""
        path = directory / "index.npz"
        try:
            with np.load(path) as index:
                self._keys: NDArray[np.bytes_] = index["keys"]
                self._num_samples: NDArray[np.int64] = index["num_samples"]
                self._is_direct: NDArray[np.bool_] = index["is_direct"]
                notes = json.loads(str(index["notes"]))
                findings = [Finding.restore(note) for note in notes["findings"]]
        except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
            raise DataError(f"A finished cache must have an index, but {path}: {error}. Build the cache first.") from error
        self.directory = directory
        self._audio_dir = f"{directory.parent.parent}/audio"
        self._num_recordings: int = notes["num_recordings"]
        self._max_s: float | None = notes["max_s"]
        self.findings = tuple(findings)
        """Files that could not be decoded, whose rows have no samples, and files that did not fit, which are decoded directly."""
        self.mended: list[str] = []
        """Entries that were damaged and have been decoded anew by this reader."""
        self._decoded = functools.lru_cache(_KEPT_DECODED)(self._decode)

    def __reduce__(self) -> tuple[Any, ...]:
        return WaveCache, (self.directory,)

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
        """Length of a row of `dataset.recordings`."""
        return int(self.recording_samples[row])

    def num_noise_samples(self, row: int) -> int:
        """Length of a row of `dataset.noise`."""
        return int(self.noise_samples[row])

    def read(self, row: int, start: int, length: int) -> NDArray[np.int16]:
        """`length` samples of a recording from sample `start`.

        Raises IndexError outside of it, DataError for a damaged entry whose source is not there any more or is another one.
        """
        return self._read(row, start, length)

    def read_noise(self, row: int, start: int, length: int) -> NDArray[np.int16]:
        """As `read`, of a noise file."""
        return self._read(self._num_recordings + row, start, length)

    def is_whole(self) -> bool:
        """Whether every entry is there in its full size; what was undecodable or has no room is not asked for."""
        stored = np.flatnonzero((self._num_samples > 0) & ~self._is_direct)
        sizes = zip(self._keys[stored].tolist(), self._num_samples[stored].tolist(), strict=True)
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
        return entry_path(self._audio_dir, self._keys[entry].decode())

    @functools.cached_property
    def _sources(self) -> list[str]:
        """Paths of the audio files, read when the first one is needed."""
        with np.load(self.directory / "index.npz") as index:
            return json.loads(index["sources"].tobytes())

    def _decode(self, entry: int) -> NDArray[np.int16]:
        """The whole of a source, as long as the index says."""
        source = Path(self._sources[entry])
        if source_key(str(source), self._max_s) != self._keys[entry].decode():
            raise DataError(f"{source} has changed since the cache was built. Start again: it will be decoded anew.")
        samples_T = to_int16(decode(source, max_s=self._max_s))
        missing = int(self._num_samples[entry]) - len(samples_T)
        return np.pad(samples_T, (0, missing)) if missing > 0 else samples_T

    def _mend(self, entry: int, damage: str) -> NDArray[np.int16]:
        """Decodes a damaged entry again and writes it; where that fails, the next reading tries it anew."""
        path = self._path(entry)
        line = f"{path} of the cache {damage}: {self._sources[entry]} is decoded again."
        _log.warning(line)
        samples_T = self._decode(entry)
        try:
            write_entry(path, samples_T, self.directory.parent.parent / "tmp")
        except OSError as error:
            _log.warning("%s of the cache cannot be written: %s.", path, error.strerror)
        self.mended.append(line)
        return samples_T


def source_key(path: str, max_s: float | None) -> str:
    """What an entry is called: a hash of the source's path, size and time of change. Raises DataError when it is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a hundred thousand of them at every start
    except OSError as error:
        raise DataError(f"{path} must be there to be decoded, but: {error.strerror}.") from error
    identity = f"{_FORMAT}\0{path}\0{status.st_size}\0{status.st_mtime_ns}\0{max_s}"
    return hashlib.blake2b(identity.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def entry_path(folder: str, key: str) -> str:
    """Where an entry lies under the cache's `audio` folder."""
    return f"{folder}/{key[:2]}/{key}.wave"


def write_index(
    directory: Path,
    sources: Sequence[str],
    *,
    keys: Sequence[str],
    num_samples: NDArray[np.int64],
    is_direct: NDArray[np.bool_],
    num_recordings: int,
    max_s: float | None,
    findings: Sequence[Finding],
) -> None:
    """Makes a list of entries readable by WaveCache, at once."""
    notes = {"num_recordings": num_recordings, "max_s": max_s, "findings": [finding.as_json() for finding in findings]}
    aside = directory / f"index.{os.getpid()}.tmp"
    with aside.open("wb") as file:
        np.savez(
            file,
            keys=np.array(keys, dtype="S32"),
            num_samples=num_samples,
            is_direct=is_direct,
            sources=np.frombuffer(json.dumps(list(sources)).encode(), dtype=np.uint8),
            notes=json.dumps(notes),
        )
    aside.replace(directory / "index.npz")


def _file_bytes(path: str) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - as above
    except FileNotFoundError:
        return None
