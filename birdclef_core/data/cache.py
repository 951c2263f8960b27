"""Every file decoded once on a machine: mono int16 at 32 kHz, a .npy file each, which all trials read through the page cache.

Layout of the cache folder: `audio/<2 digits>/<key>.npy`, where the key names a source file with its size and time of change, and
`lists/<key>/index.npz`, which maps the rows of a dataset to those. Files are written aside and renamed, so what is there is
whole.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.data.dataset import Dataset
from birdclef_core.data.decode import decode, to_int16
from birdclef_core.data.findings import Finding, settle_unusable
from birdclef_core.errors import DataError, InputError
from birdclef_core.identity import fingerprint

MIN_S_PER_RECORDING = 60.0
"""Scoring reads this much of a recording, so the cache must not keep less."""

_FORMAT = "int16 32 kHz 1"
_BYTES_PER_SAMPLE = 2
_HEADER_BYTES = 128  # What numpy pads the header of a one-dimensional .npy file to.
_RULE_DECODABLE = "every audio file can be decoded"


class WaveCache:
    """Decoded recordings and noise of one dataset, by row. Pickles as its path and opens again where it is unpickled."""

    def __init__(self, directory: Path) -> None:
        """Opens a finished list; see `build_cache`. Raises DataError when there is none in `directory`."""
        path = directory / "index.npz"
        if not path.is_file():
            raise DataError(f"A finished cache must have an index, but {path} is not there. Build the cache first.")
        with np.load(path) as index:
            self._keys: NDArray[np.str_] = index["keys"]
            self._num_samples: NDArray[np.int64] = index["num_samples"]
            self._num_recordings = int(index["num_recordings"])
            notes = json.loads(str(index["findings"]))
        self.directory = directory
        self.findings = tuple(Finding(**{**note, "examples": tuple(note["examples"])}) for note in notes)
        """Files that turned out undecodable; their rows have no samples."""

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

    def num_samples(self, row: int) -> int:
        """Length of a row of `dataset.recordings`."""
        return int(self.recording_samples[row])

    def num_noise_samples(self, row: int) -> int:
        """Length of a row of `dataset.noise`."""
        return int(self.noise_samples[row])

    def read(self, row: int, start: int, length: int) -> NDArray[np.int16]:
        """`length` samples of a recording from sample `start`. Raises IndexError outside of it, DataError for a damaged file."""
        return self._read(row, start, length)

    def read_noise(self, row: int, start: int, length: int) -> NDArray[np.int16]:
        """As `read`, of a noise file."""
        return self._read(self._num_recordings + row, start, length)

    def is_whole(self) -> bool:
        """Whether every entry is there in its full size; what was undecodable is not asked for again."""
        cache_dir = self.directory.parent.parent
        sizes = zip(self._keys, self._num_samples, strict=True)
        return all(_file_bytes(_audio_path(cache_dir, str(key))) == _entry_bytes(int(count)) for key, count in sizes if count)

    def _read(self, entry: int, start: int, length: int) -> NDArray[np.int16]:
        num_samples = int(self._num_samples[entry])
        if start < 0 or length < 0 or start + length > num_samples:
            raise IndexError(f"0 <= start and start + length <= {num_samples} must hold, but got start={start}, length={length}.")
        wave_T = np.empty(length, dtype=np.int16)
        if not length:
            return wave_T
        path = _audio_path(self.directory.parent.parent, str(self._keys[entry]))
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(_HEADER_BYTES + start * _BYTES_PER_SAMPLE)
                num_bytes = file.readinto(wave_T.data)
        except OSError as error:
            raise DataError(
                f"{path} of the cache cannot be read: {error.strerror}. Run again: it will be decoded anew."
            ) from error
        if num_bytes != wave_T.nbytes:
            raise DataError(f"{path} of the cache is damaged. Run again: it will be decoded anew.")
        return wave_T


def open_cache(directory: Path) -> WaveCache:
    """The cache that `build_cache` finished in `directory` (`WaveCache.directory`)."""
    return WaveCache(directory)


def build_cache(
    dataset: Dataset,
    cache_dir: Path,
    *,
    max_s_per_recording: float | None = None,
    max_bad_share: float = 0.05,
    progress: Callable[[int, int], None] | None = None,
) -> WaveCache:
    """Decodes what `cache_dir` does not hold yet of a dataset, on all cores, and returns the cache.

    Of two processes that build the same list, the second waits and finds it done; a build that was killed goes on where it was; a
    file whose size or time has changed is decoded anew, and so is a damaged entry. `progress` gets (files done, files in all).
    Raises DataError when more than `max_bad_share` of the files cannot be decoded or the disk is too small, InputError when
    `max_s_per_recording` is less than what scoring reads.
    """
    if max_s_per_recording is not None and max_s_per_recording < MIN_S_PER_RECORDING:
        raise InputError(f"max_s_per_recording >= {MIN_S_PER_RECORDING:g} must hold, but got {max_s_per_recording:g}.")
    paths = [*dataset.recordings["path"], *dataset.noise["path"]]
    keys = [_entry_key(dataset.root.resolve() / path, max_s_per_recording) for path in paths]
    directory = cache_dir / "lists" / fingerprint([len(dataset.recordings), keys])[:32]
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / "lock"):
        if (directory / "index.npz").is_file() and (finished := WaveCache(directory)).is_whole():
            return finished
        sizes = {key: _stored_samples(_audio_path(cache_dir, key)) for key in keys}
        missing = [(path, key) for path, key in zip(paths, keys, strict=True) if sizes[key] is None]
        _require_space(dataset, cache_dir, {path for path, _ in missing}, max_s_per_recording)
        lengths, reasons = _decode_all(dataset.root, cache_dir, missing, max_s_per_recording, len(paths), progress)
        bad_csv = directory / "undecodable.csv"
        findings = settle_unusable(
            reasons, total=len(paths), max_share=max_bad_share, rule=_RULE_DECODABLE, kind="audio files", csv_path=bad_csv
        )
        num_samples = [lengths.get(key, sizes[key] or 0) for key in keys]
        _write_index(directory, keys, num_samples, len(dataset.recordings), findings)
    return WaveCache(directory)


def cache_bytes(dataset: Dataset, *, max_s_per_recording: float | None = None) -> int:
    """Disk space the whole cache of a dataset takes, about."""
    return _estimate(dataset, None, max_s_per_recording)


def _estimate(dataset: Dataset, paths: set[str] | None, max_s: float | None) -> int:
    total_s = 0.0
    for table in (dataset.recordings, dataset.noise):
        durations = table["duration_s"] if paths is None else table["duration_s"][table["path"].isin(paths)]
        total_s += float(durations.clip(upper=max_s).sum())
    return int(total_s * SAMPLE_RATE_HZ * _BYTES_PER_SAMPLE)


def _require_space(dataset: Dataset, cache_dir: Path, paths: set[str], max_s: float | None) -> None:
    needed, free = _estimate(dataset, paths, max_s), shutil.disk_usage(cache_dir).free
    if needed > free:
        raise DataError(
            f"The cache needs {needed / 1e9:.1f} GB more, but {cache_dir} has {free / 1e9:.1f} GB free. "
            "Put it on another disk or keep fewer seconds of each recording."
        )


def _entry_key(path: Path, max_s: float | None) -> str:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path} must be there to be decoded, but: {error.strerror}.") from error
    identity = f"{_FORMAT}\0{path}\0{status.st_size}\0{status.st_mtime_ns}\0{max_s}"
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def _audio_path(cache_dir: Path, key: str) -> Path:
    return cache_dir / "audio" / key[:2] / f"{key}.npy"


def _stored_samples(path: Path) -> int | None:
    """Samples in a cache entry; None when it is not there or not whole."""
    try:
        num_samples = len(np.load(path, mmap_mode="r"))
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return num_samples if _file_bytes(path) == _entry_bytes(num_samples) else None


def _entry_bytes(num_samples: int) -> int:
    return _HEADER_BYTES + num_samples * _BYTES_PER_SAMPLE


def _file_bytes(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _decode_all(
    root: Path,
    cache_dir: Path,
    missing: list[tuple[str, str]],
    max_s: float | None,
    total: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, int], dict[str, str]]:
    """Samples by key of what could be decoded, and reasons by path of what could not."""
    lengths: dict[str, int] = {}
    reasons: dict[str, str] = {}
    done = total - len(missing)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        jobs = {pool.submit(_decode_one, root / path, _audio_path(cache_dir, key), max_s): (path, key) for path, key in missing}
        try:
            for job in as_completed(jobs):
                path, key = jobs.pop(job)
                try:
                    lengths[key] = job.result()
                except DataError as error:
                    reasons[path] = str(error)
                done += 1
                if progress:
                    progress(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return lengths, reasons


def _decode_one(source: Path, entry: Path, max_s: float | None) -> int:
    wave_T = to_int16(decode(source, max_s=max_s))
    entry.parent.mkdir(parents=True, exist_ok=True)
    aside = entry.with_suffix(f".{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            np.save(file, wave_T)
        aside.replace(entry)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()
    return len(wave_T)


def _write_index(
    directory: Path, keys: list[str], num_samples: list[int], num_recordings: int, findings: tuple[Finding, ...]
) -> None:
    aside = directory / f"index.{os.getpid()}.tmp"
    with aside.open("wb") as file:
        np.savez(
            file,
            keys=np.array(keys, dtype="U32"),
            num_samples=np.array(num_samples, dtype=np.int64),
            num_recordings=num_recordings,
            findings=json.dumps([vars(finding) for finding in findings]),
        )
    aside.replace(directory / "index.npz")
